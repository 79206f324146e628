"""What is done again and again for the ledger: what holds already is booked, and what will lapse soon is told."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.caller import Caller, acting_as
from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty.ledger import anniversaries, expiry

ACCOUNTS_AT_ONCE = 500
LOTS_AT_ONCE = 2_000


async def book_what_holds(rt: Any) -> None:
    """Every tenant's holds past their time, pending points whose day has come, and lots past their expiry."""
    runtime: Runtime = rt
    for tenant in await runtime.tenants.all():
        with acting_as(_itself(runtime, tenant.tenant_id)):
            booked = 1
            while booked:
                async with runtime.db.tx() as tx:
                    booked = await expiry.settle_due(tx, ACCOUNTS_AT_ONCE)
            booked = 1
            while booked:
                async with runtime.db.tx() as tx:
                    booked = await expiry.expire_lots(tx, LOTS_AT_ONCE)


async def tell_what_will_lapse(rt: Any) -> None:
    """Tells each member's points that will lapse within the program's notice, each lot once."""
    runtime: Runtime = rt
    for tenant in await runtime.tenants.all():
        with acting_as(_itself(runtime, tenant.tenant_id)):
            told = 1
            while told:
                async with runtime.db.tx() as tx:
                    told = await expiry.notice(tx, LOTS_AT_ONCE)


async def keep_anniversaries(rt: Any) -> None:
    """Gives every tenant's members what is due for another year, once."""
    runtime: Runtime = rt
    for tenant in await runtime.tenants.all():
        with acting_as(_itself(runtime, tenant.tenant_id)):
            async with runtime.db.read() as tx:
                found = await anniversaries.celebrating(tx)
            for program in found:
                last: UUID | None = UUID(int=0)
                while last is not None:
                    async with runtime.db.tx() as tx:
                        last = await anniversaries.celebrate(tx, program, last, ACCOUNTS_AT_ONCE)


def _itself(runtime: Runtime, tenant_id: Any) -> Caller:
    return Caller(tenant_id=tenant_id, subject=runtime.name, kind="service", service=runtime.name)


PERIODIC = [
    Periodic("book what holds", timedelta(minutes=1), book_what_holds),
    Periodic("keep anniversaries", timedelta(hours=1), keep_anniversaries),
    Periodic("tell what will lapse", timedelta(hours=1), tell_what_will_lapse),
]
