"""Who is in a segment, as loyalty hears it before anybody tells it, and what it is worth there."""

import itertools
import random
from typing import Any
from uuid import UUID

import pytest

from libs.caller import acting_as
from libs.ids import new_id
from libs.inbox import NotYet
from libs.outbox import emit
from regulars.customers.v1 import events_pb2 as told
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.segments.v1.events_pb2 import SegmentAssigned, SegmentUnassigned
from services.loyalty.segments.queries import segments_of
from tests.customers.shop import Shop, refused
from tests.loyalty.catalogue import add_reward, redeem
from tests.loyalty.members import add_rule, buy, give, has, in_ledger, join, rules, until
from tests.loyalty.test_disorder import House
from tests.platform import Stack

_versions = itertools.count(1)


async def place(shop: Shop, segment: str, customer: str, *, inside: bool = True) -> None:
    """Tells it on the stream, and waits until loyalty has heard it."""
    kind: Any = SegmentAssigned if inside else SegmentUnassigned
    event = kind(segment_id=segment, customer_id=customer, business_id=shop.id, version=next(_versions))
    await in_ledger(
        shop,
        lambda tx: emit(tx, event, aggregate_id=UUID(customer), version=1, business_id=UUID(shop.id)),
    )

    async def heard() -> bool:
        found = await in_ledger(shop, lambda tx: segments_of(tx, [UUID(customer)]))
        return (segment in found.get((UUID(shop.id), UUID(customer)), ())) == inside

    await until(heard)


async def test_rules_and_rewards_of_a_segment_are_for_its_members(shop: Shop) -> None:
    segment, other = str(new_id()), str(new_id())
    for of in (segment, other):
        await add_rule(
            shop,
            name=of,
            multiplier=programs.Multiplier(factor_percent=300),
            conditions=programs.RuleConditions(segment_ids=[of]),
        )
    reward = await add_reward(shop, 10, segment_ids=[segment.upper()])
    member = await join(shop)
    await give(shop, member, 50)
    assert (await refused(redeem(shop, member, reward))).reason == "SEGMENT_NOT_ELIGIBLE"
    await buy(shop, member, 10_000)
    await has(shop, member, 150)
    await place(shop, segment, member)
    simulated = await rules(shop).SimulateEarning(
        programs.SimulateEarningRequest(
            business_id=shop.id, customer_id=member, order=programs.SimulatedOrder(total_minor=10_000)
        )
    )
    assert (simulated.points, [each.reason for each in simulated.skipped]) == (300, ["OTHER_SEGMENT"])
    await buy(shop, member, 10_000)
    await has(shop, member, 450)
    await redeem(shop, member, reward)
    await place(shop, segment, member, inside=False)
    assert (await refused(redeem(shop, member, reward))).reason == "SEGMENT_NOT_ELIGIBLE"


async def segments(house: House, who: int) -> int:
    with acting_as(house.caller):
        async with house.loyalty.db.read() as tx:
            found = await segments_of(tx, [house.customers[who]])
    return len(found.get((house.business, house.customers[who]), ()))


def changed(house: House, segment: UUID, who: int, version: int) -> Any:
    """Odd versions enter, even ones leave."""
    kind: Any = SegmentAssigned if version % 2 else SegmentUnassigned
    customer = house.customers[who]
    message = kind(
        segment_id=str(segment),
        customer_id=str(customer),
        business_id=str(house.business),
        version=version,
    )
    return house.event(message, customer, version)


@pytest.mark.parametrize("last", [4, 5])
async def test_the_newest_version_counts_whatever_comes_last(stack: Stack, last: int) -> None:
    house, segment, chance = House(stack), new_id(), random.Random(last)
    with pytest.raises(NotYet):
        await house.hear([changed(house, segment, 0, 1)])
    await house.hear(house.beginning())
    events = [changed(house, segment, 0, version) for version in range(1, last + 1)]
    for _ in range(3):
        chance.shuffle(events)
        for at in range(0, len(events), 2):
            await house.hear(events[at : at + 2])
        assert await segments(house, 0) == last % 2


async def test_segments_follow_merges_and_end_with_the_person(stack: Stack) -> None:
    house, segment, operation = House(stack), new_id(), new_id()
    await house.hear([*house.beginning()])
    await house.hear([changed(house, segment, 0, 1)])
    way = {
        "source_id": str(house.customers[0]),
        "target_id": str(house.customers[1]),
        "operation_id": str(operation),
    }
    await house.hear([house.event(told.CustomerMerged(**way), house.customers[0], 9)])
    assert await segments(house, 1) == 1
    await house.hear([house.event(told.CustomerUnmerged(**way), house.customers[0], 10)])
    assert (await segments(house, 0), await segments(house, 1)) == (1, 0)
    erased = told.CustomerErased(customer_id=str(house.customers[0]), operation_id=str(new_id()))
    await house.hear([house.event(erased, house.customers[0], 11)])
    await house.hear([changed(house, segment, 0, 3)])
    assert await segments(house, 0) == 0
