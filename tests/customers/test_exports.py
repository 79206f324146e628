"""Exports over gRPC and REST, streamed and as files."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import httpx
import openpyxl
import pytest
from nats.js.errors import NotFoundError
from sqlalchemy import func, select, update

from libs import clock
from libs.caller import Caller, acting_as
from libs.crypto.tables import subject_keys
from libs.instants import stamp
from libs.plumbing import jobs
from regulars.customers.v1 import exports_pb2 as pb
from regulars.customers.v1.addresses_pb2 import Address, CreateAddressRequest
from regulars.customers.v1.businesses_pb2 import (
    ATTRIBUTE_TYPE_NUMBER,
    ATTRIBUTE_TYPE_TEXT,
    AttributeDefinition,
    CreateAttributeRequest,
)
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_VIP, Customer, DeleteCustomerRequest, Source
from regulars.customers.v1.events_pb2 import ExportCompleted, ExportStopped
from regulars.customers.v1.exports_pb2_grpc import ExportsServiceStub
from regulars.customers.v1.orders_pb2 import ORDER_STATUS_PAID, Order, RecordOrderRequest
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from regulars.customers.v1.search_pb2 import SearchCustomersRequest
from regulars.customers.v1.views_pb2 import CreateViewRequest, SavedView
from regulars.customers.v1.views_pb2_grpc import ViewsServiceStub
from regulars.type.v1.audit_pb2 import AccessRecorded
from regulars.type.v1.money_pb2 import Money
from services.customers.exports import jobs as of_jobs
from services.customers.exports import links, sheets, walk
from services.customers.exports.service import ExportsService
from services.customers.exports.tables import export_files, exports
from tests.customers.shop import Shop, refused

CSV, XLSX, JSONL = pb.EXPORT_FORMAT_CSV, pb.EXPORT_FORMAT_XLSX, pb.EXPORT_FORMAT_JSONL
DENIED, ABSENT, WRONG, EARLY = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
)


def calls(shop: Shop, *roles: str) -> Any:
    return shop.calls(ExportsServiceStub, *roles)


async def whole(stream: Any) -> bytes:
    return b"".join([body.data async for body in stream])


async def lines(shop: Shop, *roles: str, **fields: Any) -> list[dict[str, Any]]:
    """What an export as JSON Lines holds."""
    request = pb.ExportCustomersRequest(format=JSONL, **fields)
    return [
        json.loads(line) for line in (await whole(calls(shop, *roles).ExportCustomers(request))).splitlines()
    ]


async def table(shop: Shop, *roles: str, **fields: Any) -> list[dict[str, str]]:
    """What an export as CSV holds."""
    found = await whole(calls(shop, *roles).ExportCustomers(pb.ExportCustomersRequest(**fields)))
    return list(csv.DictReader(io.StringIO(found.decode("utf-8-sig"))))


async def ended(shop: Shop, export_id: str) -> pb.Export:
    """An export, once its job has ended."""
    async with asyncio.timeout(30):
        while True:
            found: pb.Export = await calls(shop).GetExport(pb.GetExportRequest(id=export_id))
            if found.state not in {pb.EXPORT_STATE_QUEUED, pb.EXPORT_STATE_RUNNING}:
                return found
            await asyncio.sleep(0.02)


async def made(shop: Shop, **fields: Any) -> pb.Export:
    """A file that is ready."""
    begun = await calls(shop).CreateExport(pb.CreateExportRequest(**fields))
    return await ended(shop, begun.id)


@asynccontextmanager
async def inside(shop: Shop) -> AsyncIterator[Any]:
    """A transaction of the service itself."""
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="test")):
        async with shop.tenant.stack.runtimes["customers"].db.tx() as tx:
            yield tx


async def last_event(shop: Shop, name: str, kind: Any, wanted: Callable[[Any], bool]) -> Any:
    """The last event of a name ("export.completed") that the tenant sent, once it is the wanted one."""
    runtime = shop.tenant.stack.runtimes["customers"]
    prefix = runtime.settings.prefix
    async with asyncio.timeout(20):
        while True:
            with suppress(NotFoundError):
                last = await runtime.js.get_last_msg(
                    f"{prefix}EVENTS", f"{prefix}customers.{name}.{shop.tenant.id}"
                )
                if wanted(found := kind.FromString(last.data)):
                    return found
            await asyncio.sleep(0.05)


async def completed(shop: Shop, export_id: str) -> ExportCompleted:
    found: ExportCompleted = await last_event(
        shop, "export.completed", ExportCompleted, lambda event: event.export.export_id == export_id
    )
    return found


async def stopped(shop: Shop, export_id: str) -> ExportStopped:
    found: ExportStopped = await last_event(
        shop, "export.stopped", ExportStopped, lambda event: event.export.export_id == export_id
    )
    return found


async def fill(shop: Shop) -> list[Customer]:
    """Three customers with all that a row may hold."""
    attributes = shop.calls(BusinessesServiceStub)
    for name, kind in (("colour", ATTRIBUTE_TYPE_TEXT), ("shoe_size", ATTRIBUTE_TYPE_NUMBER)):
        definition = AttributeDefinition(name=name, type=kind, not_personal=kind == ATTRIBUTE_TYPE_NUMBER)
        await attributes.CreateAttribute(CreateAttributeRequest(attribute=definition))
    ann = Customer(
        first_name="Ann",
        last_name="=HYPERLINK(1)",
        email="ann@example.com",
        phone="+4930123456",
        born_on="1985-04-23",
        status=CUSTOMER_STATUS_VIP,
        tags=["tea", "new"],
        sources=[Source(name="csv", external_id="C-1")],
    )
    ann.attributes["colour"] = "red"
    ann.attributes["shoe_size"] = 44.5
    people = [
        await shop.create(**{field.name: value for field, value in ann.ListFields()}),
        await shop.create(first_name="Bob", email="bob@example.com", tags=["tea"]),
        await shop.create(first_name="Zoë", last_name="Ångström"),
    ]
    address = Address(
        street_lines=["1 Main St", "Floor 2"], city="New York", state="NY", postal_code="10005", country="US"
    )
    await shop.addresses.CreateAddress(CreateAddressRequest(customer_id=people[0].id, address=address))
    order = Order(
        customer_id=people[0].id,
        external_id="1",
        status=ORDER_STATUS_PAID,
        placed_at=stamp(clock.now()),
        currency="USD",
        total=Money(amount_minor=1234, currency="USD"),
    )
    await shop.calls(OrdersServiceStub).RecordOrder(RecordOrderRequest(order=order))
    return people


async def test_a_stream_holds_all_that_is_known(shop: Shop) -> None:
    people = await fill(shop)
    found = await table(shop)
    assert [row["Regulars ID"] for row in found] == [person.id for person in reversed(people)]
    ann = found[-1]
    told = {
        "First name": "Ann",
        "Last name": "'=HYPERLINK(1)",
        "Email": "ann@example.com",
        "Phone": "+4930123456",
        "Date of birth": "1985-04-23",
        "Status": "VIP",
        "Tags": "tea, new",
        "Source": "csv",
        "Customer ID": "C-1",
        "Street": "1 Main St, Floor 2",
        "City": "New York",
        "Country": "US",
        "Completed orders": "1",
        "Total spent": "12.34",
        "Currency": "USD",
        "colour": "red",
        "shoe_size": "44.5",
    }
    assert {name: ann[name] for name in told} == told
    assert found[0]["Total spent"] == "0.00"
    exact = await lines(shop, columns=["last_name", "tags", "attributes"])
    assert exact[-1] == {
        "last_name": "=HYPERLINK(1)",
        "tags": ["tea", "new"],
        "attributes.colour": "red",
        "attributes.shoe_size": 44.5,
    }


async def test_filters_queries_orders_and_views_are_those_of_the_list(shop: Shop) -> None:
    await fill(shop)

    async def names(**search: Any) -> list[str]:
        found = await lines(shop, columns=["first_name"], search=SearchCustomersRequest(**search))
        return [row["first_name"] for row in found]

    assert await names(status=[CUSTOMER_STATUS_VIP]) == ["Ann"]
    assert await names(tags_any=["TEA"], order_by="created_at asc") == ["Ann", "Bob"]
    assert await names(order_by="total_spent desc") == ["Ann", "Zoë", "Bob"]
    assert await names(city="new york") == ["Ann"]
    assert await names(query="angstrom") == ["Zoë"]
    assert await names(query="angstrom", order_by="relevance") == ["Zoë"]
    assert await names(query="nobody") == []
    view = SavedView(name="Tea", search=SearchCustomersRequest(tags_all=["tea"], order_by="created_at asc"))
    saved = await shop.calls(ViewsServiceStub).CreateView(CreateViewRequest(view=view))
    assert len(await lines(shop, view_id=saved.id)) == 2


async def test_refusals_come_before_the_first_byte(shop: Shop, other_shop: Shop) -> None:
    async def wrong(*roles: str, **fields: Any) -> Any:
        return await refused(whole(calls(shop, *roles).ExportCustomers(pb.ExportCustomersRequest(**fields))))

    found = await wrong(columns=["email", "salary"], search=SearchCustomersRequest(order_by="age"))
    assert (found.code, found.fields) == (
        WRONG,
        {"columns[1]": "UNKNOWN_COLUMN", "search.order_by": "INVALID"},
    )
    assert (await wrong("marketer")).code == DENIED
    assert (await wrong("analyst", search=SearchCustomersRequest(city="Bonn"))).reason == "FIELDS_MASKED"
    assert (await wrong(business_id=other_shop.id)).reason == "BUSINESS_NOT_FOUND"
    view = await other_shop.calls(ViewsServiceStub).CreateView(CreateViewRequest(view=SavedView(name="v")))
    assert (await wrong(view_id=view.id)).reason == "VIEW_NOT_FOUND"
    assert not (await calls(shop).ListExports(pb.ListExportsRequest())).exports


async def test_masked_columns_are_empty_and_named(shop: Shop) -> None:
    await fill(shop)
    request = pb.ExportCustomersRequest(
        columns=["first_name", "status", "email", "city"[:0] or "address.city"]
    )
    stream = calls(shop, "analyst").ExportCustomers(request)
    found = (await whole(stream)).decode("utf-8-sig")
    assert found.splitlines()[-1] == ",VIP,,"
    metadata = dict(await stream.initial_metadata())
    assert metadata["x-masked-columns"] == "first_name,email,address.city"
    (row, *_) = await lines(shop, "analyst", columns=["email", "status"])
    assert row == {"status": "ACTIVE", "masked_fields": ["email"]}
    listed = (await calls(shop, "analyst").ListExports(pb.ListExportsRequest())).exports
    assert listed[1].id == metadata["x-export-id"]
    assert list(listed[1].masked_columns) == ["first_name", "email", "address.city"]


async def test_who_is_masked_reads_no_export_of_who_is_not(shop: Shop) -> None:
    await fill(shop)
    mine = await made(shop, columns=["email"])
    masked = calls(shop, "analyst")
    assert (await refused(masked.GetExport(pb.GetExportRequest(id=mine.id)))).code == ABSENT
    assert (await refused(whole(masked.DownloadExport(pb.DownloadExportRequest(id=mine.id))))).code == ABSENT
    assert (await refused(masked.CancelExport(pb.CancelExportRequest(id=mine.id)))).code == ABSENT
    assert not (await masked.ListExports(pb.ListExportsRequest())).exports


async def test_deleted_customers_are_in_no_export(shop: Shop) -> None:
    people = await fill(shop)
    await shop.customers.DeleteCustomer(DeleteCustomerRequest(id=people[1].id))
    assert [row["id"] for row in await lines(shop, columns=["id"])] == [people[2].id, people[0].id]


async def test_each_export_is_told_once_with_filter_and_count(shop: Shop) -> None:
    people = await fill(shop)
    search = SearchCustomersRequest(query="ann", status=[CUSTOMER_STATUS_VIP])
    stream = calls(shop).ExportCustomers(pb.ExportCustomersRequest(search=search, columns=["email", "phone"]))
    await whole(stream)
    export_id = dict(await stream.initial_metadata())["x-export-id"]
    event = await completed(shop, export_id)
    facts = event.export
    assert (facts.customers, facts.streamed, facts.columns, facts.business_id) == (1, True, 2, shop.id)
    assert len(bytes.fromhex(facts.filter_fingerprint)) == 16
    assert b"ann" not in event.SerializeToString()
    known = await calls(shop).GetExport(pb.GetExportRequest(id=export_id))
    assert (known.state, known.streamed, known.customers_done) == (pb.EXPORT_STATE_COMPLETED, True, 1)
    assert (known.search.query, known.created_by, known.HasField("job")) == ("ann", "tester", False)
    assert people[0].id


async def test_the_trail_names_every_customer_that_was_read(shop: Shop) -> None:
    people = await fill(shop)
    await lines(shop, columns=["email"])

    def exported(event: Any) -> list[Any]:
        return [each for each in event.entries if each.method.endswith("/ExportCustomers")]

    event = await last_event(shop, "access.recorded", AccessRecorded, lambda event: bool(exported(event)))
    (entry,) = exported(event)
    assert {str(UUID(bytes=each)) for each in entry.customer_ids} == {person.id for person in people}
    assert list(entry.categories) == ["user.contact.email"]


async def test_a_stream_that_is_left_is_told_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "PAGE", 1)
    await fill(shop)
    monkeypatch.setattr("services.customers.exports.service.MESSAGE_BYTES", 1)
    stream = calls(shop).ExportCustomers(pb.ExportCustomersRequest())
    await stream.read()
    export_id = dict(await stream.initial_metadata())["x-export-id"]
    await stream.read()
    stream.cancel()
    event = await stopped(shop, export_id)
    assert event.export.customers <= 3
    found = await calls(shop).GetExport(pb.GetExportRequest(id=export_id))
    assert found.state == pb.EXPORT_STATE_FAILED


async def test_a_stream_whose_process_died_is_told_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.customers.exports.service.NOTED_EACH", 1)
    monkeypatch.setattr("services.customers.exports.service.MESSAGE_BYTES", 1)
    monkeypatch.setattr(walk, "PAGE", 1)
    await fill(shop)

    async def dies(*_: object) -> None:
        """The process is not there any more to note an end."""

    monkeypatch.setattr(ExportsService, "_end", dies)
    stream = calls(shop).ExportCustomers(pb.ExportCustomersRequest())
    for _ in range(3):
        await stream.read()
    export_id = dict(await stream.initial_metadata())["x-export-id"]
    stream.cancel()
    async with inside(shop) as tx:
        long_ago = clock.now() - timedelta(hours=7)
        mine = exports.c.export_id == UUID(export_id)
        await tx.execute(update(exports).where(mine).values(created_at=long_ago))
    await of_jobs.stop_lost(shop.tenant.stack.runtimes["customers"])
    event = await stopped(shop, export_id)
    assert 1 <= event.export.customers <= 3
    found = await calls(shop).GetExport(pb.GetExportRequest(id=export_id))
    assert found.state == pb.EXPORT_STATE_FAILED


async def test_a_failure_on_the_way_is_no_clean_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    people = await fill(shop)
    monkeypatch.setattr(walk, "PAGE", 1)
    monkeypatch.setattr("services.customers.exports.service.MESSAGE_BYTES", 1)
    async with inside(shop) as tx:
        # The first customer's key is wrapped by a key that nobody has: the last page cannot be opened.
        mine = subject_keys.c
        await tx.execute(
            update(subject_keys)
            .where(mine.tenant_id == shop.tenant.id, mine.subject_id == UUID(people[0].id))
            .values(epoch=99)
        )
    stream = calls(shop).ExportCustomers(pb.ExportCustomersRequest(columns=["email"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await whole(stream)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    async with shop.tenant.rest(businesses=[shop.id]) as rest:
        with pytest.raises(httpx.RemoteProtocolError):
            await rest.get("/api/v1/customers/export", params={"columns": "email"})


@pytest.mark.parametrize("form", [CSV, XLSX, JSONL])
async def test_a_file_is_written_piece_by_piece(
    shop: Shop, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "PAGE", 2)
    monkeypatch.setattr(of_jobs, "PIECE", 2)
    await fill(shop)
    for i in range(4):
        await shop.create(first_name=f"Person {i}")
    done = await made(shop, format=form, columns=["id", "first_name", "last_name"])
    assert (done.state, done.customers_done, done.customers_total) == (pb.EXPORT_STATE_COMPLETED, 7, 7)
    assert (done.job.progress_done, done.streamed) == (7, False)
    event = await completed(shop, done.id)
    assert (event.export.customers, event.export.streamed) == (7, False)
    async with inside(shop) as tx:
        mine = select(func.count()).where(export_files.c.export_id == UUID(done.id))
        assert await tx.scalar(mine) >= 4
    stream = calls(shop).DownloadExport(pb.DownloadExportRequest(id=done.id))
    content = await whole(stream)
    assert len(content) == done.size_bytes
    name = dict(await stream.initial_metadata())["content-disposition"]
    assert f"customers-{done.created_at.ToDatetime():%Y-%m-%d}." in name
    streamed = await whole(
        calls(shop).ExportCustomers(
            pb.ExportCustomersRequest(format=form, columns=["id", "first_name", "last_name"])
        )
    )
    if form == XLSX:
        both = [openpyxl.load_workbook(io.BytesIO(each)).active for each in (content, streamed)]
        values = [[[cell.value for cell in row] for row in each.iter_rows()] for each in both if each]
        assert values[0] == values[1]
        assert len(values[0]) == 8
    else:
        assert content == streamed


async def test_a_file_goes_on_where_its_process_died(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "PAGE", 1)
    monkeypatch.setattr(of_jobs, "PIECE", 1)
    await fill(shop)
    runtime = shop.tenant.stack.runtimes["customers"]
    keep, kept = runtime.files.keep, []

    class Died(BaseException):
        """As good as kill -9: nothing is handled."""

    async def once(tx: Any, written: Any, expires_at: Any = None) -> None:
        kept.append(written.file_id)
        if len(kept) == 2:
            raise RuntimeError("the process dies here")
        await keep(tx, written, expires_at)

    monkeypatch.setattr(runtime.files, "keep", once)
    done = await made(shop, columns=["id"])
    assert done.state == pb.EXPORT_STATE_COMPLETED
    assert done.job.attempts == 2
    content = await whole(calls(shop).DownloadExport(pb.DownloadExportRequest(id=done.id)))
    rows = content.decode("utf-8-sig").split()[2:]
    assert len(rows) == len(set(rows)) == 3
    async with inside(shop) as tx:
        mine = select(export_files.c.file_id).where(export_files.c.export_id == UUID(done.id))
        pieces = list((await tx.execute(mine)).scalars())
    assert kept[1] not in pieces
    assert kept[0] in pieces


async def test_a_link_works_without_a_token_until_it_expires(shop: Shop, other_shop: Shop) -> None:
    await fill(shop)
    done = await made(shop, columns=["email"])
    other = await made(other_shop)
    gateway = shop.tenant.stack.rest
    async with httpx.AsyncClient(base_url=gateway, trust_env=False) as nobody:
        found = await nobody.get(done.download_link)
        assert found.status_code == 200
        assert found.headers["content-type"] == "text/csv; charset=utf-8"
        assert found.headers["content-disposition"].startswith("attachment; filename=")
        assert found.text.splitlines()[-1] == "ann@example.com"
        signature = done.download_link.partition("signature=")[2]
        changed = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
        old = links.signed(
            *(shop.tenant.stack.runtimes["customers"].keys, shop.tenant.id, UUID(done.id)),
            clock.now() - timedelta(seconds=1),
        )
        for export_id, text, reason in (
            (done.id, changed, "LINK_INVALID"),
            (other.id, signature, "LINK_INVALID"),
            (done.id, "x", "LINK_INVALID"),
            (done.id, "%C3%A4", "LINK_INVALID"),
            (done.id, old, "LINK_EXPIRED"),
        ):
            answer = await nobody.get(f"/api/v1/customers/exports/{export_id}/file?signature={text}")
            assert (answer.status_code, answer.json()["error"]["reason"]) == (401, reason)
        assert (await nobody.get(f"/api/v1/customers/exports/{done.id}/download")).status_code == 401
    again = await calls(shop).GetExport(pb.GetExportRequest(id=done.id))
    assert again.downloads == 1
    assert again.HasField("last_downloaded_at")
    assert again.link_expires_at.seconds - clock.now().timestamp() < 3601


async def test_a_cancelled_export_leaves_no_file(shop: Shop) -> None:
    await fill(shop)
    done = await made(shop)
    for _ in range(2):
        gone = await calls(shop).CancelExport(pb.CancelExportRequest(id=done.id))
        assert (gone.state, gone.download_link) == (pb.EXPORT_STATE_CANCELLED, "")
    again = refused(whole(calls(shop).DownloadExport(pb.DownloadExportRequest(id=done.id))))
    assert (await again).reason == "EXPORT_NOT_READY"
    async with httpx.AsyncClient(base_url=shop.tenant.stack.rest, trust_env=False) as nobody:
        assert (await nobody.get(done.download_link)).json()["error"]["reason"] == "EXPORT_NOT_READY"


async def test_a_running_export_is_cancelled_by_its_job(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(shop)
    monkeypatch.setattr(walk, "PAGE", 1)
    monkeypatch.setattr(of_jobs, "PIECE", 1)
    began, go = asyncio.Event(), asyncio.Event()
    runtime = shop.tenant.stack.runtimes["customers"]
    write = runtime.files.write

    async def slowly(*given: Any) -> Any:
        began.set()
        await go.wait()
        return await write(*given)

    monkeypatch.setattr(runtime.files, "write", slowly)
    begun = await calls(shop).CreateExport(pb.CreateExportRequest())
    await began.wait()
    gone = await calls(shop).CancelExport(pb.CancelExportRequest(id=begun.id))
    go.set()
    assert gone.state == pb.EXPORT_STATE_CANCELLED
    event = await stopped(shop, begun.id)
    assert event.export.customers == 0
    async with asyncio.timeout(20):
        while True:
            async with inside(shop) as tx:
                state = await tx.scalar(select(jobs.c.state).where(jobs.c.id == UUID(begun.id)))
                pieces = await tx.scalar(
                    select(func.count()).where(export_files.c.export_id == UUID(begun.id))
                )
            if state == "cancelled":
                break
            await asyncio.sleep(0.05)
    assert pieces == 0


async def test_a_file_that_expired_is_told(shop: Shop) -> None:
    done = await made(shop)
    async with inside(shop) as tx:
        past = clock.now() - timedelta(seconds=1)
        await tx.execute(update(exports).where(exports.c.export_id == UUID(done.id)).values(expires_at=past))
    found = await calls(shop).GetExport(pb.GetExportRequest(id=done.id))
    assert (found.state, found.download_link) == (pb.EXPORT_STATE_EXPIRED, "")


async def test_creating_twice_by_request_id_makes_one(shop: Shop) -> None:
    one, two = [
        await calls(shop).CreateExport(pb.CreateExportRequest(request_id="r1", columns=["id"]))
        for _ in range(2)
    ]
    assert one.id == two.id
    listed = await calls(shop).ListExports(pb.ListExportsRequest(page_size=1))
    assert (len(listed.exports), listed.next_page_token) == (1, "")


async def test_a_sheet_that_is_too_long_is_refused_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(shop)
    for module in (sheets, walk):
        monkeypatch.setattr(module, "MOST_ROWS", 2)
    for call in (
        whole(calls(shop).ExportCustomers(pb.ExportCustomersRequest(format=XLSX))),
        calls(shop).CreateExport(pb.CreateExportRequest(format=XLSX)),
    ):
        found = await refused(call)
        assert (found.code, found.reason) == (EARLY, "SHEET_TOO_LONG")
    assert len(await lines(shop)) == 3


async def test_a_query_that_is_too_wide_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(shop)
    monkeypatch.setattr("services.customers.search.queries.MOST_LISTED", 1)
    request = pb.ExportCustomersRequest(search=SearchCustomersRequest(query="ann"))
    found = await refused(whole(calls(shop).ExportCustomers(request)))
    assert (found.code, found.reason) == (EARLY, "EXPORT_TOO_WIDE")


async def test_over_rest(shop: Shop) -> None:
    await fill(shop)
    async with shop.tenant.rest(businesses=[shop.id]) as rest:
        found = await rest.get(
            "/api/v1/customers/export",
            params={"search.status": "VIP", "columns": ["email", "tags"], "format": "JSONL"},
        )
        assert found.headers["content-type"] == "application/x-ndjson"
        assert found.json() == {"email": "ann@example.com", "tags": ["tea", "new"]}
        asked = {"search": {"tagsAny": ["tea"]}, "columns": ["email"], "format": "XLSX"}
        found = await rest.post("/api/v1/customers/export", json=asked)
        assert "filename=" in found.headers["content-disposition"]
        sheet = openpyxl.load_workbook(io.BytesIO(found.content)).active
        assert sheet is not None
        assert [cell.value for cell in sheet["A"]] == ["Email", "bob@example.com", "ann@example.com"]
        begun = await rest.post("/api/v1/customers/exports", json=asked)
        assert begun.status_code == 201
        assert begun.headers["location"] == f"/api/v1/customers/exports/{begun.json()['id']}"
        await ended(shop, begun.json()["id"])
        listed = (await rest.get("/api/v1/customers/exports")).json()["exports"]
        assert [each["state"] for each in listed] == ["COMPLETED"] * 3
        file = await rest.get(f"/api/v1/customers/exports/{begun.json()['id']}/download")
        assert file.content[:2] == b"PK"
