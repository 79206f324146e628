"""Points are adjusted, spent, held, captured, released, given away, taken back and read."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from sqlalchemy import select, text

from libs import clock
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.plumbing import outbox
from regulars.customers.v1 import customers_pb2 as customers
from regulars.loyalty.v1 import events_pb2 as events
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1.ledger_pb2_grpc import MyLoyaltyServiceStub
from services.loyalty.ledger import expiry
from tests.customers.shop import Shop, refused
from tests.loyalty.members import (
    balance,
    buy,
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

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def redeem(shop: Shop, customer_id: str, points: int, **fields: Any) -> pb.Transaction:
    return await ledger(shop).RedeemPoints(
        pb.RedeemPointsRequest(customer_id=customer_id, points=points, **fields)
    )


async def hold(shop: Shop, customer_id: str, points: int, **fields: Any) -> pb.Hold:
    return await ledger(shop).HoldPoints(
        pb.HoldPointsRequest(customer_id=customer_id, points=points, **fields)
    )


def soon(**delta: float) -> Any:
    return stamp(clock.now() + timedelta(**delta))


async def after(shop: Shop, lots: str) -> None:
    """Moves the expiry of the shop's lots into the past, as if time had gone by."""
    from sqlalchemy import text

    await in_ledger(
        shop,
        lambda tx: tx.execute(
            text(f"update lots set {lots} where business_id = :business"), {"business": shop.id}
        ),
    )


async def test_adjustments_say_who_why_and_from_when(shop: Shop) -> None:
    member = await join(shop)
    past = datetime(2026, 1, 1, tzinfo=UTC)
    given = await give(
        shop, member, 50, reason="broken cup", effective_at=stamp(past), expires_at=soon(days=3)
    )
    assert (given.type, given.points, given.reason) == (pb.TRANSACTION_TYPE_ADJUST, 50, "broken cup")
    assert given.actor.subject == "tester"
    assert given.effective_at == stamp(past)
    taken = await give(shop, member, -20)
    assert (taken.opening_balance, taken.closing_balance) == (50, 30)
    assert [(share.lot_id, share.points) for share in taken.lots] == [(given.lots[0].lot_id, -20)]
    assert [t.reason for t in await transactions(shop, member)] == ["a gift", "broken cup"]
    assert (await balance(shop, member, as_of=stamp(past))).balance == 50
    assert (await balance(shop, member, as_of=stamp(past - timedelta(days=1)))).balance == 0
    assert await faults(shop) == []


async def test_an_adjustment_needs_a_reason_and_dates_that_can_be(shop: Shop) -> None:
    member = await join(shop)
    assert (await refused(give(shop, member, 5, reason="  "))).fields == {"reason": "REQUIRED"}
    assert "reason" in (await refused(give(shop, member, 5, reason=""))).fields
    assert "points" in (await refused(give(shop, member, 0))).fields
    assert (await refused(give(shop, member, 5, effective_at=soon(days=1)))).fields == {
        "effective_at": "OUT_OF_RANGE"
    }
    assert (await refused(give(shop, member, 5, expires_at=soon(days=-1)))).fields == {
        "expires_at": "OUT_OF_RANGE"
    }


async def test_no_more_is_spent_than_there_is_and_the_refusal_says_what_is_missing(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 10)
    refusal = await refused(redeem(shop, member, 25))
    assert (refusal.code, refusal.reason) == (PRECONDITION, "INSUFFICIENT_POINTS")
    assert refusal.metadata == {"requested": "25", "spendable": "10", "missing": "15"}
    assert (await refused(give(shop, member, -11))).reason == "INSUFFICIENT_POINTS"
    assert (await refused(hold(shop, member, 11))).reason == "INSUFFICIENT_POINTS"
    assert "points" in (await refused(redeem(shop, member, -5))).fields


