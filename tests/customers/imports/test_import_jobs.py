"""Imports and the jobs that do them: stopped, failed and started from elsewhere."""

import io
import sys
from typing import Any
from uuid import UUID

import grpc
import openpyxl
import pytest
from sqlalchemy import select, update

from libs import clock
from libs.caller import Caller, acting_as
from libs.ids import new_id
from libs.jobs import Job
from libs.plumbing import jobs as jobs_table
from regulars.customers.v1 import businesses_pb2
from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.jobs_pb2_grpc import JobsServiceStub
from regulars.type.v1 import job_pb2
from services.customers.imports import actions
from services.customers.imports.jobs import ChildDied, _in_child
from services.customers.imports.tables import import_rows
from services.customers.imports.tables import imports as imports_table
from tests.customers.imports.shop import csv_of, imports, over, people, run, start, upload
from tests.customers.shop import Shop, refused

ROWS = 8000
WRONG = csv_of([("Customer ID", "Email"), ("a", "nonsense")])


async def cancel_job(shop: Shop, job: str) -> None:
    await shop.calls(JobsServiceStub).CancelJob(job_pb2.CancelJobRequest(id=job))


async def partly_done(shop: Shop) -> pb.Import:
    """An import that its job was taken from in the middle."""
    made = await upload(shop, people(ROWS))
    await start(shop, made.id)
    async for progress in imports(shop).WatchImport(pb.WatchImportRequest(id=made.id)):
        if progress.rows_done:
            break
    running = await imports(shop).GetImport(pb.GetImportRequest(id=made.id))
    await cancel_job(shop, running.job.id)
    stopped = await over(shop, made.id)
    assert stopped.state == pb.IMPORT_STATE_CANCELLED
    assert 0 < stopped.progress.customers_created < ROWS
    return stopped


async def end_of_job(shop: Shop, import_id: str, **values: Any) -> None:
    """Makes the job of an import one that ended so, as the runner would after its last try.

    Its lease goes with it: a runner that has yet to write down the real end finds the job no more its own.
    """
    rt = shop.tenant.stack.runtimes["customers"]
    mine = imports_table.c
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="test", method="/test/End")):
        async with rt.db.tx() as tx:
            found = await tx.scalar(
                update(imports_table)
                .where(mine.tenant_id == tx.tenant_id, mine.import_id == UUID(import_id))
                .values(state=pb.IMPORT_STATE_RUNNING, finished_at=None, undo_until=None)
                .returning(mine.job_id)
            )
            await tx.execute(
                update(jobs_table)
                .where(jobs_table.c.tenant_id == tx.tenant_id, jobs_table.c.id == found)
                .values(finished_at=clock.now(), lease_token=None, lease_until=None, **values)
            )


async def undone(shop: Shop, import_id: str) -> pb.Import:
    await imports(shop).UndoImport(pb.UndoImportRequest(id=import_id))
    done = await over(shop, import_id)
    assert done.state == pb.IMPORT_STATE_UNDONE
    assert done.progress.conflicts == 0
    return done


async def test_what_a_stopped_job_wrote_can_be_undone(shop: Shop) -> None:
    stopped = await partly_done(shop)
    assert stopped.HasField("undo_until")
    assert stopped.HasField("finished_at")
    await undone(shop, stopped.id)
    assert not (await shop.search("p1@example.com")).customers


async def test_an_import_goes_on_after_its_job_was_stopped(shop: Shop) -> None:
    stopped = await partly_done(shop)
    await start(shop, stopped.id)
    done = await over(shop, stopped.id)
    assert done.state == pb.IMPORT_STATE_COMPLETED
    assert done.progress.customers_created == done.progress.rows_done == ROWS


async def test_a_job_that_failed_for_good_is_a_failed_import_that_can_be_undone(shop: Shop) -> None:
    made = await upload(shop, people(20))
    await start(shop, made.id)
    await over(shop, made.id)
    await end_of_job(shop, made.id, state="failed", error_reason="CRASHED", error_detail="Its process died.")
    failed = await imports(shop).GetImport(pb.GetImportRequest(id=made.id))
    assert failed.state == failed.progress.state == pb.IMPORT_STATE_FAILED
    assert (failed.job.error.reason, failed.job.error.message) == ("CRASHED", "Its process died.")
    assert failed.undo_until.seconds - failed.finished_at.seconds == 7 * 86_400
    await undone(shop, made.id)


async def test_a_stopped_job_that_wrote_nothing_leaves_nothing_to_undo(shop: Shop) -> None:
    made = await upload(shop, WRONG)
    await start(shop, made.id)
    await over(shop, made.id)
    await end_of_job(shop, made.id, state="cancelled")
    stopped = await imports(shop).GetImport(pb.GetImportRequest(id=made.id))
    assert stopped.state == pb.IMPORT_STATE_CANCELLED
    assert not stopped.HasField("undo_until")
    refusal = await refused(imports(shop).UndoImport(pb.UndoImportRequest(id=made.id)))
    assert refusal.reason == "NOTHING_TO_UNDO"


