"""Households of a shop for tests: who is in them, and what they may spend."""

from typing import Any

from regulars.loyalty.v1 import households_pb2 as pb
from regulars.loyalty.v1.households_pb2_grpc import HouseholdsServiceStub, MyHouseholdServiceStub
from tests.customers.shop import Shop
from tests.loyalty.members import give, join, set_program


def households(shop: Shop, *roles: str) -> HouseholdsServiceStub:
    """Calls of staff."""
    found: HouseholdsServiceStub = shop.calls(HouseholdsServiceStub, *roles)
    return found


def mine(shop: Shop, customer_id: str) -> MyHouseholdServiceStub:
    """Calls of a member."""
    found: MyHouseholdServiceStub = shop.calls(MyHouseholdServiceStub, customer=customer_id)
    return found


async def household(shop: Shop, *points: int, **settings: Any) -> tuple[pb.Household, list[str]]:
    """A household of the shop's program, each of its members with so many points."""
    await set_program(shop, pooling_allowed=True, **settings)
    people = [await join(shop) for _ in points]
    for each, given in zip(people, points, strict=True):
        if given:
            await give(shop, each, given)
    made = await households(shop).CreateHousehold(pb.CreateHouseholdRequest(customer_id=people[0]))
    for each in people[1:]:
        made = await add(shop, made, each)
    return made, people


async def add(shop: Shop, to: pb.Household, customer_id: str, **fields: Any) -> pb.Household:
    """The household after staff took somebody in."""
    fields.setdefault("reason", "they asked at the counter")
    return await households(shop).AddHouseholdMember(
        pb.AddHouseholdMemberRequest(id=to.id, customer_id=customer_id, **fields)
    )


async def of(shop: Shop, customer_id: str) -> list[pb.Household]:
    """The households that a customer is in."""
    found = await households(shop).ListHouseholds(pb.ListHouseholdsRequest(customer_id=customer_id))
    return list(found.households)


async def invite(shop: Shop, customer_id: str, **fields: Any) -> pb.HouseholdInvitation:
    """An invitation into a member's household."""
    return await mine(shop, customer_id).CreateHouseholdInvitation(
        pb.CreateHouseholdInvitationRequest(**fields)
    )


async def accept(shop: Shop, customer_id: str, code: str, **fields: Any) -> pb.Household:
    """The household after a customer accepted an invitation."""
    return await mine(shop, customer_id).JoinHousehold(
        pb.JoinHouseholdRequest(invitation_code=code, **fields)
    )


def inside(of: pb.Household) -> list[str]:
    """Ids of those who are in a household."""
    return [each.customer_id for each in of.members]
