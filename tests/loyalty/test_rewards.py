"""Rewards are made, redeemed, used, cancelled and lapse; who may not is told why."""

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import grpc
import pytest
from sqlalchemy import text

from libs import clock
from libs.db import Tx
from libs.formats import written
from libs.instants import instant, stamp
from regulars.loyalty.v1 import events_pb2 as events
from regulars.loyalty.v1 import ledger_pb2 as ledger_pb
from regulars.loyalty.v1 import rewards_pb2 as pb
from services.loyalty.rewards import actions
from tests.customers.shop import Shop, refused
from tests.loyalty.catalogue import (
    add_pool,
    add_reward,
    cancel,
    change,
    faults,
    import_codes,
    look_up,
    mine,
    redeem,
    redemptions,
    reward_of,
    rewards,
    use,
)
from tests.loyalty.members import balance, give, in_ledger, join, ledger
from tests.platform import Stack, TenantOfTest

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def past(shop: Shop, code_of: pb.Redemption, **shift: float) -> None:
    """Moves the end of a code into the past, as if time had gone by."""
    await in_ledger(
        shop,
        lambda tx: tx.execute(
            text("update redemptions set expires_at = :at where redemption_id = :id"),
            {"at": clock.now() - timedelta(**shift), "id": code_of.id},
        ),
    )


async def test_a_reward_is_redeemed_used_and_tells_the_second_till(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 250)
    reward = await add_reward(shop, 100, terms="Not on Sundays", cost_money={"amount_minor": 199})
    assert (reward.active, reward.HasField("stock"), reward.HasField("published_at")) == (True, False, True)
    got = await redeem(shop, member, reward)
    assert (got.state, got.points, got.reward.name) == (pb.REDEMPTION_STATE_ISSUED, 100, "Five off")
    assert (got.reward.cost_money.amount_minor, got.reward.cost_money.currency) == (199, "USD")
    assert len(got.code) == 19
    paid = await ledger(shop).GetTransaction(ledger_pb.GetTransactionRequest(id=got.transaction_id))
    assert (paid.points, paid.source) == (-100, f"reward:{got.id}")
    assert [(reason.name, reason.points) for reason in paid.reasons] == [(reward.name, -100)]
    assert (await balance(shop, member)).balance == 150
    assert (await look_up(shop, f" {got.code.lower().replace('-', '')} ")).id == got.id
    used = await use(shop, got.code, place="Till 3", request_id="a")
    assert (used.state, used.place) == (pb.REDEMPTION_STATE_USED, "Till 3")
    assert await use(shop, got.code, place="Till 3", request_id="a") == used
    refusal = await refused(use(shop, got.code, place="Till 4", request_id="b"))
    assert (refusal.code, refusal.reason) == (PRECONDITION, "REDEMPTION_USED")
    assert refusal.metadata == {
        "used_at": written(instant(used.closed_at)),
        "place": "Till 3",
    }
    assert (await refused(cancel(shop, got.code))).reason == "REDEMPTION_USED"
    assert await faults(shop) == []


async def test_a_code_is_used_for_one_order(shop: Shop) -> None:
    member, order = await join(shop), str(uuid4())
    await give(shop, member, 250)
    got = await redeem(shop, member, await add_reward(shop))
    used = await use(shop, got.code, order_id=order)
    assert await use(shop, got.code, order_id=order) == used
    assert (await refused(use(shop, got.code, order_id=str(uuid4())))).reason == "REDEMPTION_USED"
    assert (await refused(use(shop, got.code))).reason == "REDEMPTION_USED"


async def test_cancelling_gives_points_and_stock_back(shop: Shop) -> None:
    member = await join(shop)
    first = await give(shop, member, 60, expires_at=stamp(clock.now() + timedelta(days=3)))
    await give(shop, member, 60)
    reward = await add_reward(shop, 100, stock=1)
    got = await redeem(shop, member, reward)
    assert (await reward_of(shop, reward)).stock_left == 0
    direct = ledger_pb.ReverseRedemptionRequest(id=got.transaction_id)
    assert (await refused(ledger(shop).ReverseRedemption(direct))).reason == "NOT_REVERSIBLE"
    back = await cancel(shop, got.code)
    assert back.state == pb.REDEMPTION_STATE_CANCELLED
    assert await cancel(shop, got.code) == back
    assert (await reward_of(shop, reward)).stock_left == 1
    found = await balance(shop, member)
    assert (found.balance, found.next_expiry_points) == (120, 60)
    assert found.next_expiry_at == first.lots[0].expires_at
    assert (await refused(use(shop, got.code))).reason == "REDEMPTION_CANCELLED"
    assert (await redeem(shop, member, reward)).code != got.code
    assert await faults(shop) == []


