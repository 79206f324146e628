"""Who may redeem what, what a code looks like, and what may become of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from libs.formats import written
from services.loyalty.problems import (
    InsufficientPoints,
    LimitReached,
    OutOfStock,
    RedemptionCancelled,
    RedemptionExpired,
    RedemptionUsed,
    RewardInactive,
    RewardNoLongerValid,
    RewardNotYetValid,
    SegmentNotEligible,
    TierNotEligible,
)
from services.loyalty.programs.rules import beginning

# RedemptionState
ISSUED, USED, CANCELLED, EXPIRED = 1, 2, 3, 4

# Crockford's base 32: nothing in it is taken for something else. 16 of them are 80 bits.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_BYTES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What decides about redeeming a reward. `left` is what stock and pool have left; None: no limit."""

    reward_id: UUID
    cost_points: int
    active: bool = True
    left: int | None = None
    per_member_limit: int = 0
    tiers: Sequence[str] = ()
    segments: Sequence[str] = ()
    valid_from: datetime | None = None
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of a member: points to spend with the household's help, tier, ids of segments.

    `redeemed`: how often they redeemed this reward.
    """

    spendable: int
    tier: str = ""
    segments: frozenset[str] = frozenset()
    redeemed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """What decides about a code that was issued."""

    state: int
    expires_at: datetime | None = None
    closed_at: datetime | None = None
    place: str = ""
    order_id: UUID | None = None


Refusal = (
    RewardInactive
    | RewardNotYetValid
    | RewardNoLongerValid
    | SegmentNotEligible
    | TierNotEligible
    | LimitReached
    | OutOfStock
    | InsufficientPoints
)


def refusal(reward: Reward, member: Facts, now: datetime) -> Refusal | None:
    """What stands in the way of a member who wants a reward; None if nothing does."""
    if not reward.active:
        return RewardInactive()
    if reward.valid_from is not None and now < reward.valid_from:
        return RewardNotYetValid(valid_from=written(reward.valid_from))
    if reward.valid_until is not None and now >= reward.valid_until:
        return RewardNoLongerValid(valid_until=written(reward.valid_until))
    if reward.segments and member.segments.isdisjoint(each.casefold() for each in reward.segments):
        return SegmentNotEligible()
    if reward.tiers and member.tier.casefold() not in {tier.casefold() for tier in reward.tiers}:
        return TierNotEligible(tier=member.tier, tiers=",".join(reward.tiers))
    if reward.per_member_limit and member.redeemed >= reward.per_member_limit:
        return LimitReached(limit=reward.per_member_limit, redeemed=member.redeemed)
    if reward.left is not None and reward.left <= 0:
        return OutOfStock()
    if member.spendable < reward.cost_points:
        missing = reward.cost_points - member.spendable
        return InsufficientPoints(requested=reward.cost_points, spendable=member.spendable, missing=missing)
    return None


def state_now(redemption: Redemption, now: datetime) -> int:
    """Where a redemption stands, whether or not its expiry was booked."""
    past = redemption.expires_at is not None and redemption.expires_at <= now
    return EXPIRED if redemption.state == ISSUED and past else redemption.state


def use(redemption: Redemption, order_id: UUID | None, now: datetime) -> bool:
    """True if a code is to be marked as used, False if it is for the same order already.

    Raises RedemptionUsed, RedemptionCancelled, RedemptionExpired.
    """
    state = state_now(redemption, now)
    if state == USED and order_id is not None and redemption.order_id == order_id:
        return False
    _refuse(redemption, state)
    return True


def cancel(redemption: Redemption, now: datetime) -> bool:
    """True if a code is to be cancelled, False if it is already. Raises RedemptionUsed, RedemptionExpired."""
    state = state_now(redemption, now)
    if state == CANCELLED:
        return False
    _refuse(redemption, state)
    return True


def good_until(days: int, now: datetime, zone: ZoneInfo) -> datetime | None:
    """When a code that is issued now is good no more: the end of the last of `days` local days. 0: never."""
    if not days:
        return None
    return beginning(now.astimezone(zone).date() + timedelta(days=days + 1), zone)


def spelled(random: bytes) -> str:
    """10 random bytes as a code: four groups of four."""
    number = int.from_bytes(random[:CODE_BYTES], "big")
    letters = "".join(ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))
    return "-".join(letters[at : at + 4] for at in range(0, 16, 4))


def plain(code: str) -> str:
    """What of a code counts: its letters and digits, dots and underscores, in upper case."""
    return "".join(code.split()).replace("-", "").upper()


def _refuse(redemption: Redemption, state: int) -> None:
    at = written(redemption.closed_at) if redemption.closed_at else ""
    if state == USED:
        raise RedemptionUsed(used_at=at, place=redemption.place)
    if state == CANCELLED:
        raise RedemptionCancelled(cancelled_at=at)
    if state == EXPIRED:
        assert redemption.expires_at is not None
        raise RedemptionExpired(expired_at=written(redemption.expires_at))
