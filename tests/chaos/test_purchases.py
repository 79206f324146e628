"""kill -9 during a stream of orders: each is as it was told last, counted as a recount counts, completed once.

CHAOS_SECONDS makes it longer than one round of kills (`make chaos`).
"""

import asyncio
import copy
from pathlib import Path
from typing import Any

from libs import config
from regulars.customers.v1 import customers_pb2 as customers
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.chaos import checker, purchases_checker
from tests.chaos.luck import BETWEEN, bad_luck
from tests.chaos.machine import running
from tests.chaos.purchases import PENDING, Buyer, Purchases
from tests.chaos.workload import open_business
from tests.flows.looking import rows
from tests.platform import TenantOfTest
from tests.scan.sentinels import Sentinels

ROUNDS: list[tuple[str, ...]] = [
    ("customers",),
    ("postgres",),
    ("nats",),
    ("gateway",),
    ("customers", "postgres"),
    ("customers", "nats", "gateway"),
]
KNOWN = 12


async def test_orders_are_as_they_were_told_and_counted_once_whatever_is_killed(
    sentinels: Sentinels,
) -> None:
    seconds = float(config.process_environment().get("CHAOS_SECONDS", "0"))
    async with running(Path(sentinels.root), "chaos-orders") as machine:
        stack = machine.stack()
        tenant = await stack.new_tenant()
        shop = await open_business(tenant)
        work = Purchases(stack, tenant, shop, sentinels, await regulars(tenant, shop, sentinels))
        working = asyncio.create_task(work.run())
        try:
            await work.more(BETWEEN)
            await bad_luck(machine, work, ROUNDS, seconds)
        finally:
            work.stop.set()
            await working
        await machine.until_healthy()
        await checker.until_quiet(stack, tenant)
        assert await purchases_checker.faults(work) == []
        await checker_sees(work)
        await stack.close()
    print(
        f"{work.records} records of {len(work.stories)} orders acknowledged in {work.acknowledged} calls, "
        f"{work.repeats} sent again"
    )
    assert work.repeats > 0, "nothing was interrupted at all"


async def regulars(tenant: TenantOfTest, shop: str, sentinels: Sentinels) -> list[Buyer]:
    """Customers from before the first order."""
    stub: Any = tenant.calls(CustomersServiceStub, businesses=[shop])
    made = []
    for _ in range(KNOWN):
        customer = customers.Customer(email=sentinels.email())
        got = await stub.CreateCustomer(customers.CreateCustomerRequest(customer=customer))
        made.append(Buyer(customer.email, got.id))
    return made


async def checker_sees(work: Purchases) -> None:
    """A lost order, a revision that does not hold, a wrong count, a completion too many and a doubled guest."""
    lost, stale = copy.deepcopy(list(work.stories.values())[:2])
    lost.external_id = "lost"
    work.stories["lost"] = lost
    for each in stale.revisions:
        each.items[0].unit_price.amount_minor += 1
    work.stories[stale.external_id] = stale
    completed = next(
        key for key, story in work.stories.items() if story.counts and story not in (lost, stale)
    )
    paid = copy.deepcopy(work.stories[completed])
    for each in paid.revisions:
        each.status = PENDING
    work.stories[completed] = paid
    stranger = Buyer("nobody@example.com")
    work.stories["nobody"] = copy.deepcopy(lost)
    work.stories["nobody"].buyer = stranger
    await rows(
        work.stack,
        "update customers.customer_metrics set visits = visits + 1 where tenant_id = %s returning visits",
        work.tenant.id,
    )
    told = "\n".join(await purchases_checker.faults(work))
    for wanted in (
        "order lost is lost",
        f"order {stale.external_id} is",
        "counted of",
        "customer_metrics",
        f"order {completed} was completed 1 times",
        "customers.memberships:",
    ):
        assert wanted in told, wanted
