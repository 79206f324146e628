"""For whom something is to be done by now: one statement of the worker's asks for all tenants."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from libs import outages
from libs.caller import Caller, acting_as
from libs.run.service import Runtime

log = logging.getLogger(__name__)

_FIND = text("select tenants_with_work(:subject, :at)")


async def tenants(runtime: Runtime, subject: str, before: timedelta = timedelta(0)) -> list[UUID]:
    """The tenants that have something to do of a subject (migration 0017), as it was `before` now."""
    async with runtime.db.worker() as tx:
        found = await tx.execute(_FIND, {"subject": subject, "at": tx.now - before})
        return list(found.scalars())


async def everybody(runtime: Runtime) -> list[UUID]:
    """Ids of all tenants."""
    return [each.tenant_id for each in await runtime.tenants.all()]


def itself(runtime: Runtime, tenant_id: UUID) -> Caller:
    """The service, at work for a tenant."""
    return Caller(tenant_id=tenant_id, subject=runtime.name, kind="service", service=runtime.name)


async def for_each(
    runtime: Runtime, tenant_ids: Iterable[UUID], act: Callable[[Runtime], Awaitable[object]]
) -> None:
    """Does something for each tenant, as the service at work for it. One that fails keeps no other from its turn.

    Raises the last failure, once all had theirs; an outage at once, since it is everybody's.
    """
    failed: Exception | None = None
    for tenant_id in tenant_ids:
        try:
            with acting_as(itself(runtime, tenant_id)):
                await act(runtime)
        except Exception as error:  # one of the loops: a tenant's failure is its own
            if outages.is_passing(error) and not outages.is_conflict(error):
                raise
            log.warning(
                "A tenant's run failed",
                extra={"task": act.__qualname__, "tenant": str(tenant_id), "reason": type(error).__name__},
                exc_info=error,
            )
            failed = error
    if failed is not None:
        raise failed
