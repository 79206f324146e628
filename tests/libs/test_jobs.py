"""Jobs survive their processes: claimed once, resumed from the checkpoint, retried, cancelled, fenced."""

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Row, select, text, update

from libs import clock, jobs
from libs.caller import Caller, acting_as, current
from libs.ids import new_id
from libs.job_runner import JobRunner, Run
from libs.jobs import Job, JobNotFound, LeaseLost
from libs.jobs_service import JobsServicer
from libs.pages import PageTokens
from libs.plumbing import NO_TENANT
from libs.plumbing import jobs as table
from libs.problems import InvalidArgument, Unavailable
from regulars.type.v1 import job_pb2 as pb
from tests.libs.rooms import Child, Room, becomes, running


def runner(room: Room, run: Run, **options: Any) -> JobRunner:
    options = {"retry_seconds": 0.01, **options}
    return JobRunner(room.db, room.name, {"count": run}, room, **options)


async def enqueue(room: Room, job_input: Mapping[str, Any] | None = None, **options: Any) -> UUID:
    with acting_as(room.me()):
        async with room.db.tx() as tx:
            return await jobs.enqueue(tx, "count", job_input, **options)


async def row_of(room: Room, job_id: UUID) -> Row[Any]:
    async with room.db.worker() as tx:
        return (await tx.execute(select(table).where(table.c.id == job_id))).one()


async def becomes_state(room: Room, job_id: UUID, state: str) -> Row[Any]:
    async def found() -> str:
        return str((await row_of(room, job_id)).state)

    await becomes(found, state)
    return await row_of(room, job_id)


async def test_a_job_runs_for_its_tenant_and_tells_its_progress(room: Room) -> None:
    seen: list[Caller] = []

    async def run(rt: Any, job: Job) -> None:
        seen.append(current())
        for done in range(int(job.input["rows"])):
            async with rt.db.tx() as tx:
                await job.save(tx, {"row": done}, done=done + 1, total=3)

    business_id = new_id()
    async with running(runner(room, run)):
        job_id = await enqueue(room, {"rows": 3}, business_id=business_id)
        row = await becomes_state(room, job_id, "succeeded")
    assert (row.done, row.total, row.attempts, row.checkpoint) == (3, 3, 1, {"row": 2})
    assert row.finished_at >= row.started_at >= row.created_at
    assert (seen[0].tenant_id, seen[0].businesses) == (room.tenant_id, frozenset({business_id}))
    assert (seen[0].kind, seen[0].on_behalf_of) == ("service", "user:tester")


async def test_a_job_waits_for_its_time(room: Room) -> None:
    async def run(rt: Any, job: Job) -> None:
        return

    async with running(runner(room, run)):
        later = await enqueue(room, due_at=clock.now() + timedelta(hours=1))
        now = await enqueue(room)
        await becomes_state(room, now, "succeeded")
        assert (await row_of(room, later)).state == "queued"


async def test_many_runners_do_each_job_once(room: Room) -> None:
    done: list[UUID] = []

    async def run(rt: Any, job: Job) -> None:
        done.append(job.id)

    ids = [await enqueue(room) for _ in range(30)]
    async with running(*(runner(room, run) for _ in range(3))):
        for job_id in ids:
            await becomes_state(room, job_id, "succeeded")
    assert sorted(done) == sorted(ids)


async def test_a_bug_is_retried_and_then_given_up(room: Room) -> None:
    async def run(rt: Any, job: Job) -> None:
        raise ZeroDivisionError("ann@example.org")

    async with running(runner(room, run)):
        job_id = await enqueue(room, max_attempts=3)
        row = await becomes_state(room, job_id, "failed")
    assert (row.attempts, row.error_reason) == (3, "INTERNAL")
    assert row.error_detail.startswith("ZeroDivisionError test_jobs.py:")


async def test_a_refusal_ends_the_job(room: Room) -> None:
    async def run(rt: Any, job: Job) -> None:
        raise InvalidArgument("The file is empty.")

    async with running(runner(room, run)):
        job_id = await enqueue(room)
        row = await becomes_state(room, job_id, "failed")
    assert (row.attempts, row.error_reason, row.error_detail) == (1, "INVALID_FIELDS", "The file is empty.")


async def test_an_outage_is_no_attempt(room: Room) -> None:
    tries = 0

    async def run(rt: Any, job: Job) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable

    async with running(runner(room, run)):
        job_id = await enqueue(room, max_attempts=1)
        row = await becomes_state(room, job_id, "succeeded")
    assert (tries, row.attempts) == (4, 1)


async def counting_process(room: Room) -> None:
    """Another process of the service, that dies in the middle of a job."""

    async def run(rt: Any, job: Job) -> None:
        for number in (1, 2):
            async with rt.db.tx() as tx:
                await job.save(tx, {"next": number + 1}, done=number, total=4)
        os._exit(9)

    await runner(room, run, lease_seconds=0.5).run()


async def test_a_job_is_resumed_after_the_death_of_its_process(room: Room) -> None:
    job_id = await enqueue(room)
    assert await Child(room, __name__, "counting_process").ended() == 9
    assert (await row_of(room, job_id)).state == "running"
    resumed: list[Mapping[str, Any]] = []

    async def run(rt: Any, job: Job) -> None:
        resumed.append(job.checkpoint)
        async with rt.db.tx() as tx:
            await job.save(tx, {}, done=4)

    async with running(runner(room, run)):
        row = await becomes_state(room, job_id, "succeeded")
    assert resumed == [{"next": 3}]
    assert (row.done, row.total, row.attempts) == (4, 4, 2)


