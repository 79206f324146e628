"""All that flows through one stack at once, and what is wrong about it once it is quiet."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libs.envelope import Letter
from regulars.customers.v1 import customers_pb2 as customers
from regulars.customers.v1 import orders_pb2 as orders
from regulars.customers.v1 import timeline_pb2 as timeline
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.jobs_pb2_grpc import JobsServiceStub
from regulars.loyalty.v1 import tiers_pb2 as tiers
from regulars.loyalty.v1.loyalty_pb2_grpc import JobsServiceStub as LoyaltyJobsStub
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from regulars.type.v1 import job_pb2
from tests.chaos import (
    households_checker,
    imports_checker,
    ledger_checker,
    people_checker,
    points_checker,
    purchases_checker,
    settling,
    timeline_checker,
)
from tests.chaos.deeds import Doing
from tests.chaos.households import Households, open_family, until_booked
from tests.chaos.imports import CUSTOMERS, ORDERS, Imports, Place, open_place
from tests.chaos.ledger_checker import Kept
from tests.chaos.machine import Machine
from tests.chaos.people import People, open_business
from tests.chaos.points import Points, open_club
from tests.chaos.purchases import Buyer, Purchases
from tests.chaos.work import Work
from tests.customers.shop import Shop
from tests.flows.looking import letters, rows
from tests.platform import Stack
from tests.scan.sentinels import Sentinels

KNOWN = 12


@dataclass
class Seen:
    """What was found of the buyers, and of the households, to be compared."""

    sent: list[Letter]
    held: dict[str, orders.Order]
    kept: Kept
    shown: dict[str, list[timeline.TimelineEntry]]
    pooled: Kept
    shown_pooled: dict[str, list[timeline.TimelineEntry]]


@dataclass
class AtWork:
    """The workloads of a stack. `rotation` is a job that changes the keys of the customers' tenant meanwhile."""

    stack: Stack
    people: People
    purchases: Purchases
    points: Points
    households: Households
    imports: Imports
    rotation: str = ""
    seen: Seen | None = None

    @property
    def all(self) -> list[Work]:
        """All of them."""
        return [self.people, self.purchases, self.points, self.households, self.imports]

    async def rotate(self) -> None:
        """Begins a rotation of the customers' keys, and waits until it runs."""
        tenant = self.people.tenant
        admin: Any = tenant.calls(CustomersServiceStub, "platform")
        self.rotation = (await admin.RotateKeys(customers.RotateKeysRequest())).job_id
        await _job(tenant.calls(JobsServiceStub), self.rotation, {job_pb2.JOB_STATE_RUNNING})

    def told(self) -> str:
        """How much there was, in a line."""
        return (
            f"{len(self.people.people)} customers by {self.people.acknowledged} calls, {self.people.duels} duels; "
            f"{self.purchases.records} records of {len(self.purchases.stories)} orders; "
            f"{_deeds(self.points, 'about points')}, {self.points.duels} duels; "
            f"{_deeds(self.households, 'of households')}; "
            f"{len(self.imports.kept.done)} imports kept and {len(self.imports.taken_back.done)} taken back; "
            f"{sum(work.repeats for work in self.all)} calls sent again"
        )


def _deeds(work: Doing, what: str) -> str:
    return f"{len(work.deeds)} deeds {what}, {work.told_twice} told twice, {work.given_up} given up"


async def open_house(machine: Machine, sentinels: Sentinels) -> AtWork:
    """Tenants, businesses and customers for all workloads."""
    stack = machine.stack()
    tenant = await stack.new_tenant()
    people = People(stack, tenant, await open_business(tenant), sentinels)
    club = await open_club(await stack.new_tenant())
    known = await _regulars(club.shop, sentinels)
    purchases = Purchases(stack, club.shop.tenant, club.shop.id, sentinels, known)
    family = await open_family(await stack.new_tenant())
    return AtWork(
        stack,
        people,
        purchases,
        Points(shop=club.shop, club=club, customers=[each.id for each in known], purchases=purchases),
        Households(shop=family.shop, family=family),
        Imports(machine, await open_place(stack), await open_place(stack), sentinels),
    )


async def _regulars(shop: Shop, sentinels: Sentinels) -> list[Buyer]:
    """Customers from before the first order."""
    made = []
    for _ in range(KNOWN):
        customer = customers.Customer(email=sentinels.email())
        got = await shop.customers.CreateCustomer(customers.CreateCustomerRequest(customer=customer))
        made.append(Buyer(customer.email, got.id))
    return made


