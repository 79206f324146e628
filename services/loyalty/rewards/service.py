"""RPCs about rewards, pools of codes and redemptions."""

from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from sqlalchemy import Row

from libs import caller as callers
from libs import idempotency
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import rewards_pb2 as pb
from regulars.loyalty.v1.rewards_pb2_grpc import (
    MyRewardsServiceServicer,
    RedemptionsServiceServicer,
    RewardsServiceServicer,
)
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger.service import itself
from services.loyalty.ledger.wire import optional_id
from services.loyalty.problems import InsufficientPoints
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.rewards import actions, queries, rules, wire
from services.loyalty.tiers import queries as tiers

DEFAULT_PAGE = 50
CODES = "user.unique_id"


class RewardsService(RewardsServiceServicer):
    """See rewards.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateReward(self, request: pb.CreateRewardRequest, context: Context) -> pb.Reward:
        reward_id = new_id()
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            ladder = await tiers.ladder(tx, program.program_id)
            values = wire.new_reward(request.reward, program, ladder)
            done = await idempotency.claim(tx, request, reward_id)
            if not done:
                await actions.create_reward(tx, reward_id, program, values)
            return await self._reward(tx, done or reward_id)

    async def GetReward(self, request: pb.GetRewardRequest, context: Context) -> pb.Reward:
        async with self.rt.db.read() as tx:
            return await self._reward(tx, UUID(request.id))

    async def ListRewards(self, request: pb.ListRewardsRequest, context: Context) -> pb.ListRewardsResponse:
        size, after = request.page_size or DEFAULT_PAGE, self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            rows = await queries.page_of_rewards(
                tx,
                program.program_id,
                size=size + 1,
                before=after[0] if after else None,
                active_only=request.active_only,
                kinds=[int(kind) for kind in request.kinds],
            )
            codes = await queries.codes_of(tx, [row.pool_id for row in rows[:size]])
        token = self.rt.pages.next(request, [rows[size - 1].reward_id]) if len(rows) > size else ""
        found = [wire.reward(row, codes.get(row.pool_id)) for row in rows[:size]]
        return pb.ListRewardsResponse(rewards=found, next_page_token=token)

    async def UpdateReward(self, request: pb.UpdateRewardRequest, context: Context) -> pb.Reward:
        async with self.rt.db.tx() as tx:
            before = await queries.reward(tx, UUID(request.id), lock=True)
            program = programs.program_of(await programs.row(tx, before.program_id))
            ladder = await tiers.ladder(tx, program.program_id)
            values = wire.changed_reward(before, request.reward, request.update_mask, program, ladder)
            await actions.update_reward(tx, before, values, request.etag)
            return await self._reward(tx, before.reward_id)

    async def DeleteReward(self, request: pb.DeleteRewardRequest, context: Context) -> Empty:
        async with self.rt.db.tx() as tx:
            await actions.delete_reward(tx, await queries.reward(tx, UUID(request.id), lock=True))
        return Empty()

    async def CreateCodePool(self, request: pb.CreateCodePoolRequest, context: Context) -> pb.CodePool:
        pool_id = new_id()
        async with self.rt.db.tx() as tx:
            business_id = await programs.named(tx, request.business_id)
            done = await idempotency.claim(tx, request, pool_id)
            if not done:
                await actions.create_pool(tx, pool_id, business_id, request.code_pool.name)
            return await self._pool(tx, done or pool_id)

    async def GetCodePool(self, request: pb.GetCodePoolRequest, context: Context) -> pb.CodePool:
        async with self.rt.db.read() as tx:
            return await self._pool(tx, UUID(request.id))

    async def ListCodePools(
        self, request: pb.ListCodePoolsRequest, context: Context
    ) -> pb.ListCodePoolsResponse:
        size, after = request.page_size or DEFAULT_PAGE, self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            business_id = await programs.named(tx, request.business_id)
            rows = await queries.pools(tx, business_id, size=size + 1, before=after[0] if after else None)
            codes = await queries.codes_of(tx, [row.pool_id for row in rows[:size]])
        token = self.rt.pages.next(request, [rows[size - 1].pool_id]) if len(rows) > size else ""
        found = [wire.pool(row, codes.get(row.pool_id)) for row in rows[:size]]
        return pb.ListCodePoolsResponse(code_pools=found, next_page_token=token)

    async def ImportCodes(self, request: pb.ImportCodesRequest, context: Context) -> pb.ImportCodesResponse:
        async with self.rt.db.tx() as tx:
            pool = await queries.pool(tx, UUID(request.code_pool_id))
            duplicates = await actions.import_codes(tx, _keys(self.rt), pool, list(request.codes))
            message = await self._pool(tx, pool.pool_id)
        return pb.ImportCodesResponse(
            code_pool=message, added=len(request.codes) - len(duplicates), duplicates=duplicates
        )

    @staticmethod
    async def _reward(tx: Tx, reward_id: UUID) -> pb.Reward:
        row = await queries.reward(tx, reward_id)
        return wire.reward(row, (await queries.codes_of(tx, [row.pool_id])).get(row.pool_id))

    @staticmethod
    async def _pool(tx: Tx, pool_id: UUID) -> pb.CodePool:
        row = await queries.pool(tx, pool_id)
        return wire.pool(row, (await queries.codes_of(tx, [pool_id])).get(pool_id))


class RedemptionsService(RedemptionsServiceServicer):
    """See rewards.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def RedeemReward(self, request: pb.RedeemRewardRequest, context: Context) -> pb.Redemption:
        return await redeem(self.rt, request, UUID(request.customer_id), own=False)

    async def GetRedemption(self, request: pb.GetRedemptionRequest, context: Context) -> pb.Redemption:
        with self.rt.audit.reading(CODES) as reading:
            async with self.rt.db.tx() as tx:
                row = await queries.by_code(tx, _keys(self.rt), request.code, request.business_id)
                return wire.redemption(row, tx.now, code=code_of(self.rt, reading, row))

    async def ListRedemptions(
        self, request: pb.ListRedemptionsRequest, context: Context
    ) -> pb.ListRedemptionsResponse:
        seen = callers.current().may("loyalty.redeem")
        with self.rt.audit.reading(CODES) as reading:
            async with self.rt.db.read() as tx:
                program = await programs.meant(tx, request.business_id, request.program_id)
                rows, token = await page(self.rt, tx, request, program, UUID(request.customer_id))
            found = [
                wire.redemption(row, tx.now, code=code_of(self.rt, reading, row) if seen else "")
                for row in rows
            ]
        return pb.ListRedemptionsResponse(redemptions=found, next_page_token=token)

    async def MarkUsed(self, request: pb.MarkUsedRequest, context: Context) -> pb.Redemption:
        order_id = optional_id(request.order_id)
        with self.rt.audit.reading(CODES) as reading:
            async with self.rt.db.tx() as tx:
                before = await queries.by_code(
                    tx, _keys(self.rt), request.code, request.business_id, lock=True
                )
                if not await idempotency.claim(tx, request, before.redemption_id):
                    await actions.mark_used(tx, before, request.place.strip(), order_id)
                return await _redemption(self.rt, tx, reading, before.redemption_id)

    async def CancelRedemption(self, request: pb.CancelRedemptionRequest, context: Context) -> pb.Redemption:
        with self.rt.audit.reading(CODES) as reading:
            async with self.rt.db.tx() as tx:
                before = await queries.by_code(
                    tx, _keys(self.rt), request.code, request.business_id, lock=True
                )
                if not await idempotency.claim(tx, request, before.redemption_id):
                    await actions.cancel_redemption(tx, before)
                return await _redemption(self.rt, tx, reading, before.redemption_id)