async def test_a_job_that_kills_its_processes_is_given_up(room: Room) -> None:
    job_id = await enqueue(room, max_attempts=2)
    async with room.db.worker() as tx:
        await tx.execute(
            update(table).values(
                state="running", attempts=2, lease_token=new_id(), lease_until=tx.now - timedelta(seconds=1)
            )
        )

    async def run(rt: Any, job: Job) -> None:
        raise AssertionError("not again")

    async with running(runner(room, run)):
        row = await becomes_state(room, job_id, "failed")
    assert row.error_reason == "CRASHED"


async def test_who_lost_the_lease_writes_no_more(room: Room) -> None:
    lost: list[type[Exception]] = []

    async def run(rt: Any, job: Job) -> None:
        async with rt.db.worker() as tx:
            await tx.execute(update(table).values(lease_token=new_id()))
        try:
            async with rt.db.tx() as tx:
                await job.save(tx, {"mine": True}, done=99)
        except LeaseLost as error:
            lost.append(type(error))
            raise

    async with running(runner(room, run)):
        job_id = await enqueue(room)

        async def count() -> int:
            return len(lost)

        await becomes(count, 1)
    row = await row_of(room, job_id)
    assert (row.state, row.done, row.checkpoint) == ("running", 0, {})


async def test_a_stopped_runner_hands_its_job_on_at_once(room: Room) -> None:
    started = asyncio.Event()

    async def forever(rt: Any, job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async def quick(rt: Any, job: Job) -> None:
        return

    job_id = await enqueue(room, max_attempts=1)
    async with running(runner(room, forever)):
        await started.wait()
    assert (await row_of(room, job_id)).state == "queued"
    async with running(runner(room, quick)):
        row = await becomes_state(room, job_id, "succeeded")
    assert row.attempts == 1


async def test_a_running_job_is_cancelled_wherever_it_is(room: Room) -> None:
    started = asyncio.Event()

    async def forever(rt: Any, job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async with running(runner(room, forever)):
        job_id = await enqueue(room)
        await started.wait()
        with acting_as(room.me()):
            async with room.db.tx() as tx:
                await jobs.cancel(tx, job_id)
        row = await becomes_state(room, job_id, "cancelled")
    assert row.finished_at is not None


async def test_work_on_the_whole_platform_has_no_tenant(room: Room) -> None:
    seen: list[UUID | None] = []

    async def run(rt: Any, job: Job) -> None:
        seen.append(current().tenant_id)
        await job.progress(5, 10)

    async with room.db.worker() as tx:
        job_id = await jobs.enqueue(tx, "count", tenant_id=NO_TENANT)
    async with running(runner(room, run)):
        row = await becomes_state(room, job_id, "succeeded")
    assert seen == [None]
    assert (row.done, row.total) == (5, 10)


@pytest.fixture
def servicer(room: Room) -> JobsServicer:
    return JobsServicer(SimpleNamespace(db=room.db, pages=PageTokens(bytes(32))))


NOWHERE = cast(Any, None)


async def test_get_and_cancel_over_the_service(room: Room, servicer: JobsServicer) -> None:
    job_id = await enqueue(room, total=7)
    with acting_as(room.me()):
        job = await servicer.GetJob(pb.GetJobRequest(id=str(job_id)), NOWHERE)
        assert (job.kind, job.state, job.progress_total) == ("count", pb.JOB_STATE_QUEUED, 7)
        assert not job.HasField("started_at")
        for _ in range(2):  # the second finds nothing to do
            job = await servicer.CancelJob(pb.CancelJobRequest(id=str(job_id)), NOWHERE)
            assert job.state == pb.JOB_STATE_CANCELLED
            assert job.HasField("finished_at")


async def test_other_tenants_and_businesses_jobs_are_not_found(room: Room, servicer: JobsServicer) -> None:
    business_id = new_id()
    job_id = await enqueue(room, business_id=business_id)
    get, stop = pb.GetJobRequest(id=str(job_id)), pb.CancelJobRequest(id=str(job_id))
    for other in (room.me(tenant_id=new_id()), room.me(businesses=frozenset({new_id()}))):
        with acting_as(other):
            with pytest.raises(JobNotFound):
                await servicer.GetJob(get, NOWHERE)
            with pytest.raises(JobNotFound):
                await servicer.CancelJob(stop, NOWHERE)
            assert not (await servicer.ListJobs(pb.ListJobsRequest(), NOWHERE)).jobs
    with acting_as(room.me(businesses=frozenset({business_id}))):
        assert (await servicer.GetJob(get, NOWHERE)).business_id == str(business_id)


async def test_list_pages_newest_first(room: Room, servicer: JobsServicer) -> None:
    ids = [str(await enqueue(room)) for _ in range(5)]
    async with room.db.worker() as tx:
        await tx.execute(
            text("update jobs set state = 'failed', error_reason = 'INTERNAL', error_detail = 'X y.py:1'")
        )
    request = pb.ListJobsRequest(page_size=2, kind="count", state=pb.JOB_STATE_FAILED)
    found: list[pb.Job] = []
    with acting_as(room.me(method="/x/ListJobs")):
        while True:
            page = await servicer.ListJobs(request, NOWHERE)
            found += page.jobs
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert not (await servicer.ListJobs(pb.ListJobsRequest(kind="other"), NOWHERE)).jobs
    assert [job.id for job in found] == ids[::-1]
    assert {(job.error.reason, job.error.message) for job in found} == {("INTERNAL", "Internal error.")}
