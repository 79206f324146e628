"""What is done again and again for activities: months are made ahead, and IP addresses forgotten."""

from datetime import timedelta
from typing import Any

from libs import clock
from libs.caller import Caller, acting_as
from libs.run.service import Runtime
from libs.timers import Periodic
from services.customers.activities import actions, rules

MONTHS_AHEAD = 3
IPS_AT_ONCE = 2_000


async def make_months_ahead(rt: Any) -> None:
    """Makes this month and the next three."""
    runtime: Runtime = rt
    month = rules.month(clock.now())
    for _ in range(MONTHS_AHEAD + 1):
        async with runtime.db.worker() as tx:
            await actions.make_month(tx, month)
        month = (month + timedelta(days=32)).replace(day=1)


async def forget_ips(rt: Any) -> None:
    """Forgets the IP addresses that every tenant's businesses kept for 30 days."""
    runtime: Runtime = rt
    for tenant in await runtime.tenants.all():
        itself = Caller(
            tenant_id=tenant.tenant_id, subject=runtime.name, kind="service", service=runtime.name
        )
        with acting_as(itself):
            forgotten = IPS_AT_ONCE
            while forgotten == IPS_AT_ONCE:
                async with runtime.db.tx() as tx:
                    forgotten = await actions.forget_ips(tx, IPS_AT_ONCE)


PERIODIC = [
    Periodic("make months of activities", timedelta(hours=12), make_months_ahead),
    Periodic("forget IP addresses", timedelta(hours=6), forget_ips),
]
