"""The one servicer of every service's JobsService: get, cancel and list its jobs (decision 29)."""

from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Row, select

from libs import jobs
from libs.db import Database
from libs.instants import stamp
from libs.pages import PageTokens
from libs.plumbing import jobs as table
from libs.rpc import Context
from regulars.type.v1 import job_pb2 as pb

DEFAULT_PAGE = 50

_STATES = {
    "queued": pb.JOB_STATE_QUEUED,
    "running": pb.JOB_STATE_RUNNING,
    "succeeded": pb.JOB_STATE_SUCCEEDED,
    "failed": pb.JOB_STATE_FAILED,
    "cancelled": pb.JOB_STATE_CANCELLED,
}
_NAMES = {value: name for name, value in _STATES.items()}


class Needs(Protocol):
    """What it takes of a service's runtime."""

    @property
    def db(self) -> Database:
        """The service's database."""

    @property
    def pages(self) -> PageTokens:
        """Its page tokens."""


class JobsServicer:
    """Serves `service JobsService` of any service; row-level security keeps tenants and businesses apart."""

    def __init__(self, rt: Needs) -> None:
        self.rt = rt

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:
        """See the service's jobs.proto."""
        async with self.rt.db.read() as tx:
            return message(await jobs.get(tx, UUID(request.id)))

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.Job:
        """See the service's jobs.proto."""
        async with self.rt.db.tx() as tx:
            await jobs.cancel(tx, UUID(request.id))
            return message(await jobs.get(tx, UUID(request.id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """See the service's jobs.proto."""
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            wanted = select(table).where(table.c.tenant_id == tx.tenant_id)
            if request.kind:
                wanted = wanted.where(table.c.kind == request.kind)
            if request.state:
                wanted = wanted.where(table.c.state == _NAMES[request.state])
            if request.business_id:
                wanted = wanted.where(table.c.business_id == UUID(request.business_id))
            if after:
                wanted = wanted.where(table.c.id < after[0])
            rows = (await tx.execute(wanted.order_by(table.c.id.desc()).limit(size + 1))).all()
        token = self.rt.pages.next(request, [rows[size - 1].id]) if len(rows) > size else ""
        return pb.ListJobsResponse(jobs=map(message, rows[:size]), next_page_token=token)


def message(row: Row[Any]) -> pb.Job:
    """The message of a row of `jobs`. A fault of ours is told without its detail."""
    job = pb.Job(
        id=str(row.id),
        kind=row.kind,
        state=_STATES[row.state],
        business_id=str(row.business_id or ""),
        progress_done=row.done,
        progress_total=row.total,
        created_at=stamp(row.created_at),
        due_at=stamp(row.due_at),
        started_at=stamp(row.started_at),
        finished_at=stamp(row.finished_at),
        cancel_requested_at=stamp(row.cancel_requested_at),
        attempts=row.attempts,
    )
    if row.error_reason:
        internal = row.error_reason == jobs.INTERNAL
        job.error.reason = row.error_reason
        job.error.message = "Internal error." if internal else row.error_detail or ""
    return job