class MyRewardsService(MyRewardsServiceServicer):
    """See rewards.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def ListMyRewards(
        self, request: pb.ListMyRewardsRequest, context: Context
    ) -> pb.ListMyRewardsResponse:
        me = itself()
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            await ledger.member(tx, program.business_id, me)
            rows = await queries.on_offer(tx, program.program_id)
            codes = await queries.codes_of(tx, [row.pool_id for row in rows])
            facts = await queries.facts(tx, program, me, [row.reward_id for row in rows])
        found = []
        for row in rows:
            reward = wire.reward_rules(row, codes.get(row.pool_id))
            refused = rules.refusal(reward, facts[row.reward_id], tx.now)
            missing = max(row.cost_points - facts[row.reward_id].spendable, 0)
            found.append(
                pb.MyReward(
                    reward=wire.shown(row, codes.get(row.pool_id)),
                    redeemable=refused is None,
                    refusal=refused.reason if refused else "",
                    missing_points=missing if isinstance(refused, InsufficientPoints) else 0,
                )
            )
        return pb.ListMyRewardsResponse(rewards=found)

    async def RedeemMyReward(self, request: pb.RedeemMyRewardRequest, context: Context) -> pb.Redemption:
        return await redeem(self.rt, request, itself(), own=True)

    async def ListMyRedemptions(
        self, request: pb.ListMyRedemptionsRequest, context: Context
    ) -> pb.ListMyRedemptionsResponse:
        me = itself()
        with self.rt.audit.reading(CODES) as reading:
            async with self.rt.db.read() as tx:
                program = await programs.meant(tx, request.business_id, request.program_id)
                rows, token = await page(self.rt, tx, request, program, me)
            found = [
                wire.redemption(row, tx.now, code=code_of(self.rt, reading, row), own=True) for row in rows
            ]
        return pb.ListMyRedemptionsResponse(redemptions=found, next_page_token=token)


async def redeem(
    rt: Runtime,
    request: pb.RedeemRewardRequest | pb.RedeemMyRewardRequest,
    customer_id: UUID,
    *,
    own: bool,
) -> pb.Redemption:
    """What a member got for a reward, now or when the request came first."""
    redemption_id = new_id()
    with rt.audit.reading(CODES) as reading:
        async with rt.db.tx() as tx:
            done = await idempotency.claim(tx, request, redemption_id)
            if not done:
                await actions.redeem_reward(
                    tx, _keys(rt), reading, UUID(request.reward_id), customer_id, redemption_id
                )
            return await _redemption(rt, tx, reading, done or redemption_id, own=own)


async def page(
    rt: Runtime, tx: Tx, request: Any, program: Program, customer_id: UUID
) -> tuple[list[Row[Any]], str]:
    """A page of a member's redemptions, and the token of the next one. Raises MembershipNotFound."""
    size, after = request.page_size or DEFAULT_PAGE, rt.pages.after(request)
    await ledger.member(tx, program.business_id, customer_id)
    account = await ledger.account_id(tx, program.program_id, customer_id)
    if account is None:
        return [], ""
    rows = await queries.page_of_redemptions(
        tx, account, size=size + 1, before=after[0] if after else None, good_only=request.good_only
    )
    token = rt.pages.next(request, [rows[size - 1].redemption_id]) if len(rows) > size else ""
    return rows[:size], token


def code_of(rt: Runtime, reading: Reading, row: Row[Any]) -> str:
    """The code of a redemption; nothing once the member's key is destroyed."""
    if row.wrapped is None:
        return ""
    keys = _keys(rt)
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    opened = keys.open(reading, row.customer_id, key, queries.SEALED, row.redemption_id, row.sealed)
    return opened.decode()


async def _redemption(
    rt: Runtime, tx: Tx, reading: Reading, redemption_id: UUID, *, own: bool = False
) -> pb.Redemption:
    row = await queries.redemption(tx, redemption_id)
    return wire.redemption(row, tx.now, code=code_of(rt, reading, row), own=own)


def _keys(rt: Runtime) -> TenantKeys:
    return rt.keys.for_tenant(callers.current().tenant())
