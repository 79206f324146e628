"""What must hold of orders once it is quiet: they are as they were told, counted so, and each event went out once."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from libs import dsn
from libs.caller import Caller, acting_as
from libs.db import Database
from libs.envelope import Letter
from regulars.customers.v1 import customers_pb2, events_pb2
from regulars.customers.v1 import orders_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from services.customers.orders import metrics
from tests.chaos.purchases import CANCELLED, Purchases, Story, total
from tests.chaos.settling import handled_once
from tests.flows.looking import rows
from tests.platform import Stack

ORDERS = "customers.order."


async def faults(work: Purchases, sent: list[Letter], visited: Mapping[str, int]) -> list[str]:
    """Everything that is not as it was told, or not the same in two places.

    `sent` is what the stream has, `visited` when customers did something else last, in epoch seconds.
    """
    held = await orders_of(work)
    found = _as_told(work.stories, held)
    found += await _counted(work, held, visited)
    found += await _recount(work)
    found += await _people(work)
    found += _events(work.stories, held, sent)
    found += await handled_once(work.stack, work.tenant.id, sent)
    return found


async def orders_of(work: Purchases) -> dict[str, pb.Order]:
    """All orders of the business, by external id."""
    stub: Any = work.tenant.calls(OrdersServiceStub, businesses=[work.business_id])
    held: dict[str, pb.Order] = {}
    token, count = "", 0
    while token or not held:
        page = await stub.ListOrders(pb.ListOrdersRequest(page_size=1000, page_token=token))
        held |= {each.external_id: each for each in page.orders}
        count, token = count + len(page.orders), page.next_page_token
    assert count == len(held), "one order twice"
    return held


def _as_told(stories: Mapping[str, Story], held: Mapping[str, pb.Order]) -> list[str]:
    """The newest revision of each order holds, and it is its buyer's."""
    found = [f"order {key} is lost" for key in stories.keys() - held.keys()]
    found += [f"order {key} was never told" for key in held.keys() - stories.keys()]
    customers: dict[str, set[str]] = defaultdict(set)
    guests: Counter[str] = Counter()
    for key in stories.keys() & held.keys():
        story, got = stories[key], held[key]
        shown = (
            got.revision,
            got.status,
            got.placed_at.seconds,
            got.total.amount_minor,
            got.refunded.amount_minor,
        )
        last = story.last
        wanted = (last.revision, last.status, last.placed_at.seconds, total(last), story.refunded)
        if shown != wanted:
            found.append(f"order {key} is {shown}, told was {wanted}")
        if got.HasField("completed_at") != story.completed:
            found.append(f"order {key}: completed is {not story.completed}")
        if story.order_ids - {got.id} or story.customer_ids - {got.customer_id}:
            found.append(f"order {key} was answered with other ids")
        customers[story.buyer.email].add(got.customer_id)
        guests[story.buyer.email] += story.guests_made
        if story.buyer.id and got.customer_id != story.buyer.id:
            found.append(f"order {key} is somebody else's")
    found += [f"a buyer is {len(ids)} customers" for ids in customers.values() if len(ids) > 1]
    found += [f"a guest was made {times} times" for times in guests.values() if times > 1]
    return found


async def _counted(work: Purchases, held: Mapping[str, pb.Order], visited: Mapping[str, int]) -> list[str]:
    """The metrics of each buyer are what the told orders come to, by an arithmetic of our own."""
    orders: Any = work.tenant.calls(OrdersServiceStub, businesses=[work.business_id])
    customers: Any = work.tenant.calls(CustomersServiceStub, businesses=[work.business_id])
    by_buyer: dict[str, list[Story]] = defaultdict(list)
    for key, story in work.stories.items():
        if key in held:
            by_buyer[held[key].customer_id].append(story)
    found = []
    for id_, stories in by_buyer.items():
        counting = [story for story in stories if story.counts]
        wanted = (
            len(stories),
            len(counting),
            sum(story.last.status == CANCELLED for story in stories),
            sum(total(story.last) for story in counting),
            sum(story.refunded for story in counting),
            len({story.last.placed_at.seconds for story in counting}),
            max((story.last.placed_at.seconds for story in counting), default=0),
        )
        got = await orders.GetCustomerMetrics(pb.GetCustomerMetricsRequest(customer_id=id_))
        shown = (
            got.orders_recorded,
            got.orders_completed,
            got.orders_cancelled,
            got.total_spent.amount_minor,
            got.refunded.amount_minor,
            got.visits,
            got.last_order_at.seconds,
        )
        if shown != wanted:
            found.append(f"counted of {id_} is {shown}, told was {wanted}")
        active = (
            await customers.GetCustomer(customers_pb2.GetCustomerRequest(id=id_))
        ).last_active_at.seconds
        told = {each.placed_at.seconds for story in stories for each in story.revisions}
        least = max(visited.get(id_, 0), *(story.last.placed_at.seconds for story in stories))
        if active not in {*told, visited.get(id_)} or active < least:
            found.append(f"{id_} was last active at {active}")
    return found


