"""Rewards of a shop for tests: what there is, and what members get."""

from typing import Any
from uuid import UUID

from regulars.loyalty.v1 import rewards_pb2 as pb
from regulars.loyalty.v1.rewards_pb2_grpc import (
    MyRewardsServiceStub,
    RedemptionsServiceStub,
    RewardsServiceStub,
)
from services.loyalty.rewards import checks
from tests.customers.shop import Shop
from tests.loyalty import members

MONEY_OFF: dict[str, Any] = {"kind": pb.REWARD_KIND_DISCOUNT_AMOUNT, "amount": {"amount_minor": 500}}


def rewards(shop: Shop, *roles: str) -> RewardsServiceStub:
    """Calls about rewards and pools."""
    found: RewardsServiceStub = shop.calls(RewardsServiceStub, *roles)
    return found


def redemptions(shop: Shop, *roles: str, **claims: Any) -> RedemptionsServiceStub:
    """Calls about redemptions."""
    found: RedemptionsServiceStub = shop.calls(RedemptionsServiceStub, *roles, **claims)
    return found


def mine(shop: Shop, customer_id: str) -> MyRewardsServiceStub:
    """Calls of a member."""
    found: MyRewardsServiceStub = shop.calls(MyRewardsServiceStub, customer=customer_id)
    return found


async def add_reward(shop: Shop, cost_points: int = 100, **fields: Any) -> pb.Reward:
    """A reward of the shop's default program."""
    fields = {"name": "Five off", **({} if "kind" in fields else MONEY_OFF), **fields}
    reward = pb.Reward(cost_points=cost_points, **fields)
    return await rewards(shop).CreateReward(pb.CreateRewardRequest(reward=reward))


async def change(shop: Shop, reward: pb.Reward, *mask: str, etag: str = "", **fields: Any) -> pb.Reward:
    """The reward after a change."""
    request = pb.UpdateRewardRequest(id=reward.id, reward=pb.Reward(**fields), etag=etag)
    request.update_mask.paths.extend(mask)
    return await rewards(shop).UpdateReward(request)


async def add_pool(shop: Shop, *codes: str) -> pb.CodePool:
    """A pool with these codes."""
    request = pb.CreateCodePoolRequest(code_pool=pb.CodePool(name="Partner"))
    pool = await rewards(shop).CreateCodePool(request)
    if not codes:
        return pool
    return (await import_codes(shop, pool, *codes)).code_pool


async def import_codes(shop: Shop, pool: pb.CodePool, *codes: str) -> pb.ImportCodesResponse:
    """What became of a batch."""
    return await rewards(shop).ImportCodes(pb.ImportCodesRequest(code_pool_id=pool.id, codes=codes))


async def redeem(shop: Shop, customer_id: str, reward: pb.Reward, **fields: Any) -> pb.Redemption:
    """What a member gets for points."""
    request = pb.RedeemRewardRequest(customer_id=customer_id, reward_id=reward.id, **fields)
    return await redemptions(shop).RedeemReward(request)


async def use(shop: Shop, code: str, **fields: Any) -> pb.Redemption:
    """A code after its use."""
    return await redemptions(shop).MarkUsed(pb.MarkUsedRequest(code=code, **fields))


async def cancel(shop: Shop, code: str, **fields: Any) -> pb.Redemption:
    """A code after its cancellation."""
    return await redemptions(shop).CancelRedemption(pb.CancelRedemptionRequest(code=code, **fields))


async def look_up(shop: Shop, code: str) -> pb.Redemption:
    """The redemption of a code."""
    return await redemptions(shop).GetRedemption(pb.GetRedemptionRequest(code=code))


async def reward_of(shop: Shop, reward: pb.Reward) -> pb.Reward:
    """The reward as it is now."""
    return await rewards(shop).GetReward(pb.GetRewardRequest(id=reward.id))


async def faults(shop: Shop) -> list[Any]:
    """Where ledger, redemptions, stocks and pools of the shop do not agree."""
    found: list[Any] = await members.in_ledger(shop, lambda tx: checks.faults(tx, UUID(shop.id)))
    return found + await members.faults(shop)
