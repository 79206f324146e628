"""Work in the background: rows that outlive every process; libs/job_runner.py does what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, case, delete, insert, select, tuple_, update

from libs import envelope
from libs.db import Database, Tx
from libs.ids import new_id
from libs.plumbing import NO_TENANT, jobs
from libs.problems import NotFound
from libs.wakeups import bell

BELL = "jobs"
KEPT_FOR = timedelta(days=90)
INTERNAL = "INTERNAL"

KEY = tuple_(jobs.c.tenant_id, jobs.c.id)


class JobNotFound(NotFound):
    """There is no such job, or none that this caller may see."""

    reason = "JOB_NOT_FOUND"
    message = "There is no such job."


class JobCancelled(Exception):
    """Somebody asked the job to stop."""


class LeaseLost(Exception):
    """Another process has taken the job over: this one must write no more."""


@dataclass(slots=True)
class Job:
    """A job in the hands of the process that does it.

    `input` is what `enqueue` was given. `checkpoint` is what the last `save` kept, empty at the first try: a
    job that is tried again goes on from there.
    """

    id: UUID
    tenant_id: UUID
    kind: str
    business_id: UUID | None
    input: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    done: int
    total: int | None
    attempts: int
    created_by: str
    _db: Database = field(repr=False)
    _token: UUID = field(repr=False)

    async def save(
        self, tx: Tx, checkpoint: Mapping[str, Any], *, done: int | None = None, total: int | None = None
    ) -> None:
        """Keeps the checkpoint and the progress with the work of `tx`: both or neither are there afterwards.

        Raises JobCancelled, LeaseLost; either rolls `tx` back. Not for jobs of no tenant, which use
        `progress`.
        """
        await self._write(tx, {"checkpoint": dict(checkpoint)}, done, total)
        self.checkpoint = checkpoint

    async def progress(self, done: int, total: int | None = None) -> None:
        """Tells how far it is, outside of any transaction. Raises JobCancelled, LeaseLost."""
        async with self._db.worker() as tx:
            await self._write(tx, {}, done, total)

    async def _write(self, tx: Tx, values: dict[str, Any], done: int | None, total: int | None) -> None:
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        row = (
            await tx.execute(
                update(jobs)
                .where(*mine(self))
                .values(**values, done=self.done, total=self.total)
                .returning(jobs.c.cancel_requested_at)
            )
        ).one_or_none()
        if row is None:
            raise LeaseLost
        if row.cancel_requested_at is not None:
            raise JobCancelled


async def enqueue(
    tx: Tx,
    kind: str,
    job_input: Mapping[str, Any] | None = None,
    *,
    job_id: UUID | None = None,
    business_id: UUID | None = None,
    due_at: datetime | None = None,
    total: int | None = None,
    max_attempts: int = 5,
    tenant_id: UUID | None = None,
) -> UUID:
    """Adds a job that runs once `tx` has committed, or at `due_at`; gives its id.

    `job_input` is JSON with ids and settings, never personal data. The tenant is the caller's; a worker's
    transaction may name another, or NO_TENANT for work on the whole platform.
    """
    job_id = job_id or new_id()
    await tx.execute(
        insert(jobs).values(
            tenant_id=tx.tenant_id if tenant_id is None else tenant_id,
            id=job_id,
            kind=kind,
            state="queued",
            business_id=business_id,
            input=dict(job_input or {}),
            checkpoint={},
            done=0,
            total=total,
            attempts=0,
            max_attempts=max_attempts,
            created_by="platform" if tenant_id == NO_TENANT else envelope.actor_of(tx.caller),
            created_at=tx.now,
            due_at=due_at or tx.now,
        )
    )
    tx.after_commit(bell(BELL).ring)
    return job_id


async def cancel(tx: Tx, job_id: UUID) -> None:
    """Stops a job of the caller's tenant: at once if it waits, else as soon as its process notices.

    A job that has ended stays as it is. Raises JobNotFound.
    """
    waits = jobs.c.state == "queued"
    row = await tx.execute(
        update(jobs)
        .where(jobs.c.tenant_id == tx.tenant_id, jobs.c.id == job_id, jobs.c.state.in_(["queued", "running"]))
        .values(
            state=case((waits, "cancelled"), else_=jobs.c.state),
            finished_at=case((waits, tx.now), else_=None),
            cancel_requested_at=tx.now,
        )
        .returning(jobs.c.id)
    )
    if row.first() is None:
        await get(tx, job_id)
    tx.after_commit(bell(BELL).ring)


async def get(tx: Tx, job_id: UUID) -> Row[Any]:
    """The row of a job of the caller's tenant. Raises JobNotFound."""
    row = (
        await tx.execute(select(jobs).where(jobs.c.tenant_id == tx.tenant_id, jobs.c.id == job_id))
    ).one_or_none()
    if row is None:
        raise JobNotFound(id=job_id)
    return row


async def clean(db: Database, limit: int = 10_000) -> int:
    """Forgets jobs that ended 90 days ago; gives how many."""
    async with db.worker() as tx:
        old = select(jobs.c.tenant_id, jobs.c.id).where(jobs.c.finished_at < tx.now - KEPT_FOR).limit(limit)
        return (await tx.execute(delete(jobs).where(KEY.in_(old)))).rowcount


def mine(job: Job) -> tuple[Any, ...]:
    """The condition for the row of a job, as long as this process has it."""
    return jobs.c.tenant_id == job.tenant_id, jobs.c.id == job.id, jobs.c.lease_token == job._token
