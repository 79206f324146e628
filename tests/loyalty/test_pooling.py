"""Members of a household spend each other's points: at the till, on rewards, in a rush, and back again."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from regulars.customers.v1 import customers_pb2 as customers
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1 import rewards_pb2 as rewards
from regulars.loyalty.v1.loyalty_pb2 import GetMembershipRequest, Membership
from regulars.loyalty.v1.loyalty_pb2_grpc import LoyaltyServiceStub
from services.loyalty.households import jobs
from services.loyalty.ledger.jobs import book_what_holds
from tests.customers.shop import Shop, refused
from tests.loyalty import catalogue
from tests.loyalty.members import (
    balance,
    buy,
    cancelled,
    faults,
    give,
    has,
    ledger,
    set_program,
    transactions,
    until,
)
from tests.loyalty.sharing import household
from tests.loyalty.test_ledger import after, hold, redeem, soon
from tests.loyalty.test_rewards_races import rush


async def view(shop: Shop, customer_id: str) -> Membership:
    found: Membership = await shop.calls(LoyaltyServiceStub).GetMembership(
        GetMembershipRequest(customer_id=customer_id)
    )
    return found


async def balances(shop: Shop, people: list[str]) -> list[int]:
    return [(await balance(shop, each)).balance for each in people]


async def sweep(shop: Shop) -> None:
    await jobs.give_back(shop.tenant.stack.runtimes["loyalty"])


async def test_what_one_lacks_comes_from_the_others_and_goes_back_to_them(shop: Shop) -> None:
    settings: dict[str, Any] = {"transferable_points_per_month": 1, "transfers_allowed": True}
    made, (ann, ben, eve) = await household(shop, 10, 30, 40, **settings)
    first = await give(shop, eve, 20, expires_at=soon(days=2))
    assert (await view(shop, ann)).pooled_spendable == 100
    refusal = await refused(redeem(shop, ann, 101))
    assert (refusal.reason, refusal.metadata) == (
        "INSUFFICIENT_POINTS",
        {"requested": "101", "spendable": "100", "missing": "1"},
    )
    spent = await redeem(shop, ann, 45, request_id="lunch")
    assert await redeem(shop, ann, 45, request_id="lunch") == spent
    assert (spent.points, spent.opening_balance, spent.closing_balance) == (-45, 45, 0)
    assert await balances(shop, [ann, ben, eve]) == [0, 15, 40]  # eve's gift lapses first
    (given,) = [each for each in await transactions(shop, eve) if each.type == pb.TRANSACTION_TYPE_TRANSFER]
    assert (given.points, given.source) == (-20, f"household:{made.id}")
    other = await ledger(shop).GetTransaction(pb.GetTransactionRequest(id=given.counterpart_id))
    assert (other.customer_id, other.points, other.counterpart_id) == (ann, 20, given.id)
    assert (await balance(shop, eve)).lifetime == 0
    seen = await view(shop, ann)
    assert (seen.household_id, seen.points.spendable, seen.pooled_spendable) == (made.id, 0, 55)
    # What is shared does not count to the limit of what is given away.
    to = pb.TransferPointsRequest(from_customer_id=eve, to_customer_id=ben, points=1)
    await ledger(shop).TransferPoints(to)

    back = await ledger(shop).ReverseRedemption(pb.ReverseRedemptionRequest(id=spent.id))
    assert (back.points, await balances(shop, [ann, ben, eve])) == (45, [10, 31, 59])
    returned = (await transactions(shop, eve))[0]
    shown = await ledger(shop).GetTransaction(pb.GetTransactionRequest(id=returned.id))
    assert [(share.lot_id, share.points) for share in shown.lots] == [(first.lots[0].lot_id, 20)]
    assert (await balance(shop, eve)).next_expiry_points == 20
    await ledger(shop).ReverseRedemption(pb.ReverseRedemptionRequest(id=spent.id))
    assert await balances(shop, [ann, ben, eve]) == [10, 31, 59]

    await set_program(shop, pooling_allowed=False)
    assert (await refused(redeem(shop, ann, 11))).metadata["spendable"] == "10"
    assert (await view(shop, ann)).household_id == ""
    assert await faults(shop) == []


async def test_a_reward_is_paid_together_and_cancelled(shop: Shop) -> None:
    _, people = await household(shop, 60, 50)
    ann = people[0]
    reward = await catalogue.add_reward(shop, 100)
    dear = await catalogue.add_reward(shop, 111)
    listed = await catalogue.mine(shop, ann).ListMyRewards(rewards.ListMyRewardsRequest())
    assert [(each.reward.id, each.redeemable, each.missing_points) for each in listed.rewards] == [
        (reward.id, True, 0),
        (dear.id, False, 1),
    ]
    assert (await refused(catalogue.redeem(shop, ann, dear))).metadata["spendable"] == "110"
    got = await catalogue.redeem(shop, ann, reward)
    assert await balances(shop, people) == [0, 10]
    await catalogue.cancel(shop, got.code)
    assert await balances(shop, people) == [60, 50]
    assert await catalogue.faults(shop) == []


async def test_held_points_of_others_go_back_when_they_are_not_spent(shop: Shop) -> None:
    _, people = await household(shop, 10, 90)
    ann, ben = people
    held = await hold(shop, ann, 40)
    assert await balances(shop, people) == [40, 60]
    assert (await refused(redeem(shop, ben, 61))).metadata["spendable"] == "60"
    await ledger(shop).CaptureHold(pb.CaptureHoldRequest(id=held.id, points=15))
    assert await balances(shop, people) == [0, 85]
    held = await hold(shop, ben, 85)
    assert (await refused(hold(shop, ann, 1))).reason == "INSUFFICIENT_POINTS"
    await ledger(shop).ReleaseHold(pb.ReleaseHoldRequest(id=held.id))
    await hold(shop, ann, 30, ttl_seconds=1)

    async def lapsed() -> bool:
        return (await balance(shop, ann)).held == 0

    await until(lapsed)
    assert await balances(shop, people) == [30, 55]
    await book_what_holds(shop.tenant.stack.runtimes["loyalty"])
    for _ in range(2):
        await sweep(shop)
    assert (await balances(shop, people), await faults(shop)) == ([0, 85], [])


async def test_an_order_that_comes_back_gives_others_their_points(shop: Shop) -> None:
    _, people = await household(shop, 10, 20)
    ann = people[0]
    order_id = await buy(shop, ann, 99, external_id="o1")
    await redeem(shop, ann, 25, order_id=order_id)
    assert await balances(shop, people) == [0, 5]
    await cancelled(shop, ann, "o1", 99, 2)
    await has(shop, ann, 25)
    await sweep(shop)
    assert (await balances(shop, people), await faults(shop)) == ([10, 20], [])


async def test_frozen_points_are_nobodys(shop: Shop) -> None:
    _, people = await household(shop, 10, 20, 30)
    ann, ben, _ = people
    blocked = customers.Customer(status=customers.CUSTOMER_STATUS_BLOCKED)
    await shop.customers.UpdateCustomer(
        customers.UpdateCustomerRequest(id=ben, customer=blocked, update_mask=FieldMask(paths=["status"]))
    )

    async def without() -> bool:
        return (await view(shop, ann)).pooled_spendable == 40

    await until(without)
    assert (await refused(redeem(shop, ann, 41))).metadata["spendable"] == "40"
    assert (await refused(redeem(shop, ben, 1))).reason == "MEMBERSHIP_FROZEN"
    assert (await view(shop, ben)).pooled_spendable == 20
    await redeem(shop, ann, 40)
    assert (await balances(shop, people), await faults(shop)) == ([0, 20, 0], [])


async def test_points_that_lapsed_at_others_are_not_drawn(shop: Shop) -> None:
    _, people = await household(shop, 0, 20)
    await after(shop, "expires_at = earned_at")
    assert (await refused(redeem(shop, people[0], 1))).metadata["spendable"] == "0"


async def test_a_rush_never_spends_more_than_there_is(shop: Shop) -> None:
    _, people = await household(shop, 30, 50, 45, 0)
    reward = await catalogue.add_reward(shop, 10)
    calls: list[Any] = [redeem(shop, people[i % 4], 7, request_id=f"r{i // 2}-{i % 4}") for i in range(16)]
    calls += [hold(shop, people[i % 4], 9) for i in range(8)]
    calls += [catalogue.redeem(shop, people[i % 4], reward) for i in range(8)]
    done, refusals = await rush(calls)
    assert set(refusals) <= {"INSUFFICIENT_POINTS"}
    assert refusals["INSUFFICIENT_POINTS"]
    spent = {each.id: -each.points for each in done if isinstance(each, pb.Transaction)}
    held = sum(each.points for each in done if isinstance(each, pb.Hold))
    bought = 10 * sum(isinstance(each, rewards.Redemption) for each in done)
    left = (await view(shop, people[0])).pooled_spendable
    assert sum(spent.values()) + held + bought + left == 125
    assert await catalogue.faults(shop) == []