async def test_redeeming_twice_with_one_request_id_is_once(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 250)
    reward = await add_reward(shop)
    got = await redeem(shop, member, reward, request_id="once")
    assert await redeem(shop, member, reward, request_id="once") == got
    assert (await balance(shop, member)).balance == 150


async def test_what_stands_in_the_way_is_told(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 250)
    refusal = await refused(redeem(shop, member, await add_reward(shop, 300)))
    assert (refusal.code, refusal.reason) == (PRECONDITION, "INSUFFICIENT_POINTS")
    assert refusal.metadata == {"requested": "300", "spendable": "250", "missing": "50"}
    now = clock.now()
    for fields, reason in (
        ({"stock": 0}, "OUT_OF_STOCK"),
        ({"active": False}, "REWARD_INACTIVE"),
        ({"valid_from": stamp(now + timedelta(days=1))}, "REWARD_NOT_YET_VALID"),
        ({"valid_until": stamp(now - timedelta(days=1))}, "REWARD_NO_LONGER_VALID"),
        ({"tiers": ["gold"]}, "TIER_NOT_ELIGIBLE"),
        ({"segment_ids": [str(uuid4())]}, "SEGMENT_NOT_ELIGIBLE"),
        ({"code_pool_id": (await add_pool(shop)).id}, "OUT_OF_STOCK"),
    ):
        refusal = await refused(redeem(shop, member, await add_reward(shop, **fields)))
        assert (refusal.code, refusal.reason) == (PRECONDITION, reason)
    once = await add_reward(shop, 10, per_member_limit=1)
    await redeem(shop, member, once)
    refusal = await refused(redeem(shop, member, once))
    assert (refusal.reason, refusal.metadata) == ("LIMIT_REACHED", {"limit": "1", "redeemed": "1"})
    gone = await add_reward(shop, 10)
    await rewards(shop).DeleteReward(pb.DeleteRewardRequest(id=gone.id))
    for reward_id in (gone.id, str(uuid4())):
        refusal = await refused(redeem(shop, member, pb.Reward(id=reward_id)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "REWARD_NOT_FOUND")
    stranger = await refused(redeem(shop, str(uuid4()), once))
    assert stranger.reason == "MEMBERSHIP_NOT_FOUND"
    assert (await refused(use(shop, "NOPE-NOPE"))).reason == "REDEMPTION_NOT_FOUND"
    assert (await balance(shop, member)).balance == 240
    assert await faults(shop) == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": " "}, {"reward.name": "REQUIRED"}),
        ({"cost_points": 0}, {"reward.cost_points": "OUT_OF_RANGE"}),
        ({"kind": pb.REWARD_KIND_UNSPECIFIED}, {"reward.kind": "REQUIRED"}),
        ({"kind": pb.REWARD_KIND_DISCOUNT_PERCENT}, {"reward.percent": "REQUIRED"}),
        ({"kind": pb.REWARD_KIND_FREE_PRODUCT}, {"reward.sku": "REQUIRED"}),
        ({"kind": pb.REWARD_KIND_FREE_SHIPPING, "percent": 5}, {"reward.percent": "INVALID"}),
        ({"tiers": ["TIN"]}, {"reward.tiers": "UNKNOWN_TIER"}),
        (
            {"cost_money": {"amount_minor": 5, "currency": "EUR"}},
            {"reward.cost_money.currency": "CURRENCY_MISMATCH"},
        ),
        ({"amount": {"amount_minor": -5}}, {"reward.amount.amount_minor": "OUT_OF_RANGE"}),
    ],
)
async def test_a_reward_that_makes_no_sense_is_refused(
    shop: Shop, fields: dict[str, Any], wrong: dict[str, str]
) -> None:
    refusal = await refused(add_reward(shop, **fields))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, wrong)


