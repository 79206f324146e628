"""Purchases fill stamp cards; what was filled is given once."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from regulars.loyalty.v1 import loyalty_pb2 as pb
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.loyalty.v1.loyalty_pb2_grpc import LoyaltyServiceStub
from services.loyalty.cards import rules
from services.loyalty.cards.rules import Card
from services.loyalty.programs.rules import rule_of
from tests.customers.purchases import item, record, refund
from tests.customers.shop import Shop
from tests.loyalty.members import add_rule, buy, faults, has, in_ledger, join, transactions, until
from tests.loyalty.members import rules as rules_of


def card(**terms: Any) -> Any:
    return rule_of(UUID(int=1), {"name": "ten", "stamp_card": {"stamps": 10, "points": 5} | terms})


@pytest.mark.parametrize(
    ("before", "change", "stamps", "filled", "milestones"),
    [
        (Card(), 4, 4, 0, ()),
        (Card(), 5, 5, 0, (50,)),
        (Card(stamps=5, told=50), 3, 8, 0, (80,)),
        (Card(), 9, 9, 0, (50, 80)),
        (Card(stamps=9, told=80), 1, 0, 1, ()),
        (Card(stamps=9, told=80), 7, 6, 1, (50,)),
        (Card(), 25, 5, 2, (50,)),
        (Card(stamps=12, filled=1), -4, 0, 0, ()),
        (Card(stamps=8, filled=1), 4, 2, 0, ()),
    ],
)
def test_stamps(before: Card, change: int, stamps: int, filled: int, milestones: tuple[int, ...]) -> None:
    rule = card(repeats=True)
    found = rules.stamped(rule, before, change)
    assert (rules.here(rule, found.card), found.filled, found.milestones) == (stamps, filled, milestones)


def test_a_card_that_does_not_begin_again_stays_full() -> None:
    rule = card()
    found = rules.stamped(rule, Card(stamps=9, told=80), 15)
    assert (rules.here(rule, found.card), found.filled, found.milestones) == (10, 1, ())
    assert rules.stamped(rule, found.card, 10).filled == 0


async def cards_of(shop: Shop, customer_id: str) -> list[tuple[int, int]]:
    loyalty = shop.calls(LoyaltyServiceStub)
    found = await loyalty.GetMembership(pb.GetMembershipRequest(customer_id=customer_id))
    return [(each.stamps, each.filled) for each in found.stamp_cards]


async def simulated(
    shop: Shop, customer_id: str, coffees: int
) -> tuple[int, list[str], list[tuple[int, int, int]]]:
    """Points of so many coffees, those for full cards explained, and what happens to the cards."""
    order = programs.SimulatedOrder(
        items=[programs.SimulatedItem(category="Coffee", quantity=coffees, amount_minor=100 * coffees)]
    )
    found = await rules_of(shop).SimulateEarning(
        programs.SimulateEarningRequest(business_id=shop.id, customer_id=customer_id, order=order)
    )
    assert found.points == sum(reason.points for reason in found.reasons)
    assert not found.skipped
    return (
        found.points,
        [each.explanation for each in found.reasons if each.name == "Ten coffees"],
        [(each.stamps, each.on_card, each.filled) for each in found.stamps],
    )


async def test_coffees_fill_a_card_and_a_return_takes_stamps_back(shop: Shop) -> None:
    await add_rule(
        shop,
        name="Ten coffees",
        stamp_card=programs.StampCard(stamps=10, points=500, offer="a free coffee", repeats=True),
        conditions={"categories": ["coffee"]},
    )
    member = await join(shop)
    assert await cards_of(shop, member) == [(0, 0)]
    coffees = [item(100, 6, category="Coffee"), item(100, 3, category="Cake")]
    await buy(shop, member, items=coffees, external_id="a")
    await has(shop, member, 9)
    assert await cards_of(shop, member) == [(6, 0)]
    await record(shop, refund("a", 900))
    await has(shop, member, 0)
    assert await cards_of(shop, member) == [(0, 0)]
    await buy(shop, member, items=[item(100, 8, category="coffee")])
    await has(shop, member, 8)
    assert await simulated(shop, member, 1) == (1, [], [(1, 9, 0)])
    assert await simulated(shop, member, 4) == (504, ["for full card number 1"], [(4, 2, 1)])
    assert await simulated(shop, "", 4) == (4, [], [(4, 4, 0)])
    await buy(shop, member, items=[item(100, 4, category="coffee")], external_id="b")
    await has(shop, member, 512)
    assert await cards_of(shop, member) == [(2, 1)]
    (given,) = [t for t in await transactions(shop, member) if t.source == "card:1"]
    assert (given.points, given.reasons[0].name) == (500, "Ten coffees")
    await record(shop, refund("b", 400))
    await has(shop, member, 508)
    await buy(shop, member, items=[item(100, 4, category="coffee")])
    await has(shop, member, 512)
    assert await cards_of(shop, member) == [(2, 1)]
    assert await faults(shop) == []

    async def told() -> bool:
        """Every event has left."""
        found = await in_ledger(
            shop,
            lambda tx: tx.execute(text("select 1 from outbox where tenant_id = :t"), {"t": tx.tenant_id}),
        )
        return not found.all()

    await until(told)
