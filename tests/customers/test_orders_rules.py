"""What an order becomes, whatever the order in which it is told."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.customers.orders import rules
from services.customers.orders.rules import Order, Tally, Terms, Told
from services.customers.problems import RevisionReused

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORDER, WHO = UUID(int=1), UUID(int=2)
PAYMENT = Terms(NOW, rules.BY_PAYMENT, ZoneInfo("Europe/Berlin"))
DELIVERY = Terms(NOW, rules.BY_DELIVERY, ZoneInfo("UTC"))


def told(revision: int, status: int, total: int = 1000, refunded: int = 0, **more: object) -> Told:
    items = [{"category": f"c{total % 3}", "quantity": 1, "amount_minor": total}]
    return Told(
        source="s",
        external_id="1",
        revision=revision,
        content=f"{revision} {status} {total} {refunded}".encode(),
        status=status,
        placed_at=NOW + timedelta(hours=revision * 7),
        items=items,
        quantity=1,
        subtotal_minor=total,
        total_minor=total,
        refunded_minor=min(refunded, total),
        **more,  # type: ignore[arg-type]
    )


def after(steps: list[Told | int], terms: Terms = PAYMENT) -> tuple[Order | None, list[str], Tally]:
    """The order after revisions and refunds (numbers), the events, and the sums of all changes."""
    order: Order | None = None
    heard: list[str] = []
    tally = Tally()
    for step in steps:
        if isinstance(step, int):
            change = rules.refunded(order, _waiting(), step)
        else:
            change = rules.recorded(order, step, terms, ORDER, WHO)
        tally.change(order, change.after)
        order = change.after
        heard += change.events
    return order, heard, tally


def _waiting() -> Order:
    nothing = told(0, rules.WAITING, 0)
    return Order(order_id=ORDER, customer_id=None, told=nothing, local_day=date(1970, 1, 1), version=0)


def _nonzero(tally: Tally) -> tuple[object, object, object]:
    days = {key: sums for key, sums in tally.days.items() if any(sums)}
    favourites = {key: sums for key, sums in tally.favourites.items() if any(sums)}
    sums = {who: {name: each[name] for name in Tally.COUNTED} for who, each in tally.customers.items()}
    return sums, days, favourites


revisions = st.builds(
    lambda status, total, refunded: (status, total, refunded),
    st.integers(rules.PENDING, rules.PARTIALLY_RETURNED),
    st.integers(0, 5000),
    st.integers(0, 5000),
)


@given(st.lists(revisions, min_size=1, max_size=3), st.lists(st.integers(0, 6000), max_size=2))
def test_every_order_of_arrival_ends_alike(said: list[tuple[int, int, int]], refunds: list[int]) -> None:
    steps: list[Told | int] = [told(i + 1, *each) for i, each in enumerate(said)]
    steps += refunds
    for terms in (PAYMENT, DELIVERY):
        ends = set()
        for arrival in permutations(steps):
            order, heard, tally = after(list(arrival), terms)
            assert order is not None
            alone = Tally()
            alone.change(None, order)
            assert _nonzero(tally) == _nonzero(alone)  # the sums of the changes are what a recount gives
            for once in rules.MILESTONES:
                assert heard.count(once) == (getattr(order, f"{once}_at") is not None)
            ends.add(
                (
                    order.told.revision,
                    order.told.content,
                    order.told.refunded_minor,
                    order.refund_notice_minor,
                    order.local_day,
                    order.completed_at,
                    order.fulfilled_at,
                    order.delivered_at,
                )
            )
        assert len(ends) == 1


@pytest.mark.parametrize(
    ("status", "by_payment", "by_delivery"),
    [
        (rules.PENDING, False, False),
        (rules.PAID, True, False),
        (rules.FULFILLED, True, False),
        (rules.DELIVERED, True, True),
        (rules.CANCELLED, False, False),
        (rules.REFUNDED, True, False),
        (rules.PARTIALLY_REFUNDED, True, False),
        (rules.RETURNED, True, True),
        (rules.PARTIALLY_RETURNED, True, True),
    ],
)
def test_the_setting_says_what_completes(status: int, by_payment: bool, by_delivery: bool) -> None:
    for terms, wanted in ((PAYMENT, by_payment), (DELIVERY, by_delivery)):
        order, heard, _ = after([told(1, status)], terms)
        assert order is not None
        assert (order.completed_at is not None, heard.count("completed")) == (wanted, int(wanted))


def test_all_parcels_that_arrived_are_a_delivery() -> None:
    there, under_way = {"delivered_at": NOW.isoformat()}, {"shipped_at": NOW.isoformat()}
    for parcels, wanted in (([there, there], True), ([there, under_way], False), ([], False)):
        order, _, _ = after([told(1, rules.PAID, deliveries=parcels)], DELIVERY)
        assert order is not None
        assert (order.completed_at is not None) is wanted


def test_a_revision_has_one_content() -> None:
    with pytest.raises(RevisionReused):
        after([told(1, rules.PAID), told(1, rules.DELIVERED)])


def test_the_day_is_the_businesss() -> None:
    late = told(0, rules.PAID)
    midnight = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    order = rules.recorded(None, replace(late, placed_at=midnight), PAYMENT, ORDER, WHO).after
    assert order.local_day == date(2026, 3, 2)


@pytest.mark.parametrize(
    ("orders", "days", "stage"),
    [
        (0, [], 0),
        (1, [0], 1),
        (2, [0, 5], 2),
        (3, [0, 5], 2),  # three orders on two days are no rhythm
        (3, [0, 30, 60], 3),
        (3, [0, 30, 61], 3),
        (3, [0, 10, 40], 3),  # gaps of 10 and 30: deviation 10, mean 20
        (3, [0, 10, 41], 2),
        (6, [0, 7, 14, 21, 28, 35], 3),
        (6, [0, 1, 2, 3, 4, 90], 2),
    ],
)
def test_stages_of_a_customers_life(orders: int, days: list[int], stage: int) -> None:
    first = date(2026, 1, 1)
    assert rules.lifecycle_stage(orders, [first + timedelta(days=day) for day in days]) == stage