async def _recount(work: Purchases) -> list[str]:
    """The product's own recount finds nothing."""
    async with database_of(work.stack) as database:
        with acting_as(Caller(tenant_id=work.tenant.id, subject="checker")):
            async with database.read() as tx:
                return [str(tuple(row)) for row in await metrics.differences(tx, UUID(work.business_id))]


@asynccontextmanager
async def database_of(stack: Stack, service: str = "customers") -> AsyncIterator[Database]:
    """A service's own way into its database."""
    where = (stack.admin_url, stack.settings.home, stack.settings.database, service)
    database = Database(dsn.role_url(*where, "app"), dsn.role_url(*where, "worker"), pool_size=1)
    try:
        yield database
    finally:
        await database.close()


async def _people(work: Purchases) -> list[str]:
    """One customer for each buyer, with one of everything, here and in loyalty."""
    buyers = {each.email for each in work.known} | {story.buyer.email for story in work.stories.values()}
    found = []
    for table, what in (
        ("customers.customers", "customer_id"),
        ("customers.memberships", "customer_id"),
        ("customers.customer_identifiers", "customer_id"),
        ("customers.customer_search", "customer_id"),
        ("customers.subject_keys", "subject_id"),
        ("loyalty.memberships", "customer_id"),
    ):
        query = f"select count(*) as n, count(distinct {what}) as people from {table} where tenant_id = %s"
        (row,) = await rows(work.stack, query, work.tenant.id)
        if (row["n"], row["people"]) != (len(buyers), len(buyers)):
            found.append(f"{table}: {row['n']} rows of {row['people']} people, buyers are {len(buyers)}")
    return found


def _events(stories: Mapping[str, Story], held: Mapping[str, pb.Order], sent: list[Letter]) -> list[str]:
    """Each event is on the stream once; each order was completed and cancelled once, or never; the last tells all."""
    ids = Counter(letter.headers["ce-id"] for letter in sent)
    found = [f"event {id_} is on the stream {times} times" for id_, times in ids.items() if times > 1]
    by_order: dict[str, list[Letter]] = defaultdict(list)
    for letter in sent:
        if letter.subject.startswith(ORDERS):
            by_order[letter.headers["ce-subject"]].append(letter)
    by_id = {order.id: order for order in held.values()}
    found += [f"events of an order {id_}, which never was" for id_ in by_order.keys() - by_id.keys()]
    for id_, order in by_id.items():
        story = stories.get(order.external_id)
        if story is None:
            continue
        kinds = Counter(letter.subject.removeprefix(ORDERS) for letter in by_order[id_])
        for kind, wanted in (("completed", story.completed), ("cancelled", story.last.status == CANCELLED)):
            if kinds[kind] != wanted:
                found.append(f"order {order.external_id} was {kind} {kinds[kind]} times")
        versions = {int(letter.headers["aggregateversion"]): letter for letter in by_order[id_]}
        if set(versions) != set(range(1, order.version + 1)):
            found.append(f"order {order.external_id} at {order.version} told of {sorted(versions)}")
            continue
        state = events_pb2.OrderRecorded.FromString(
            versions[order.version].body
        ).order  # all have the same shape
        shown = (
            state.revision,
            state.status,
            state.total_minor,
            state.refunded_total_minor,
            state.customer_id,
        )
        wanted_state = (
            order.revision,
            order.status,
            order.total.amount_minor,
            order.refunded.amount_minor,
            order.customer_id,
        )
        if shown != wanted_state:
            found.append(f"the last event of {order.external_id} says {shown}, it is {wanted_state}")
    return found