async def test_rewards_are_changed_and_redemptions_stay(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 500)
    reward = await add_reward(shop, 100, per_member_limit=5)
    got = await redeem(shop, member, reward)
    changed = await change(
        shop, reward, name="Six off", cost_points=120, amount={"amount_minor": 600}, stock=3
    )
    assert (changed.name, changed.cost_points, changed.stock_left, changed.per_member_limit) == (
        "Six off",
        120,
        2,
        5,
    )
    assert (await refused(change(shop, reward, name="x", etag=reward.etag))).reason == "ETAG_MISMATCH"
    refusal = await refused(change(shop, reward, stock=0))
    assert (refusal.reason, refusal.metadata) == ("STOCK_TAKEN", {"taken": "1"})
    assert (await look_up(shop, got.code)).reward.amount.amount_minor == 500
    await cancel(shop, got.code)
    assert (await balance(shop, member)).balance == 500
    assert (await reward_of(shop, reward)).stock_left == 3
    free = await change(shop, reward, "stock", "per_member_limit")
    assert (free.HasField("stock"), free.per_member_limit) == (False, 0)
    off = await change(shop, reward, active=False)
    listed = (await rewards(shop).ListRewards(pb.ListRewardsRequest())).rewards
    assert list(listed) == [off]
    assert not (await rewards(shop).ListRewards(pb.ListRewardsRequest(active_only=True))).rewards
    assert await faults(shop) == []


async def test_codes_of_a_pool_are_given_once(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 500)
    pool = await add_pool(shop, "Abc-1", "abc-2")
    assert (pool.codes_total, pool.codes_left) == (2, 2)
    again = await import_codes(shop, pool, "ABC 1", "abc-3", "ABC-3")
    assert (again.added, list(again.duplicates), again.code_pool.codes_total) == (1, [0, 2], 3)
    other = await add_pool(shop)
    assert list((await import_codes(shop, other, "abc2")).duplicates) == [0]
    reward = await add_reward(shop, kind=pb.REWARD_KIND_VOUCHER_CODE, code_pool_id=pool.id)
    assert reward.stock_left == 3
    got = [await redeem(shop, member, reward) for _ in range(3)]
    assert [each.code for each in got] == ["Abc-1", "abc-2", "abc-3"]
    await cancel(shop, got[0].code)
    assert (await refused(redeem(shop, member, reward))).reason == "OUT_OF_STOCK"
    assert (await use(shop, "ABC2")).id == got[1].id
    assert list((await import_codes(shop, pool, "Abc-1")).duplicates) == [0]
    assert (await refused(import_codes(shop, pool, "a/b"))).code == grpc.StatusCode.INVALID_ARGUMENT
    assert await faults(shop) == []


async def test_a_code_past_its_time_is_expired_before_the_run_comes(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 500)
    reward = await add_reward(shop, code_valid_days=30)
    got = await redeem(shop, member, reward)
    days = (got.expires_at.ToDatetime() - got.issued_at.ToDatetime()).total_seconds() / 86_400
    assert 30 <= days <= 31
    await past(shop, got, minutes=5)
    assert (await look_up(shop, got.code)).state == pb.REDEMPTION_STATE_EXPIRED
    assert (await refused(use(shop, got.code))).reason == "REDEMPTION_EXPIRED"
    assert (await refused(cancel(shop, got.code))).reason == "REDEMPTION_EXPIRED"
    good = await redeem(shop, member, reward)
    await in_ledger(shop, lambda tx: actions.expire_redemptions(tx, 10))
    assert await in_ledger(shop, lambda tx: actions.expire_redemptions(tx, 10)) == 0
    found = await look_up(shop, got.code)
    assert (found.state, found.closed_at) == (pb.REDEMPTION_STATE_EXPIRED, found.expires_at)
    assert (await look_up(shop, good.code)).state == pb.REDEMPTION_STATE_ISSUED
    assert (await balance(shop, member)).balance == 300
    assert await faults(shop) == []