async def test_an_undo_that_was_stopped_goes_on_as_an_undo_alone(shop: Shop) -> None:
    made = await upload(shop, people(4000))
    await start(shop, made.id)
    await over(shop, made.id)
    undoing = await imports(shop).UndoImport(pb.UndoImportRequest(id=made.id))
    await cancel_job(shop, undoing.job.id)
    stopped = await over(shop, made.id)
    assert stopped.state == pb.IMPORT_STATE_CANCELLED
    assert (await refused(start(shop, made.id))).reason == "IMPORT_DONE"
    await undone(shop, made.id)
    assert not (await shop.search("p1@example.com")).customers


async def test_the_error_file_is_named_after_the_file(shop: Shop) -> None:
    made = await upload(shop, WRONG, file_name="väter.csv")
    await start(shop, made.id)
    await over(shop, made.id)
    call = imports(shop).DownloadImportErrors(pb.DownloadImportErrorsRequest(id=made.id))
    assert "v%C3%A4ter%20errors.csv" in str(dict(await call.initial_metadata())["content-disposition"])
    assert b"nonsense" in b"".join([part.data async for part in call])


async def test_the_error_file_of_a_workbook_is_one_that_can_be_mended_and_uploaded(shop: Shop) -> None:
    book = openpyxl.Workbook()
    for row in (
        ("Customer ID", "Email", "First name"),
        ("=1", "nonsense", "Eva"),
        ("2", "b@example.com", "B"),
    ):
        book.active.append(row)
    book.active["A2"].data_type = "s"
    book.save(out := io.BytesIO())
    done = await run(shop, out.getvalue(), file_name="kunden.xlsx")
    assert (done.progress.customers_created, done.progress.rows_refused) == (1, 1)
    call = imports(shop).DownloadImportErrors(pb.DownloadImportErrorsRequest(id=done.id))
    assert "kunden errors.xlsx" in str(dict(await call.initial_metadata())["content-disposition"])
    found = openpyxl.load_workbook(io.BytesIO(b"".join([part.data async for part in call])))
    header, *rows = ([cell.value for cell in row] for row in found.worksheets[0])
    assert header == ["Customer ID", "Email", "First name", "What is wrong"]
    assert [row[:3] for row in rows] == [["=1", "nonsense", "Eva"]]
    assert rows[0][3].startswith("Email: ")
    assert found.worksheets[0]["A2"].data_type == "s"  # no formula
    found.worksheets[0]["B2"] = "eva@example.com"
    found.save(out := io.BytesIO())
    assert (await run(shop, out.getvalue())).progress.customers_created == 1


async def test_a_template_has_the_attributes_of_the_business(shop: Shop) -> None:
    attribute = businesses_pb2.AttributeDefinition(
        name="roast", type=businesses_pb2.ATTRIBUTE_TYPE_CHOICE, choices=["Light"]
    )
    await shop.calls(BusinessesServiceStub).CreateAttribute(
        businesses_pb2.CreateAttributeRequest(business_id=shop.id, attribute=attribute)
    )
    request = pb.GetImportTemplateRequest(kind=pb.IMPORT_KIND_ORDERS, format=pb.IMPORT_FILE_FORMAT_XLSX)
    call = imports(shop).GetImportTemplate(request)
    assert "orders template.xlsx" in str(dict(await call.initial_metadata())["content-disposition"])
    book = openpyxl.load_workbook(io.BytesIO(b"".join([part.data async for part in call])))
    assert "Order ID" in [cell.value for cell in book.worksheets[0][1]]
    customers = imports(shop).GetImportTemplate(pb.GetImportTemplateRequest(business_id=shop.id))
    header = b"".join([part.data async for part in customers]).decode("utf-8-sig").splitlines()[0]
    assert "roast" in header.lower()


async def test_a_template_is_csv_or_xlsx(shop: Shop) -> None:
    request = pb.GetImportTemplateRequest(format=pb.IMPORT_FILE_FORMAT_JSONL)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await imports(shop).GetImportTemplate(request).read()
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_process_that_dies_before_it_is_told_what_to_do_has_died(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rt = shop.tenant.stack.runtimes["customers"]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    known: Any = {"business_id": None, "input": {}, "checkpoint": {}, "done": 0, "total": None}
    job = Job(
        id=new_id(),
        tenant_id=shop.tenant.id,
        kind="import",
        attempts=1,
        created_by="test",
        _db=rt.db,
        _token=new_id(),
        **known,
    )
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="test", method="/test/Run")):
        for _ in range(10):
            with pytest.raises(ChildDied):
                await _in_child(rt, job, undo=False)


async def test_what_an_undo_needs_is_forgotten_once_it_cannot_be_undone(shop: Shop) -> None:
    first, second = await run(shop, people(20)), await run(shop, people(10, first=100))
    tenant = shop.tenant.id
    rt = shop.tenant.stack.runtimes["customers"]
    with acting_as(Caller(tenant_id=tenant, subject="test", method="/test/Forget")):
        async with rt.db.tx() as tx:
            assert await actions.forget_rows(tx, 100) == 0
            mine = imports_table.c
            await tx.execute(
                update(imports_table)
                .where(mine.tenant_id == tenant, mine.import_id == UUID(first.id))
                .values(undo_until=tx.now)
            )
            assert [await actions.forget_rows(tx, 15) for _ in range(3)] == [15, 5, 0]
            left = select(import_rows.c.import_id).where(import_rows.c.tenant_id == tenant).distinct()
            assert (await tx.execute(left)).scalars().all() == [UUID(second.id)]
