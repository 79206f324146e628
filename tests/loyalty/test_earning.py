"""Orders give points, returns take them back: each once, whatever comes when."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from libs.db import Tx
from regulars.customers.v1 import customers_pb2 as customers
from regulars.customers.v1 import orders_pb2 as orders
from regulars.customers.v1.activities_pb2 import ACTIVITY_KIND_CUSTOM, Activity, RecordCustomerActivityRequest
from regulars.customers.v1.activities_pb2_grpc import ActivitiesServiceStub
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1 import programs_pb2 as programs
from services.loyalty.ledger import anniversaries
from tests.customers.purchases import item, order, record, refund
from tests.customers.shop import Shop
from tests.loyalty.members import (
    add_rule,
    balance,
    buy,
    cancelled,
    faults,
    give,
    has,
    in_ledger,
    join,
    ledger,
    set_program,
    transactions,
    until,
)


async def test_an_order_gives_points_and_says_why(shop: Shop) -> None:
    member = await join(shop)
    order_id = await buy(shop, member, 12_345)
    found = await has(shop, member, 123)
    assert (found.lifetime, found.spendable, found.pending, found.held) == (123, 123, 0, 0)
    assert found.next_expiry_points == 123
    (earned,) = await transactions(shop, member)
    assert (earned.type, earned.points, earned.order_id) == (pb.TRANSACTION_TYPE_EARN, 123, order_id)
    assert (earned.opening_balance, earned.closing_balance) == (0, 123)
    (reason,) = earned.reasons
    assert (reason.points, reason.explanation) == (123, "1 point for each 1.00 USD of 123.45 USD")
    assert await faults(shop) == []


async def test_several_rules_give_one_entry_with_all_reasons(shop: Shop) -> None:
    await add_rule(shop, name="Double", multiplier={"factor_percent": 200})
    await add_rule(shop, name="Welcome", bonus={"trigger": programs.BONUS_TRIGGER_FIRST_ORDER, "points": 50})
    member = await join(shop)
    await buy(shop, member)
    await has(shop, member, 250)
    await buy(shop, member)
    await has(shop, member, 450)
    second, first = await transactions(shop, member)
    assert [(reason.name, reason.points) for reason in first.reasons] == [
        ("A point for each unit spent", 100),
        ("Double", 100),
        ("Welcome", 50),
    ]
    assert second.points == 200
    assert await faults(shop) == []


async def test_refunds_take_back_in_proportion_and_never_more(shop: Shop) -> None:
    member = await join(shop)
    await buy(shop, member, 10_000, external_id="a")
    await has(shop, member, 100)
    await record(shop, refund("a", 2_500))
    await has(shop, member, 75)
    await record(shop, refund("a", 2_500))
    await record(shop, refund("a", 6_000))
    await has(shop, member, 40)
    await record(shop, refund("a", 10_000))
    found = await has(shop, member, 0)
    assert found.lifetime == 100
    assert [t.points for t in await transactions(shop, member)] == [-40, -35, -25, 100]
    assert await faults(shop) == []


async def test_a_refund_before_its_order(shop: Shop) -> None:
    member = await join(shop)
    await record(shop, refund("late", 5_000))
    await buy(shop, member, 10_000, external_id="late")
    await has(shop, member, 50)
    assert await faults(shop) == []


async def test_a_cancelled_order_gives_nothing_and_returns_what_was_spent_on_it(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 80)
    order_id = await buy(shop, member, 10_000, external_id="c")
    await has(shop, member, 180)
    spent = await ledger(shop).RedeemPoints(
        pb.RedeemPointsRequest(customer_id=member, points=60, order_id=order_id)
    )
    await cancelled(shop, member, "c", 10_000, revision=2)
    await has(shop, member, 80)
    back, taken, *_ = await transactions(shop, member)
    assert {back.points, taken.points} == {60, -100}
    assert spent.id in {back.reverses_id, taken.reverses_id}
    assert await faults(shop) == []


async def test_an_order_whose_amounts_change_is_judged_by_the_rules_of_then(shop: Shop) -> None:
    member = await join(shop)
    await buy(shop, member, 10_000, external_id="r", revision=1)
    await has(shop, member, 100)
    await add_rule(shop, multiplier={"factor_percent": 300})
    changed: dict[str, Any] = {"customer_id": member, "external_id": "r"}
    await record(shop, order(**changed, revision=2, total={"amount_minor": 15_000}))
    await has(shop, member, 150)
    await record(shop, order(**changed, revision=3, total={"amount_minor": 5_000}))
    await has(shop, member, 50)
    await record(shop, order(**changed, revision=4, total={"amount_minor": 12_000}))
    await has(shop, member, 120)
    assert await faults(shop) == []


async def test_points_wait_until_they_can_be_spent(shop: Shop) -> None:
    await set_program(shop, pending_days=14)
    member = await join(shop)
    await buy(shop, member, 10_000, external_id="p")

    async def pending() -> bool:
        return (await balance(shop, member)).pending == 100

    await until(pending)
    assert (await balance(shop, member)).balance == 0
    await record(shop, refund("p", 5_000))

    async def half() -> bool:
        return (await balance(shop, member)).pending == 50

    await until(half)
    taken, earned = await transactions(shop, member)
    assert earned.pending
    assert (taken.points, taken.closing_pending, taken.closing_balance) == (-50, 50, 0)
    assert await faults(shop) == []


async def test_a_return_beyond_the_balance_is_a_shortfall(shop: Shop) -> None:
    member = await join(shop)
    await buy(shop, member, 10_000, external_id="s")
    await has(shop, member, 100)
    await ledger(shop).RedeemPoints(pb.RedeemPointsRequest(customer_id=member, points=70))
    await record(shop, refund("s", 10_000))
    found = await has(shop, member, 0)
    assert found.shortfall == 70
    assert await faults(shop) == []


async def test_a_program_may_go_below_zero(shop: Shop) -> None:
    await set_program(shop, return_policy=programs.RETURN_POLICY_NEGATIVE)
    member = await join(shop)
    await buy(shop, member, 10_000, external_id="n")
    await has(shop, member, 100)
    await ledger(shop).RedeemPoints(pb.RedeemPointsRequest(customer_id=member, points=70))
    await record(shop, refund("n", 10_000))
    found = await has(shop, member, -70)
    assert (found.spendable, found.shortfall) == (0, 0)
    await buy(shop, member, 10_000)
    await has(shop, member, 30)
    assert await faults(shop) == []


async def test_blocked_members_earn_nothing_and_deleted_ones_are_frozen(shop: Shop) -> None:
    member = await join(shop)
    blocked = customers.Customer(status=customers.CUSTOMER_STATUS_BLOCKED)
    await shop.customers.UpdateCustomer(customers.UpdateCustomerRequest(id=member, customer=blocked))
    free = await join(shop)
    await buy(shop, member)
    await buy(shop, free)
    await has(shop, free, 100)
    assert (await balance(shop, member)).lifetime == 0


async def test_guests_earn_unless_the_program_says_otherwise(shop: Shop) -> None:
    (made,) = await record(shop, order(email="guest@example.com", total={"amount_minor": 10_000}))
    await has(shop, made.customer_id, 100)
    await set_program(shop, guests_excluded=True)
    (again,) = await record(shop, order(email="other@example.com", total={"amount_minor": 10_000}))
    member = await join(shop)
    await buy(shop, member)
    await has(shop, member, 100)
    assert (await balance(shop, again.customer_id)).lifetime == 0


async def test_orders_that_were_not_completed_give_nothing(shop: Shop) -> None:
    member = await join(shop)
    pending: dict[str, Any] = {"customer_id": member, "external_id": "w", "total": {"amount_minor": 10_000}}
    await record(shop, order(orders.ORDER_STATUS_PENDING, **pending, revision=1))
    await buy(shop, member, 500)
    await has(shop, member, 5)
    await record(shop, order(orders.ORDER_STATUS_PAID, **pending, revision=2))
    await has(shop, member, 105)


async def test_joining_may_be_worth_points(shop: Shop) -> None:
    await add_rule(shop, name="Hello", bonus={"trigger": programs.BONUS_TRIGGER_SIGN_UP, "points": 25})
    member = await join(shop)
    await has(shop, member, 25)
    (earned,) = await transactions(shop, member)
    assert (earned.source, earned.reasons[0].explanation) == ("sign_up", "for becoming a member")
    assert await faults(shop) == []


async def test_caps_hold_over_orders_of_a_day(shop: Shop) -> None:
    await add_rule(
        shop,
        name="Coffee",
        per_amount={"points": 10},
        conditions={"categories": ["coffee"]},
        caps={"per_day": 150},
    )
    member = await join(shop)
    coffee = [item(1000, category="Coffee")]
    await asyncio.gather(*(buy(shop, member, items=coffee) for _ in range(3)))
    await has(shop, member, 3 * 10 + 150)
    await buy(shop, member, items=coffee, day=1)
    await has(shop, member, 4 * 10 + 250)
    assert await faults(shop) == []


async def _run(statement: Any, values: dict[str, str], tx: Tx) -> None:
    await tx.execute(statement, values)


@pytest.mark.parametrize("leap_day", [programs.LEAP_DAY_FEBRUARY_28, programs.LEAP_DAY_MARCH_1])
async def test_another_year_is_worth_points_once_leap_days_included(
    shop: Shop, leap_day: "programs.LeapDay.ValueType"
) -> None:
    await set_program(shop, leap_day=leap_day)
    await add_rule(shop, bonus={"trigger": programs.BONUS_TRIGGER_ANNIVERSARY, "points": 40})
    member, leaping, young = await join(shop), await join(shop), await join(shop)
    (program,) = await in_ledger(shop, anniversaries.celebrating)
    joined = {member: "2025-02-25", leaping: "2024-02-29", young: "2027-02-25"}
    for customer_id, day in joined.items():
        at = {"day": f"{day} 10:00Z", "id": customer_id}
        moved = text("update memberships set joined_at = cast(:day as timestamptz) where customer_id = :id")
        await in_ledger(shop, partial(_run, moved, at))

    async def kept(now: datetime) -> None:
        async def do(tx: Tx) -> None:
            tx.now = now
            await anniversaries.celebrate(tx, program, UUID(int=0), 100)

        await in_ledger(shop, do)

    noon = datetime(2027, 2, 28, 12, tzinfo=UTC)
    for _ in range(3):
        await kept(noon)
    leapt = leap_day == programs.LEAP_DAY_FEBRUARY_28
    found = [(await balance(shop, each)).lifetime for each in (member, leaping, young)]
    assert found == [40, 40 if leapt else 0, 0]
    await kept(noon + timedelta(days=1))
    await kept(noon + timedelta(days=2))
    assert (await balance(shop, leaping)).lifetime == 40
    assert await faults(shop) == []


async def test_a_custom_activity_may_be_worth_points_once(shop: Shop) -> None:
    await add_rule(
        shop,
        name="Quiz",
        bonus={"trigger": programs.BONUS_TRIGGER_CUSTOM_EVENT, "points": 7, "event": "quiz"},
    )
    member = await join(shop)
    activity = Activity(kind=ACTIVITY_KIND_CUSTOM, name="quiz")
    calls = shop.calls(ActivitiesServiceStub)
    for _ in range(2):
        await calls.RecordCustomerActivity(
            RecordCustomerActivityRequest(customer_id=member, activity=activity, request_id="q")
        )
    await has(shop, member, 7)
    assert await faults(shop) == []