async def test_a_request_that_comes_twice_is_done_once(shop: Shop) -> None:
    member = await join(shop)
    first = await give(shop, member, 10, request_id="g")
    assert await give(shop, member, 10, request_id="g") == first
    spent = await redeem(shop, member, 4, request_id="r")
    assert await redeem(shop, member, 4, request_id="r") == spent
    held = await hold(shop, member, 3, request_id="h")
    assert await hold(shop, member, 3, request_id="h") == held
    found = await balance(shop, member)
    assert (found.balance, found.held) == (6, 3)
    assert (await refused(redeem(shop, member, 5, request_id="r"))).reason == "REQUEST_ID_REUSED"


async def test_a_gift_that_lapsed_meanwhile_is_told_again_and_answered(shop: Shop) -> None:
    member, until = await join(shop), soon(seconds=60)
    given = await give(shop, member, 10, request_id="g", expires_at=until)
    clock.shift_to(clock.now() + timedelta(seconds=61))
    try:
        assert await give(shop, member, 10, request_id="g", expires_at=until) == given
    finally:
        clock.reset()


async def test_twenty_redemptions_at_once_never_overspend(shop: Shop) -> None:
    member = await join(shop)
    for points in (40, 30, 30):
        await give(shop, member, points)
    done = await asyncio.gather(*(redeem(shop, member, 15) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(each, pb.Transaction) for each in done) == 6
    refusals = [each for each in done if isinstance(each, grpc.aio.AioRpcError)]
    assert {each.code() for each in refusals} == {PRECONDITION}
    assert (await balance(shop, member)).balance == 10
    assert await faults(shop) == []


async def test_one_request_twenty_times_at_once(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 100)
    done = await asyncio.gather(*(redeem(shop, member, 15, request_id="once") for _ in range(20)))
    assert len({each.id for each in done}) == 1
    assert (await balance(shop, member)).balance == 85


async def test_everything_at_once_on_one_account(shop: Shop) -> None:
    await set_program(shop, transfers_allowed=True)
    member, other = await join(shop), await join(shop)
    await give(shop, member, 500)
    await give(shop, other, 500)

    async def hold_and(end: str) -> None:
        held = await hold(shop, member, 10)
        if end == "capture":
            await ledger(shop).CaptureHold(pb.CaptureHoldRequest(id=held.id, points=7))
        else:
            await ledger(shop).ReleaseHold(pb.ReleaseHoldRequest(id=held.id))

    async def swap(giver: str, receiver: str) -> None:
        await ledger(shop).TransferPoints(
            pb.TransferPointsRequest(from_customer_id=giver, to_customer_id=receiver, points=5)
        )

    await asyncio.gather(
        *(hold_and("capture") for _ in range(4)),
        *(hold_and("release") for _ in range(4)),
        *(redeem(shop, member, 3) for _ in range(4)),
        *(swap(member, other) for _ in range(4)),
        *(swap(other, member) for _ in range(4)),
        *(buy(shop, member, 1_000) for _ in range(4)),
    )
    found = await has(shop, member, 500 - 4 * 7 - 4 * 3 + 4 * 10)
    assert found.held == 0
    assert await faults(shop) == []


async def test_holds_are_captured_released_and_lapse(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 100)
    first, second = await hold(shop, member, 40), await hold(shop, member, 40, ttl_seconds=1)
    found = await balance(shop, member)
    assert (found.balance, found.held, found.spendable) == (100, 80, 20)
    captured = await ledger(shop).CaptureHold(pb.CaptureHoldRequest(id=first.id, points=30))
    assert (captured.state, captured.captured_points) == (pb.HOLD_STATE_CAPTURED, 30)
    again = await ledger(shop).CaptureHold(pb.CaptureHoldRequest(id=first.id))
    assert again == captured
    other = pb.CaptureHoldRequest(id=first.id, order_id=str(new_id()))
    assert (await refused(ledger(shop).CaptureHold(other))).metadata["state"] == "CAPTURED"
    refusal = await refused(ledger(shop).ReleaseHold(pb.ReleaseHoldRequest(id=first.id)))
    assert (refusal.code, refusal.reason) == (PRECONDITION, "HOLD_NOT_OPEN")
    assert refusal.metadata["state"] == "CAPTURED"

    async def lapsed() -> bool:
        found = await ledger(shop).GetHold(pb.GetHoldRequest(id=second.id))
        return found.state == pb.HOLD_STATE_LAPSED

    await until(lapsed)
    found = await balance(shop, member)
    assert (found.balance, found.held, found.spendable) == (70, 0, 70)
    refusal = await refused(ledger(shop).CaptureHold(pb.CaptureHoldRequest(id=second.id)))
    assert (refusal.code, refusal.reason) == (PRECONDITION, "HOLD_NOT_OPEN")
    released = await ledger(shop).ReleaseHold(pb.ReleaseHoldRequest(id=second.id))
    assert released.state == pb.HOLD_STATE_LAPSED
    await redeem(shop, member, 70)
    assert await faults(shop) == []


async def test_a_hold_is_captured_once_by_two_tills_at_once(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 100)
    held = await hold(shop, member, 60)
    tills = [ledger(shop, "support", subject=f"till{n}") for n in range(6)]
    done = await asyncio.gather(*(till.CaptureHold(pb.CaptureHoldRequest(id=held.id)) for till in tills))
    assert {each.transaction_id for each in done} == {done[0].transaction_id}
    assert (await balance(shop, member)).balance == 40


async def test_a_redemption_is_taken_back_to_its_own_lots(shop: Shop) -> None:
    member = await join(shop)
    early = await give(shop, member, 30, expires_at=soon(days=5))
    late = await give(shop, member, 30, expires_at=soon(days=50))
    spent = await redeem(shop, member, 40)
    assert {s.lot_id: s.points for s in spent.lots} == {
        early.lots[0].lot_id: -30,
        late.lots[0].lot_id: -10,
    }
    back = await ledger(shop).ReverseRedemption(pb.ReverseRedemptionRequest(id=spent.id))
    assert (back.type, back.points, back.reverses_id) == (pb.TRANSACTION_TYPE_REVERSE, 40, spent.id)
    assert {s.lot_id: s.points for s in back.lots} == {early.lots[0].lot_id: 30, late.lots[0].lot_id: 10}
    again = await ledger(shop).ReverseRedemption(pb.ReverseRedemptionRequest(id=spent.id))
    assert again.id == spent.id
    refusal = await refused(ledger(shop).ReverseRedemption(pb.ReverseRedemptionRequest(id=late.id)))
    assert refusal.reason == "NOT_REVERSIBLE"
    found = await balance(shop, member)
    assert (found.balance, found.next_expiry_points) == (60, 30)
    assert await faults(shop) == []


@pytest.mark.parametrize(("days", "left"), [(0, 0), (10, 40)])
async def test_points_that_return_after_they_lapsed(shop: Shop, days: int, left: int) -> None:
    await set_program(shop, returned_points_days=days)
    member = await join(shop)
    await give(shop, member, 40)
    spent = await redeem(shop, member, 40)
    await after(shop, "expires_at = now() - interval '1 hour'")
    await ledger(shop).ReverseRedemption(pb.ReverseRedemptionRequest(id=spent.id))
    assert (await balance(shop, member)).balance == left
    assert await faults(shop) == []


async def test_what_is_past_its_expiry_is_gone_before_the_run_and_after_it(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 10)
    await give(shop, member, 20)
    held = await hold(shop, member, 5)
    before = stamp(clock.now())
    await after(shop, "expires_at = now() - interval '1 second'")
    found = await balance(shop, member)
    assert (found.balance, found.held, found.spendable) == (5, 5, 0)
    assert (await refused(redeem(shop, member, 1))).reason == "INSUFFICIENT_POINTS"
    assert len(await transactions(shop, member)) == 2
    while await in_ledger(shop, lambda tx: expiry.expire_lots(tx, 1)):
        pass
    found = await balance(shop, member)
    assert (found.balance, found.held) == (5, 5)
    lapsed = await transactions(shop, member, types=[pb.TRANSACTION_TYPE_EXPIRE])
    assert sum(t.points for t in lapsed) == -25
    assert lapsed[0].closing_balance == 5
    assert await faults(shop) == []
    await ledger(shop).ReleaseHold(pb.ReleaseHoldRequest(id=held.id))
    assert (await balance(shop, member)).balance == 0
    assert await faults(shop) == []
    assert before.seconds


async def test_runs_book_holds_and_pending_points(shop: Shop) -> None:
    await set_program(shop, pending_days=3)
    member = await join(shop)
    await give(shop, member, 10)
    await hold(shop, member, 10, ttl_seconds=1)
    await buy(shop, member, 1_000)

    async def pending() -> bool:
        return (await balance(shop, member)).pending == 10

    await until(pending)
    await after(shop, "available_at = now() - interval '1 hour'")

    async def free() -> bool:
        return not (await balance(shop, member)).held

    await until(free)
    assert (await balance(shop, member)).spendable == 20
    while await in_ledger(shop, lambda tx: expiry.settle_due(tx, 1)):
        pass
    (ripe,) = await transactions(shop, member, types=[pb.TRANSACTION_TYPE_AVAILABLE])
    assert (ripe.points, ripe.opening_balance, ripe.closing_balance, ripe.closing_pending) == (10, 10, 20, 0)
    assert await faults(shop) == []


async def test_points_that_will_lapse_are_told_once(shop: Shop) -> None:
    """By the day, and of what can be spent; of those who are gone to nobody."""
    member, gone = await join(shop), await join(shop)
    noon = clock.now().replace(hour=12)
    for points, ahead in (
        (10, timedelta(days=10)),
        (20, timedelta(days=10, hours=1)),
        (40, timedelta(days=12)),
        (80, timedelta(days=100)),
        (160, timedelta(days=11)),
    ):
        await give(shop, member, points, expires_at=stamp(noon + ahead))
    await give(shop, gone, 10, expires_at=soon(days=10))
    prepared = (
        "update lots set pending = true, available_at = expires_at where points = 160 and business_id = :business",
        "update memberships set deleted = true where customer_id = :gone and business_id = :business",
    )

    async def prepare(tx: Tx) -> None:
        for each in prepared:
            await tx.execute(text(each), {"business": shop.id, "gone": gone})

    await in_ledger(shop, prepare)
    told: dict[UUID, int] = {}

    async def notice(tx: Tx) -> None:
        await expiry.notice(tx, 100)
        mine = outbox.c.tenant_id == tx.tenant_id, outbox.c.subject == "customers.points.expiring"
        for row in await tx.execute(select(outbox).where(*mine)):
            told[row.id] = events.PointsExpiring.FromString(row.body).points

    for _ in range(2):
        await in_ledger(shop, notice)
    assert sorted(told.values()) == [30, 40]


async def test_transfers_keep_their_expiry(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    given = await give(shop, member, 30, expires_at=soon(days=5))
    request = pb.TransferPointsRequest(from_customer_id=member, to_customer_id=other, points=20)
    assert (await refused(ledger(shop).TransferPoints(request))).reason == "TRANSFERS_NOT_ALLOWED"
    await set_program(shop, transfers_allowed=True)
    done = await ledger(shop).TransferPoints(request)
    assert (done.given.points, done.received.points) == (-20, 20)
    assert done.received.counterpart_id == done.given.id
    assert done.received.lots[0].expires_at == given.lots[0].expires_at
    assert ((await balance(shop, member)).balance, (await balance(shop, other)).balance) == (10, 20)
    request.to_customer_id = member
    assert (await refused(ledger(shop).TransferPoints(request))).fields == {"to_customer_id": "SAME_CUSTOMER"}
    assert await faults(shop) == []


async def test_no_more_is_given_away_in_a_month_than_the_program_says(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    await give(shop, member, 100)
    await set_program(shop, transfers_allowed=True, transferable_points_per_month=50)
    request = pb.TransferPointsRequest(from_customer_id=member, to_customer_id=other, points=30)
    done = await asyncio.gather(
        *(ledger(shop).TransferPoints(request) for _ in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(each, BaseException) for each in done) == 1
    found = await refused(ledger(shop).TransferPoints(request))
    assert (found.reason, found.metadata) == (
        "TRANSFER_LIMIT_REACHED",
        {"limit": "50", "given": "30", "requested": "30"},
    )
    request.points = 20
    await ledger(shop).TransferPoints(request)
    assert ((await balance(shop, member)).balance, (await balance(shop, other)).balance) == (50, 50)
    assert await faults(shop) == []


async def test_statements_come_in_pages_and_by_type(shop: Shop) -> None:
    member = await join(shop)
    for points in range(1, 8):
        await give(shop, member, points)
    await redeem(shop, member, 3)
    request = pb.ListTransactionsRequest(customer_id=member, page_size=3)
    seen: list[int] = []
    while True:
        page = await ledger(shop).ListTransactions(request)
        seen += [t.points for t in page.transactions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [-3, 7, 6, 5, 4, 3, 2, 1]
    assert [t.points for t in await transactions(shop, member, types=[pb.TRANSACTION_TYPE_REDEEM])] == [-3]


async def test_a_deleted_member_is_frozen(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 30)
    blocked = customers.Customer(status=customers.CUSTOMER_STATUS_BLOCKED)
    await shop.customers.UpdateCustomer(customers.UpdateCustomerRequest(id=member, customer=blocked))

    async def frozen() -> bool:
        try:
            await redeem(shop, member, 1)
        except grpc.aio.AioRpcError as error:
            return error.code() == PRECONDITION
        return False

    await until(frozen)
    assert (await refused(hold(shop, member, 1))).reason == "MEMBERSHIP_FROZEN"


async def test_a_member_sees_itself_and_not_what_staff_wrote(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    await give(shop, member, 30)
    await give(shop, other, 7)
    me = shop.calls(MyLoyaltyServiceStub, customer=member)
    assert (await me.GetMyBalance(pb.GetMyBalanceRequest())).balance == 30
    (mine,) = (await me.ListMyTransactions(pb.ListMyTransactionsRequest())).transactions
    assert (mine.points, mine.reason, mine.actor.subject) == (30, "", "")
    own = ledger(shop, customer=member)
    refusal = await refused(own.GetBalance(pb.GetBalanceRequest(customer_id=other)))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED


async def test_roles(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 30)
    analyst = ledger(shop, "analyst")
    request = pb.RedeemPointsRequest(customer_id=member, points=1)
    assert (await refused(analyst.RedeemPoints(request))).code == grpc.StatusCode.PERMISSION_DENIED
    assert (await analyst.GetBalance(pb.GetBalanceRequest(customer_id=member))).balance == 30
    cashier = ledger(shop, "support")
    assert (await cashier.RedeemPoints(request)).points == -1


async def test_strangers_are_not_found(shop: Shop) -> None:
    stranger = str(uuid4())
    for call in (
        ledger(shop).GetBalance(pb.GetBalanceRequest(customer_id=stranger)),
        redeem(shop, stranger, 1),
        give(shop, stranger, 1),
        hold(shop, stranger, 1),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MEMBERSHIP_NOT_FOUND")
    assert (await refused(ledger(shop).GetHold(pb.GetHoldRequest(id=stranger)))).reason == "HOLD_NOT_FOUND"


async def test_runs_and_spending_at_once(shop: Shop) -> None:
    members = [await join(shop) for _ in range(6)]
    for member in members:
        for points in (10, 20, 30):
            await give(shop, member, points)
        await hold(shop, member, 15, ttl_seconds=1)
    lapsed = "case when points < 30 then now() - interval '1 second' else expires_at end"
    await after(shop, f"expires_at = {lapsed}")

    async def run() -> None:
        await in_ledger(shop, lambda tx: expiry.expire_lots(tx, 3))
        await in_ledger(shop, lambda tx: expiry.settle_due(tx, 3))

    spending = [redeem(shop, member, 5) for member in members for _ in range(4)]
    await asyncio.gather(*(run() for _ in range(12)), *spending, return_exceptions=True)
    while await in_ledger(shop, lambda tx: expiry.expire_lots(tx, 100)):
        pass
    assert await faults(shop) == []
    for member in members:
        found = await balance(shop, member)
        assert found.balance <= 30
