"""Rewards under a rush: what is there is given out once, and what is cancelled comes back exactly."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from libs import clock
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from regulars.loyalty.v1 import rewards_pb2 as pb
from services.loyalty.ledger.tables import accounts
from services.loyalty.merges import actions as merges
from services.loyalty.rewards import actions
from services.loyalty.rewards.tables import redemptions as redeemed
from tests.customers.shop import Shop, refusal_of
from tests.loyalty.catalogue import (
    add_pool,
    add_reward,
    cancel,
    change,
    faults,
    import_codes,
    look_up,
    redeem,
    reward_of,
    use,
)
from tests.loyalty.members import balance, give, in_ledger, join


async def rush(calls: Sequence[Awaitable[Any]]) -> tuple[list[Any], Counter[str]]:
    """What succeeded of calls at once, and how often each refusal came."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    done = [each for each in ended if not isinstance(each, BaseException)]
    refusals: Counter[str] = Counter()
    for each in ended:
        if isinstance(each, grpc.aio.AioRpcError):
            refusals[refusal_of(each).reason] += 1
        elif isinstance(each, BaseException):
            raise each
    return done, refusals


async def members(shop: Shop, number: int, points: int = 100) -> list[str]:
    """New members with points."""
    found = [await join(shop) for _ in range(number)]
    for each in found:
        await give(shop, each, points)
    return found


async def test_the_last_one_in_stock_goes_to_one_of_twenty(shop: Shop) -> None:
    wishing = await members(shop, 20)
    reward = await add_reward(shop, 100, stock=1)
    got, refusals = await rush([redeem(shop, each, reward) for each in wishing])
    assert (len(got), refusals) == (1, {"OUT_OF_STOCK": 19})
    assert (await reward_of(shop, reward)).stock_left == 0
    left = [(await balance(shop, each)).balance for each in wishing]
    assert sorted(left) == [0, *[100] * 19]
    assert await faults(shop) == []


async def test_one_balance_and_one_limit_under_twenty_redemptions(shop: Shop) -> None:
    (member,) = await members(shop, 1)
    reward = await add_reward(shop, 30)
    got, refusals = await rush([redeem(shop, member, reward) for _ in range(20)])
    assert (len(got), refusals) == (3, {"INSUFFICIENT_POINTS": 17})
    assert len({each.code for each in got}) == 3
    await give(shop, member, 1_000)
    once = await add_reward(shop, 30, per_member_limit=2)
    got, refusals = await rush([redeem(shop, member, once) for _ in range(20)])
    assert (len(got), refusals) == (2, {"LIMIT_REACHED": 18})
    assert (await balance(shop, member)).balance == 10 + 1_000 - 60
    assert await faults(shop) == []


async def test_the_last_code_of_a_pool_goes_to_one(shop: Shop) -> None:
    wishing = await members(shop, 8)
    pool = await add_pool(shop, "LAST-ONE")
    reward = await add_reward(shop, 100, kind=pb.REWARD_KIND_VOUCHER_CODE, code_pool_id=pool.id)
    got, refusals = await rush([redeem(shop, each, reward) for each in wishing])
    assert ([each.code for each in got], refusals) == (["LAST-ONE"], {"OUT_OF_STOCK": 7})
    assert sum([(await balance(shop, each)).balance for each in wishing]) == 700
    assert await faults(shop) == []


async def test_a_code_is_used_at_one_of_many_tills(shop: Shop) -> None:
    (member,) = await members(shop, 1)
    got = await redeem(shop, member, await add_reward(shop, 50))
    used, refusals = await rush([use(shop, got.code, place=f"Till {n}") for n in range(10)])
    assert (len(used), refusals) == (1, {"REDEMPTION_USED": 9})
    assert (await look_up(shop, got.code)).place == used[0].place


async def test_a_code_is_used_or_cancelled_never_both(shop: Shop) -> None:
    (member,) = await members(shop, 1)
    reward = await add_reward(shop, 10, stock=10)
    used_ones = 0
    for n in range(6):
        got = await redeem(shop, member, reward)
        both = [use(shop, got.code), cancel(shop, got.code)]
        done, _ = await rush(both if n % 2 else both[::-1])
        assert len(done) == 1
        used_ones += done[0].state == pb.REDEMPTION_STATE_USED
    assert (await balance(shop, member)).balance == 100 - 10 * used_ones
    assert (await reward_of(shop, reward)).stock_left == 10 - used_ones
    assert await faults(shop) == []


async def test_one_request_sent_ten_times_at_once_is_one_redemption(shop: Shop) -> None:
    (member,) = await members(shop, 1)
    reward = await add_reward(shop, 10, stock=5)
    got, refusals = await rush([redeem(shop, member, reward, request_id="r") for _ in range(10)])
    assert (len({each.code for each in got}), refusals) == (1, {})
    assert (await balance(shop, member)).balance == 90


async def test_a_stock_that_is_set_amid_a_rush_is_exact(shop: Shop) -> None:
    (member,) = await members(shop, 1, 1_000)
    reward = await add_reward(shop, 10)

    async def again() -> Any:  # CONFLICT: the reward got its stock just then; the same call may succeed
        while True:
            try:
                return await redeem(shop, member, reward)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.ABORTED:
                    raise

    calls = [again() for _ in range(12)]
    calls.insert(6, change(shop, reward, stock=12))
    done, refusals = await rush(calls)
    assert (len(done), refusals) == (13, {})
    assert (await reward_of(shop, reward)).stock_left == 0