async def test_a_member_helps_itself(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    await give(shop, member, 150)
    cheap, dear = await add_reward(shop, 100, segment_ids=[]), await add_reward(shop, 200)
    await add_reward(shop, 1, active=False)
    me = mine(shop, member)
    seen = (await me.ListMyRewards(pb.ListMyRewardsRequest())).rewards
    assert [(each.reward.id, each.redeemable, each.refusal, each.missing_points) for each in seen] == [
        (cheap.id, True, "", 0),
        (dear.id, False, "INSUFFICIENT_POINTS", 50),
    ]
    got = await me.RedeemMyReward(pb.RedeemMyRewardRequest(reward_id=cheap.id))
    assert not got.HasField("issued_by")
    listed = await me.ListMyRedemptions(pb.ListMyRedemptionsRequest(good_only=True))
    assert [each.code for each in listed.redemptions] == [got.code]
    assert not (await mine(shop, other).ListMyRedemptions(pb.ListMyRedemptionsRequest())).redemptions
    own = redemptions(shop, customer=member)
    refusal = await refused(own.MarkUsed(pb.MarkUsedRequest(code=got.code)))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED


async def test_roles(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 250)
    reward = await add_reward(shop)
    wish = pb.RedeemRewardRequest(customer_id=member, reward_id=reward.id)
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert (await refused(redemptions(shop, "analyst").RedeemReward(wish))).code == denied
    got = await redemptions(shop, "support").RedeemReward(wish)
    listing = pb.ListRedemptionsRequest(customer_id=member)
    (shown,) = (await redemptions(shop, "analyst").ListRedemptions(listing)).redemptions
    assert (shown.id, shown.code) == (got.id, "")
    (shown,) = (await redemptions(shop, "support").ListRedemptions(listing)).redemptions
    assert (shown.code, bool(shown.issued_by.subject)) == (got.code, True)
    removal = pb.DeleteRewardRequest(id=reward.id)
    assert (await refused(rewards(shop, "support").DeleteReward(removal))).code == denied


async def test_redemptions_come_in_pages(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 500)
    reward = await add_reward(shop)
    made = [(await redeem(shop, member, reward)).id for _ in range(3)]
    request, seen = pb.ListRedemptionsRequest(customer_id=member, page_size=2), []
    while True:
        page = await redemptions(shop).ListRedemptions(request)
        seen += [each.id for each in page.redemptions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == made[::-1]


async def test_rewards_tell_what_becomes_of_them_and_never_the_code(
    shop: Shop, stack: Stack, tenant: TenantOfTest
) -> None:
    member = await join(shop)
    await give(shop, member, 500)
    later = await add_reward(shop, 10, valid_from=stamp(clock.now() + timedelta(days=1)))
    reward = await add_reward(shop, stock=5, code_valid_days=1)
    used, dropped, lapsed = [await redeem(shop, member, reward) for _ in range(3)]
    await use(shop, used.code)
    await cancel(shop, dropped.code)
    await past(shop, lapsed, minutes=1)
    await in_ledger(shop, lambda tx: actions.expire_redemptions(tx, 10))
    assert not (await reward_of(shop, later)).HasField("published_at")
    soon = await change(shop, later, "valid_from")
    assert soon.HasField("published_at")
    await change(shop, soon, active=False)
    await change(shop, soon, active=True)
    await redeem(shop, member, reward)

    subject = f"{stack.settings.prefix}customers.reward.*.{tenant.id}"
    sub = await stack.runtimes["loyalty"].js.subscribe(subject, ordered_consumer=True)
    heard: dict[str, list[tuple[str, int, int]]] = {}
    said = b""
    for _ in range(9):
        msg = await sub.next_msg(timeout=20)
        said += msg.data + str(msg.headers).encode()
        kind = msg.subject.split(".")[-2]
        if kind == "published":
            told = events.RewardPublished.FromString(msg.data)
            heard.setdefault(kind, []).append((told.reward_id, told.kind, told.cost_points))
        else:
            facts = events.RewardUsed.FromString(msg.data).redemption  # all four have the same form
            heard.setdefault(kind, []).append((facts.redemption_id, facts.state, facts.points))
            assert (facts.customer_id, facts.reward_id) == (member, reward.id)
    await sub.unsubscribe()
    amount = pb.REWARD_KIND_DISCOUNT_AMOUNT
    assert sorted(heard.pop("published")) == sorted([(reward.id, amount, 100), (later.id, amount, 10)])
    assert len(heard.pop("redeemed")) == 4
    assert heard == {
        "used": [(used.id, pb.REDEMPTION_STATE_USED, 100)],
        "cancelled": [(dropped.id, pb.REDEMPTION_STATE_CANCELLED, 100)],
        "expired": [(lapsed.id, pb.REDEMPTION_STATE_EXPIRED, 100)],
    }
    for got in (used, dropped, lapsed):
        assert got.code.encode() not in said


async def test_codes_are_nowhere_in_clear(shop: Shop) -> None:
    member = await join(shop)
    await give(shop, member, 500)
    pool = await add_pool(shop, "SENTINEL-ONE", "SENTINEL-TWO")
    reward = await add_reward(shop, code_pool_id=pool.id)
    made_up = await redeem(shop, member, await add_reward(shop))
    assert (await redeem(shop, member, reward)).code == "SENTINEL-ONE"
    kept = ""
    for table in ("redemptions", "pool_codes", "code_pools", "rewards", "idempotency_keys", "outbox"):
        query = text(f"select string_agg(to_jsonb(t)::text, ' ') from {table} t")
        kept += await in_ledger(shop, partial(Tx.scalar, statement=query)) or ""
    for word in ("SENTINEL", b"SENTINEL".hex(), made_up.code, made_up.code.encode().hex()):
        assert word not in kept
