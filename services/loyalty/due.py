"""For whom something is to be done by now: one statement of the worker's asks for all tenants."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from libs.caller import Caller
from libs.run.service import Runtime

_FIND = text("select tenants_with_work(:subject, :at)")


async def tenants(runtime: Runtime, subject: str, before: timedelta = timedelta(0)) -> list[UUID]:
    """The tenants that have something to do of a subject (migration 0017), as it was `before` now."""
    async with runtime.db.worker() as tx:
        found = await tx.execute(_FIND, {"subject": subject, "at": tx.now - before})
        return list(found.scalars())


def itself(runtime: Runtime, tenant_id: UUID) -> Caller:
    """The service, at work for a tenant."""
    return Caller(tenant_id=tenant_id, subject=runtime.name, kind="service", service=runtime.name)