async def found_after(at_work: AtWork) -> list[str]:
    """All that is wrong once everything has settled."""
    stack, points, purchases = at_work.stack, at_work.points, at_work.purchases
    await until_booked(stack, at_work.households)
    await settling.until_quiet(stack)
    found = await _rotated(at_work)
    tenant = points.club.shop.tenant
    held = await purchases_checker.orders_of(purchases)
    before = await ledger_checker.kept_of(
        stack, tenant.id, await letters(stack, tenant.id), points_checker.TABLES
    )
    found += points_checker.tier_faults(points.club, purchases, held, before, recalculated=False)
    await _recalculate(points.club.shop)
    await settling.until_quiet(stack)
    sent = await letters(stack, tenant.id)
    kept = await ledger_checker.kept_of(stack, tenant.id, sent, points_checker.TABLES)
    shown = await timeline_checker.timelines(points.shop, points.customers)
    family = at_work.households.family
    pooling = family.shop.tenant.id
    pooled = await ledger_checker.kept_of(
        stack, pooling, await letters(stack, pooling), households_checker.TABLES
    )
    shown_pooled = await timeline_checker.timelines(family.shop, family.customers)
    at_work.seen = Seen(sent, held, kept, shown, pooled, shown_pooled)
    found += await of_people(at_work)
    found += await of_purchases(at_work)
    found += await of_points(at_work)
    found += await of_households(at_work)
    found += await of_imports(at_work)
    return found + await settling.leftover(stack)


async def of_people(at_work: AtWork) -> list[str]:
    """What is wrong about customers."""
    work = at_work.people
    return await people_checker.faults(at_work.stack, work.tenant, work.business_id, work.people)


async def of_purchases(at_work: AtWork) -> list[str]:
    """What is wrong about orders, metrics and timelines."""
    assert at_work.seen
    seen = at_work.seen
    visited = timeline_checker.visited(seen.shown)
    found = await purchases_checker.faults(at_work.purchases, seen.sent, visited)
    return found + timeline_checker.faults(seen.shown, at_work.points.deeds, seen.held, seen.sent)


async def of_points(at_work: AtWork) -> list[str]:
    """What is wrong about points and tiers."""
    assert at_work.seen
    seen, work = at_work.seen, at_work.points
    found = points_checker.faults(work, at_work.purchases, seen.held, seen.kept)
    found += points_checker.tier_faults(work.club, at_work.purchases, seen.held, seen.kept, recalculated=True)
    found += await ledger_checker.own_faults(at_work.stack, work.shop)
    return found + await points_checker.shown_faults(work, seen.kept)


async def of_households(at_work: AtWork) -> list[str]:
    """What is wrong about points that members share, and about who shares them."""
    assert at_work.seen
    seen, work = at_work.seen, at_work.households
    found = households_checker.faults(work, seen.pooled)
    found += await households_checker.shown_faults(work, seen.pooled)
    found += await ledger_checker.own_faults(at_work.stack, work.shop)
    found += timeline_checker.faults(seen.shown_pooled, (), {}, seen.pooled.sent)
    return found + await settling.handled_once(at_work.stack, work.shop.tenant.id, seen.pooled.sent)


async def of_imports(at_work: AtWork, more: int = 0) -> list[str]:
    """What is wrong about imports, if there were so many more rows of each kind."""
    places: Mapping[Any, Place] = {
        imports_checker.written: at_work.imports.kept,
        imports_checker.taken_back: at_work.imports.taken_back,
    }
    found = []
    for check, place in places.items():
        found += await check(at_work.stack, place, place.rows(CUSTOMERS) + more, place.rows(ORDERS) + more)
    return found


async def _recalculate(shop: Shop) -> None:
    """All members are judged anew."""
    job = await shop.calls(TiersServiceStub).RecalculateTiers(tiers.RecalculateTiersRequest())
    await _job(shop.calls(LoyaltyJobsStub), job.id, {job_pb2.JOB_STATE_SUCCEEDED})


async def _rotated(at_work: AtWork) -> list[str]:
    """Whether the rotation came to a good end, and all is under the new keys."""
    jobs = at_work.people.tenant.calls(JobsServiceStub)
    await _job(jobs, at_work.rotation, {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED})
    found = []
    for table, column in (("customer_identifiers", "key_version"), ("subject_keys", "epoch")):
        query = f"select distinct {column} as v from customers.{table} where tenant_id = %s"
        versions = {row["v"] for row in await rows(at_work.stack, query, at_work.people.tenant.id)}
        if versions != {2}:
            found.append(f"{table} has keys of {versions}")
    return found


async def _job(stub: Any, job_id: str, wanted: set[int]) -> None:
    """Waits for a state of a job. One whose process was killed is taken over when its lease ends."""
    async with asyncio.timeout(settling.QUIET_SECONDS):
        while (await stub.GetJob(job_pb2.GetJobRequest(id=job_id))).state not in wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
