"""Does the jobs of one service: claims their rows and keeps them by a heartbeat."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from prometheus_client import Histogram
from sqlalchemy import ARRAY, DateTime, Row, Text, any_, bindparam, case, or_, select, text, update

from libs import clock, loops, outages
from libs.caller import Caller, acting_as
from libs.db import Database
from libs.deliveries import place_of
from libs.ids import new_id
from libs.jobs import BELL, INTERNAL, KEY, Job, JobCancelled, LeaseLost, mine
from libs.pipeline import Query
from libs.plumbing import NO_TENANT, jobs
from libs.problems import Problem
from libs.wakeups import bell, rung_within

log = logging.getLogger(__name__)

SECONDS = Histogram(
    "regulars_job_seconds", "How long a try of a job took.", ["service", "kind", "outcome"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400),
)  # fmt: skip

POLL_SECONDS = 1.0

_AT = bindparam("at", type_=DateTime(timezone=True))
# Those that nobody does: due, or of a process that died with them.
_OPEN = (
    jobs.c.kind == any_(bindparam("kinds", type_=ARRAY(Text))),
    or_(
        (jobs.c.state == "queued") & (jobs.c.due_at <= _AT),
        (jobs.c.state == "running") & (jobs.c.lease_until < _AT),
    ),
    text("state in ('queued', 'running')"),  # as its index has it
)
_ANY_OPEN = Query(select(jobs.c.id).where(*_OPEN).limit(1))

Run = Callable[[Any, Job], Awaitable[None]]


class JobRunner:
    """Does the jobs of one service, in any number of processes. `error` is None while all goes well."""

    def __init__(
        self,
        db: Database,
        service: str,
        kinds: Mapping[str, Run],
        rt: Any,
        *,
        at_once: int = 2,
        lease_seconds: float = 30.0,
        retry_seconds: float = 1.0,
    ) -> None:
        self.error: str | None = None
        self._db = db
        self._service = service
        self._kinds = kinds
        self._rt = rt
        self._at_once = at_once
        self._lease = timedelta(seconds=lease_seconds)
        self._beat_seconds = min(3.0, lease_seconds / 3)
        self._retry_seconds = retry_seconds

    async def run(self) -> None:
        """Does jobs until cancelled; those in hand are then free for other processes at once."""
        failures = 0
        running: set[asyncio.Task[None]] = set()
        try:
            with bell(BELL).listening() as rung:
                while True:
                    rung.clear()
                    try:
                        while len(running) < self._at_once and (row := await self._claim()) is not None:
                            task = asyncio.create_task(self._do(row))
                            running.add(task)
                            task.add_done_callback(running.discard)
                            task.add_done_callback(lambda _: rung.set())
                        failures, self.error = 0, None
                    except Exception as error:  # one of the loops: it outlives every failure
                        failures += 1
                        self.error = type(error).__name__
                        if failures == 1:
                            log.warning("Jobs wait", extra={"service": self._service, "reason": self.error})
                        await asyncio.sleep(outages.delay_seconds(failures, 0.2, 5.0))
                    await rung_within(rung, POLL_SECONDS)
        finally:
            await loops.end(*running)

    async def _claim(self) -> Row[Any] | None:
        """Takes the job that is due longest, also from a process that died with it."""
        if not self._kinds:
            return None
        (waiting,) = await self._db.at_once((_ANY_OPEN, {"kinds": list(self._kinds), "at": clock.now()}))
        if not waiting:
            return None
        async with self._db.worker() as tx:
            next_one = (
                select(jobs.c.tenant_id, jobs.c.id)
                .where(*_OPEN)
                .order_by(jobs.c.due_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            claimed = await tx.execute(
                update(jobs)
                .where(KEY.in_(next_one))
                .values(
                    state="running",
                    started_at=case((jobs.c.started_at.is_(None), tx.now), else_=jobs.c.started_at),
                    attempts=jobs.c.attempts + 1,
                    lease_token=new_id(),
                    lease_until=tx.now + self._lease,
                )
                .returning(*jobs.c),
                {"kinds": list(self._kinds), "at": tx.now},
            )
            return claimed.one_or_none()

    async def _do(self, row: Row[Any]) -> None:
        """One try of one job, to whatever end."""
        job = Job(
            id=row.id,
            tenant_id=row.tenant_id,
            kind=row.kind,
            business_id=row.business_id,
            input=row.input,
            checkpoint=row.checkpoint,
            done=row.done,
            total=row.total,
            attempts=row.attempts,
            created_by=row.created_by,
            _db=self._db,
            _token=row.lease_token,
        )
        started = asyncio.get_running_loop().time()
        outcome, values = await self._outcome(row, job)
        SECONDS.labels(self._service, job.kind, outcome).observe(asyncio.get_running_loop().time() - started)
        try:
            async with self._db.worker() as tx:
                await tx.execute(
                    update(jobs).where(*mine(job)).values(**values, lease_token=None, lease_until=None)
                )
        except Exception as error:  # one of the loops: its lease runs out, and it is tried again
            log.warning(
                "A job's end was not kept", extra={"job": str(job.id), "reason": type(error).__name__}
            )

    async def _outcome(self, row: Row[Any], job: Job) -> tuple[str, dict[str, Any]]:
        """What to write at the end of a try: (outcome, columns)."""
        if row.cancel_requested_at is not None:
            return "cancelled", self._end("cancelled")
        if job.attempts > row.max_attempts:
            detail = f"Its process died {row.max_attempts} times."
            return "failed", self._end("failed", error_reason="CRASHED", error_detail=detail)
        with acting_as(_caller_of(job, self._service)):
            work = asyncio.ensure_future(self._kinds[job.kind](self._rt, job))
            beat = asyncio.create_task(self._beat(job, work))
            try:
                await work
            except JobCancelled:
                return "cancelled", self._end("cancelled")
            except asyncio.CancelledError:
                work.cancel()
                if beat.done() and not beat.cancelled() and beat.result():
                    return "cancelled", self._end("cancelled")
                # We stop: the next process goes on at once, and this was no try.
                return "stopped", {"state": "queued", "attempts": job.attempts - 1, "due_at": clock.now()}
            except Exception as error:  # one of the loops: a job's failure is its own
                return self._failure(row, job, error)
            finally:
                await loops.end(beat)
        return "succeeded", self._end("succeeded", error_reason=None, error_detail=None)

    def _failure(self, row: Row[Any], job: Job, error: Exception) -> tuple[str, dict[str, Any]]:
        if isinstance(error, LeaseLost):
            return "lost", {}  # matches no row
        if outages.is_passing(error):
            delay = outages.delay_seconds(job.attempts, self._retry_seconds, 60.0)
            due_at = clock.now() + timedelta(seconds=delay)
            return "waits", {"state": "queued", "attempts": job.attempts - 1, "due_at": due_at}
        if isinstance(error, Problem):
            return "failed", self._end("failed", error_reason=error.reason, error_detail=error.message)
        log.error(
            "A job failed",
            extra={"service": self._service, "job": str(job.id), "kind": job.kind, "attempt": job.attempts},
            exc_info=error,
        )
        fault = {"error_reason": INTERNAL, "error_detail": f"{type(error).__name__} {place_of(error)}"}
        if job.attempts >= row.max_attempts:
            return "failed", self._end("failed", **fault)
        delay = outages.delay_seconds(job.attempts, self._retry_seconds, 600.0)
        return "again", {"state": "queued", "due_at": clock.now() + timedelta(seconds=delay), **fault}

    @staticmethod
    def _end(state: str, **values: Any) -> dict[str, Any]:
        return {"state": state, "finished_at": clock.now(), **values}

    async def _beat(self, job: Job, work: "asyncio.Future[None]") -> bool:
        """Keeps the lease. Ends the work: gives True if somebody asked for it, False if the lease is lost."""
        with bell(BELL).listening() as rung:
            while True:
                await rung_within(rung, self._beat_seconds)
                rung.clear()
                try:
                    async with self._db.worker() as tx:
                        row = (
                            await tx.execute(
                                update(jobs)
                                .where(*mine(job))
                                .values(lease_until=tx.now + self._lease)
                                .returning(jobs.c.cancel_requested_at)
                            )
                        ).one_or_none()
                except Exception as error:  # one of the loops: the next beat may come through
                    log.info("A heartbeat failed", extra={"reason": type(error).__name__})
                    continue
                if row is None or row.cancel_requested_at is not None:
                    work.cancel()
                    return row is not None


def _caller_of(job: Job, service: str) -> Caller:
    return Caller(
        tenant_id=None if job.tenant_id == NO_TENANT else job.tenant_id,
        businesses=None if job.business_id is None else frozenset({job.business_id}),
        subject=service,
        kind="service",
        service=service,
        on_behalf_of=job.created_by,
        method=f"job/{job.kind}",
    )
