"""Referrals of a shop for tests: who brings whom, and how far they came."""

from typing import Any

from libs import clock
from libs.instants import stamp
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.loyalty.v1 import referrals_pb2 as pb
from regulars.loyalty.v1.referrals_pb2_grpc import MyReferralsServiceStub, ReferralsServiceStub
from tests.customers.shop import Shop
from tests.loyalty.members import buy, join, set_program, until

INVITED, REGISTERED, FLAGGED = (
    pb.REFERRAL_STATE_INVITED,
    pb.REFERRAL_STATE_REGISTERED,
    pb.REFERRAL_STATE_FLAGGED,
)
QUALIFIED, REWARDED, REFUSED = (
    pb.REFERRAL_STATE_QUALIFIED,
    pb.REFERRAL_STATE_REWARDED,
    pb.REFERRAL_STATE_REFUSED,
)
EXPIRED, REVOKED, VOIDED = (
    pb.REFERRAL_STATE_EXPIRED,
    pb.REFERRAL_STATE_REVOKED,
    pb.REFERRAL_STATE_VOIDED,
)


def referrals(shop: Shop, *roles: str) -> ReferralsServiceStub:
    """Calls about referrals."""
    found: ReferralsServiceStub = shop.calls(ReferralsServiceStub, *roles)
    return found


def mine(shop: Shop, customer_id: str) -> MyReferralsServiceStub:
    """Calls of a member."""
    found: MyReferralsServiceStub = shop.calls(MyReferralsServiceStub, customer=customer_id)
    return found


async def promise(shop: Shop, policy: str = "WITHIN_BALANCE", **terms: Any) -> None:
    """Gives the shop's program referrals: 500 points for a member, 200 for a friend who buys for 20.00."""
    settings = {"referrer_points": 500, "friend_points": 200, "minimum_order_minor": 2_000} | terms
    await set_program(
        shop,
        referrals=programs.ReferralSettings(enabled=True, **settings),
        return_policy=programs.ReturnPolicy.Value(f"RETURN_POLICY_{policy}"),
    )


async def code_of(shop: Shop, customer_id: str) -> str:
    """A member's code."""
    return (await of(shop, customer_id)).code.code


async def of(shop: Shop, customer_id: str, **fields: Any) -> pb.ListReferralsResponse:
    """A member's referrals."""
    return await referrals(shop).ListReferrals(pb.ListReferralsRequest(customer_id=customer_id, **fields))


async def bring(shop: Shop, code: str, **fields: Any) -> str:
    """The id of a friend who came with a code."""
    return await join(shop, referral_code=code, **fields)


async def spend(shop: Shop, customer_id: str, minor: int = 2_500, **fields: Any) -> str:
    """The id of an order that a friend placed just now."""
    return await buy(shop, customer_id, minor, placed_at=stamp(clock.now()), **fields)


async def stands(shop: Shop, referrer: str, friend: str, *wanted: Any) -> pb.Referral:
    """The referral of a friend once it is in one of these states, and at rest."""

    async def look() -> Any:
        found = [each for each in (await of(shop, referrer)).referrals if each.friend_id == friend]
        return found[0] if found and found[0].state in wanted else None

    try:
        found: pb.Referral = await until(look)
    except TimeoutError:
        raise AssertionError(f"{await of(shop, referrer)} has no {wanted} of {friend}") from None
    return found
