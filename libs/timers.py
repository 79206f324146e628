"""What is done again and again, by one process of a service at a time; if that dies, by another."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from prometheus_client import Counter
from sqlalchemy import ARRAY, Text, any_, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from libs import clock, idempotency, inbox, jobs, loops, outages
from libs.db import Database
from libs.leases import Lease
from libs.pipeline import Query
from libs.plumbing import NO_TENANT, timers

log = logging.getLogger(__name__)

RUNS = Counter("regulars_timer_runs", "Runs of periodic tasks.", ["service", "task", "outcome"])

_KNOWN = Query(
    select(timers.c.name, timers.c.due_at).where(
        timers.c.tenant_id == NO_TENANT, timers.c.name == any_(bindparam("names", type_=ARRAY(Text)))
    )
)

MAX_WAIT_SECONDS = 1.0
STANDBY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Periodic:
    """A task that runs every so often, platform-wide: it opens a transaction per tenant itself.

    A run that was cut short is run again, so `run(rt)` must bear that. Long work belongs in a job that it
    enqueues.
    """

    name: str
    every: timedelta
    run: Callable[[Any], Awaitable[object]]


def cleaning(db: Database) -> list[Periodic]:
    """The tasks that keep the plumbing's own tables small."""
    hour = timedelta(hours=1)
    return [
        Periodic("clean idempotency keys", hour, lambda _: _until_none(lambda: idempotency.clean(db))),
        Periodic("clean jobs", hour, lambda _: _until_none(lambda: jobs.clean(db))),
        Periodic("clean inbox", hour, lambda _: _until_none(lambda: inbox.clean(db))),
    ]


class Timers:
    """Runs the periodic tasks of one service. `error` is None while all goes well."""

    def __init__(
        self, db: Database, service: str, tasks: Sequence[Periodic], rt: Any, *, lease_seconds: float = 10.0
    ) -> None:
        self.error: str | None = None
        self._db = db
        self._service = service
        self._tasks = {task.name: task for task in tasks}
        if len(self._tasks) < len(tasks):
            raise ValueError(f"{service} has two periodic tasks of one name")
        self._rt = rt
        self._lease = Lease(db, "timers", lease_seconds)
        self._lease_seconds = lease_seconds

    async def run(self) -> None:
        """Runs what is due, until cancelled."""
        failures = 0
        try:
            while True:
                try:
                    if not await self._lease.held():
                        await asyncio.sleep(STANDBY_SECONDS)
                        continue
                    wait = await self.run_due()
                except Exception as error:  # one of the loops: it outlives every failure
                    failures += 1
                    self.error = type(error).__name__
                    if failures == 1:
                        log.warning(
                            "The timers start over",
                            extra={"service": self._service, "reason": self.error},
                            exc_info=not outages.is_passing(error),
                        )
                    await asyncio.sleep(outages.delay_seconds(failures, 0.2, 5.0))
                    continue
                failures, self.error = 0, None
                await asyncio.sleep(wait)
        finally:
            await self._lease.let_go()

    async def run_due(self) -> float:
        """Runs each task that is due, one after the other; gives the seconds to wait before the next look."""
        for name in await self._due():
            task = self._tasks[name]
            renewing = asyncio.create_task(self._keep_lease())
            try:
                await task.run(self._rt)
            except Exception as error:  # one of the loops: a task's failure is its own
                RUNS.labels(self._service, name, "failed").inc()
                log.error(
                    "A periodic task failed",
                    extra={"service": self._service, "task": name, "reason": type(error).__name__},
                    exc_info=error,
                )
                await self._failed(task)
            else:
                RUNS.labels(self._service, name, "done").inc()
                await self._done(task)
            finally:
                await loops.end(renewing)
        return min(MAX_WAIT_SECONDS, self._lease_seconds / 3)

    async def _due(self) -> list[str]:
        if not self._tasks:
            return []
        (known,) = await self._db.at_once((_KNOWN, {"names": list(self._tasks)}))
        now = clock.now()
        due = [(row.due_at, row.name) for row in known if row.due_at <= now]
        if new := self._tasks.keys() - {row.name for row in known}:
            rows = [{"tenant_id": NO_TENANT, "name": name, "due_at": now, "failures": 0} for name in new]
            async with self._db.worker() as tx:
                await tx.execute(insert(timers).values(rows).on_conflict_do_nothing())
            due += [(now, name) for name in self._tasks if name in new]
        return [name for _, name in sorted(due, key=itemgetter(0))]

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                await self._lease.held()
            except Exception as error:  # one of the loops: it renews at the next beat, or loses the lease
                log.info("The timers' lease was not renewed", extra={"reason": type(error).__name__})

    async def _done(self, task: Periodic) -> None:
        await self._next(task, clock.now() + task.every, failures=0)

    async def _failed(self, task: Periodic) -> None:
        async with self._db.worker() as tx:
            failures = await tx.scalar(
                select(timers.c.failures).where(timers.c.tenant_id == NO_TENANT, timers.c.name == task.name)
            )
        seconds = outages.delay_seconds((failures or 0) + 1, 5.0, 600.0)
        soon = min(timedelta(seconds=seconds), task.every)
        await self._next(task, clock.now() + soon, failures=(failures or 0) + 1)

    async def _next(self, task: Periodic, due_at: datetime, *, failures: int) -> None:
        async with self._db.worker() as tx:
            await tx.execute(
                update(timers)
                .where(timers.c.tenant_id == NO_TENANT, timers.c.name == task.name)
                .values(due_at=due_at, ran_at=tx.now, failures=failures)
            )


async def _until_none(clean: Callable[[], Awaitable[int]]) -> None:
    while await clean():
        pass
