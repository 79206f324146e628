"""Orders that come at once, in any order, and twice."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regulars.customers.v1 import customers_pb2 as customers
from regulars.customers.v1 import orders_pb2 as pb
from tests.customers import visits
from tests.customers.purchases import (
    DAY,
    NOON,
    calls,
    differences,
    get,
    item,
    metrics_of,
    order,
    record,
    refund,
)
from tests.customers.shop import Shop

CREATED, UPDATED, STALE = pb.RECORD_OUTCOME_CREATED, pb.RECORD_OUTCOME_UPDATED, pb.RECORD_OUTCOME_STALE


async def test_two_revisions_at_once(shop: Shop) -> None:
    for number in range(10):
        said = [
            order(external_id=str(number), revision=revision, items=[item(revision)], email="a@example.com")
            for revision in (1, 2)
        ]
        random.Random(number).shuffle(said)
        results = await asyncio.gather(*(record(shop, each) for each in said))
        outcomes = Counter(result.outcome for (result,) in results)
        assert outcomes in ({CREATED: 1, UPDATED: 1}, {CREATED: 1, STALE: 1})
        assert len({result.order_id for (result,) in results}) == 1
        got = await get(shop, results[0][0].order_id)
        assert (got.revision, got.total.amount_minor) == (2, 2)
    assert not await differences(shop)


async def test_twenty_writers_on_one_customer(shop: Shop) -> None:
    known = await shop.create(email="ann@example.com")

    async def write(number: int) -> None:
        said = [order(customer_id=known.id, day=number, items=[item(number + 1)]) for _ in range(5)]
        await record(shop, *said)
        await record(shop, refund(said[0].external_id, 1))

    await asyncio.gather(*(write(number) for number in range(20)))
    counted = await metrics_of(shop, known.id)
    assert (counted.orders_completed, counted.visits, counted.orders_refunded) == (100, 20, 20)
    assert counted.total_spent.amount_minor == 5 * sum(range(1, 21))
    assert not await differences(shop)
    same = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=known.id))
    assert same.etag == known.etag


async def test_one_stranger_at_twenty_tills_is_one_guest(shop: Shop) -> None:
    said = [
        order(customer=pb.OrderCustomer(email="new@example.com", phone="+14155552671")) for _ in range(20)
    ]
    results = [result for (result,) in await asyncio.gather(*(record(shop, each) for each in said))]
    assert {result.outcome for result in results} == {CREATED}
    assert len({result.customer_id for result in results}) == 1
    assert sum(result.guest_created for result in results) == 1
    assert not await differences(shop)


async def test_batches_that_cross_do_not_lock_each_other_out(shop: Shop) -> None:
    said = [order(external_id=str(i), email=f"p{i % 20}@example.com") for i in range(200)]

    async def send(seed: int) -> Counter[Any]:
        mine = list(said)
        random.Random(seed).shuffle(mine)
        return Counter(result.outcome for result in await record(shop, *mine))

    outcomes = sum(await asyncio.gather(*(send(seed) for seed in range(6))), Counter())
    assert outcomes == {CREATED: 200, pb.RECORD_OUTCOME_UNCHANGED: 1000}
    listed = await calls(shop).ListOrders(pb.ListOrdersRequest(page_size=1000))
    assert len({each.customer_id for each in listed.orders}) == 20
    assert not await differences(shop)


async def test_orders_and_activities_of_the_same_people_at_once(shop: Shop) -> None:
    """Both move the last activity: neither waits for the other in a circle, and the latest holds."""
    people = [(await shop.create()).id for _ in range(8)]

    async def buy(turn: int) -> None:
        mine = random.Random(turn).sample(people, len(people))
        results = await record(shop, *(order(customer_id=each, day=2 * turn) for each in mine))
        assert {result.outcome for result in results} == {CREATED}

    async def look(turn: int) -> None:
        mine = random.Random(-turn).sample(people, len(people))
        at = datetime.fromtimestamp(NOON + (2 * turn + 1) * DAY, UTC)
        answer = await visits.record(shop, [visits.item(each, at) for each in mine])
        assert answer.recorded == len(people)

    await asyncio.gather(*(act(turn) for turn in range(10) for act in (buy, look)))
    for each in people:
        got = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=each))
        assert got.last_active_at.seconds == NOON + 19 * DAY
    assert not await differences(shop)


async def test_a_refund_and_its_order_at_once(shop: Shop) -> None:
    for number in range(10):
        key = str(number)
        both = record(shop, refund(key, 300)), record(shop, order(external_id=key, email="a@example.com"))
        results = [result for (result,) in await asyncio.gather(*both)]
        assert (await get(shop, results[1].order_id)).refunded.amount_minor == 300
    assert not await differences(shop)


step = st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(list(pb.OrderStatus.values())[1:]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_arrival_ends_in_the_same_rows(shop: Shop, data: st.DataObject) -> None:
    """The revisions and refunds of three orders of two people, in two orders of arrival and differently cut."""
    steps = data.draw(st.lists(step, min_size=1, max_size=10, unique_by=lambda each: each[:2]))
    run = data.draw(st.uuids())

    def said(where: str) -> list[pb.Order | pb.OrderRecord]:
        records: list[pb.Order | pb.OrderRecord] = [
            order(
                status,
                external_id=f"{where}{number}",
                revision=revision,
                day=revision,
                email=f"{where}{number % 2}@example.com",
                items=[item(100 * revision, number + 1, category=f"c{revision % 2}", brand="b")],
            )
            for number, revision, status in steps
        ]
        return [*records, refund(f"{where}0", 150)]

    ends = []
    for where in ("first", "second"):
        arrival = data.draw(st.permutations(range(len(steps) + 1)))
        records = said(f"{where}-{run}-")
        cut = data.draw(st.integers(0, len(records)))
        for batch in (arrival[:cut], arrival[cut:]):
            if batch:
                await record(shop, *(records[i] for i in batch))
        listed = await calls(shop).ListOrders(pb.ListOrdersRequest(page_size=1000))
        mine = sorted(
            (each for each in listed.orders if each.external_id.startswith(f"{where}-{run}-")),
            key=lambda each: each.external_id,
        )
        ends.append([await _facts(shop, each) for each in mine])
    assert ends[0] == ends[1]
    assert not await differences(shop)


async def _facts(shop: Shop, got: pb.Order) -> tuple[object, ...]:
    counted = await metrics_of(shop, got.customer_id)
    counted.customer_id = ""
    return (
        got.external_id[-1],
        got.revision,
        got.status,
        got.placed_at.seconds,
        got.total.amount_minor,
        got.refunded.amount_minor,
        [got.HasField("completed_at"), got.HasField("fulfilled_at"), got.HasField("delivered_at")],
        counted.SerializeToString(deterministic=True),
    )