async def test_two_batches_of_the_same_codes_add_each_once(shop: Shop) -> None:
    pool = await add_pool(shop)
    codes = [f"CODE-{n:03}" for n in range(50)]
    done, _ = await rush([import_codes(shop, pool, *codes), import_codes(shop, pool, *codes[::-1])])
    assert sum(each.added for each in done) == 50
    assert sum(len(each.duplicates) for each in done) == 50


class Died(Exception):
    """What happens to a process that is killed before it commits."""


async def test_who_dies_before_the_commit_has_done_nothing(shop: Shop) -> None:
    (member,) = await members(shop, 1)
    pool = await add_pool(shop, "ONE")
    reward = await add_reward(
        shop, 100, kind=pb.REWARD_KIND_VOUCHER_CODE, code_pool_id=pool.id, stock=5, per_member_limit=1
    )
    runtime = shop.tenant.stack.runtimes["loyalty"]

    async def half(tx: Tx) -> None:
        with runtime.audit.reading("user.unique_id") as reading:
            keys = runtime.keys.for_tenant(tx.tenant_id)
            await actions.redeem_reward(tx, keys, reading, UUID(reward.id), UUID(member), new_id())
        raise Died

    with pytest.raises(Died):
        await in_ledger(shop, half)
    assert await reward_of(shop, reward) == reward
    assert (await balance(shop, member)).balance == 100
    assert (await redeem(shop, member, reward)).code == "ONE"
    assert await faults(shop) == []


async def lots_of(shop: Shop, member: str) -> list[tuple[Any, ...]]:
    """A member's lots: what is left of each, what is held, when it lapses."""
    query = text("""
        select l.lot_id, l.points, l.remaining, l.held, l.expires_at from lots l
        join accounts a on a.tenant_id = l.tenant_id and a.account_id = l.account_id
        where a.customer_id = :member order by 1
    """)
    rows = await in_ledger(shop, lambda tx: tx.execute(query, {"member": member}))
    return [tuple(row) for row in rows]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lots=st.lists(st.tuples(st.integers(1, 40), st.none() | st.integers(1, 60)), min_size=1, max_size=4),
    cost=st.integers(1, 25),
    story=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=8),
)
async def test_cancelling_restores_lots_and_stock_exactly(
    shop: Shop, lots: list[tuple[int, int | None]], cost: int, story: list[tuple[bool, int]]
) -> None:
    member = await join(shop)
    for points, days in lots:
        until = {"expires_at": stamp(clock.now() + timedelta(days=days))} if days else {}
        await give(shop, member, points, **until)
    reward = await add_reward(shop, cost, stock=3, per_member_limit=3)
    before, total = await lots_of(shop, member), sum(points for points, _ in lots)
    live: list[str] = []
    for wants, which in story:
        if wants:
            got, _ = await rush([redeem(shop, member, reward)])
            assert bool(got) == (len(live) < 3 and total - cost * len(live) >= cost)
            live += [each.code for each in got]
        elif live:
            await cancel(shop, live.pop(which % len(live)))
        assert (await balance(shop, member)).balance == total - cost * len(live)
        assert (await reward_of(shop, reward)).stock_left == 3 - len(live)
    for code in live:
        await cancel(shop, code)
    assert await lots_of(shop, member) == before
    assert (await reward_of(shop, reward)).stock_left == 3
    assert await faults(shop) == []


_BEHIND = text(
    "select exists (select from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid)))"
)


async def test_a_merge_waits_for_a_redemption_before_it_takes_the_account(shop: Shop) -> None:
    """Whoever cancels takes the redemption first and the account then; a merge does the same."""
    source, target = await join(shop), await join(shop)
    await give(shop, source, 500)
    issued = await redeem(shop, source, await add_reward(shop))
    held = asyncio.Event()

    async def cancelling(tx: Tx) -> None:
        mine = redeemed.c.tenant_id == tx.tenant_id, redeemed.c.redemption_id == UUID(issued.id)
        await tx.execute(select(redeemed).where(*mine).with_for_update())
        held.set()
        async with asyncio.timeout(20):
            while not await tx.scalar(_BEHIND):  # noqa: ASYNC110 – nobody tells us
                await asyncio.sleep(0.01)
        theirs = accounts.c.tenant_id == tx.tenant_id, accounts.c.customer_id == UUID(source)
        await tx.execute(select(accounts).where(*theirs).with_for_update())

    async def merging(tx: Tx) -> None:
        await merges.apply_merge(tx, merges.Merge(new_id(), UUID(source), UUID(target)))

    cancel_first = asyncio.create_task(in_ledger(shop, cancelling))
    await held.wait()
    await in_ledger(shop, merging)
    await cancel_first
    assert (await cancel(shop, issued.code)).state == pb.REDEMPTION_STATE_CANCELLED
    assert (await balance(shop, target)).balance == 500
    assert not await faults(shop)
