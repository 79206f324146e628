"""Referrals as members live them: codes, friends, orders, points for both, and what is refused."""

import grpc

from regulars.customers.v1.addresses_pb2 import Address, CreateAddressRequest
from regulars.loyalty.v1 import ledger_pb2 as ledger
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.loyalty.v1 import referrals_pb2 as pb
from tests.customers.purchases import record, refund
from tests.customers.shop import Shop, refused
from tests.loyalty.members import add_rule, buy, faults, has, join, set_program, transactions, until
from tests.loyalty.referring import (
    FLAGGED,
    INVITED,
    REFUSED,
    REGISTERED,
    REVOKED,
    REWARDED,
    bring,
    code_of,
    mine,
    of,
    promise,
    referrals,
    spend,
    stands,
)


async def test_a_friend_buys_and_both_get_points(shop: Shop) -> None:
    ann = await join(shop)
    assert (await of(shop, ann)).HasField("code") is False
    await promise(shop, link_template="https://corner.example/join?code={code}")
    made = await add_rule(shop, bonus=programs.Bonus(trigger=programs.BONUS_TRIGGER_REFERRAL, points=30))
    code = await code_of(shop, ann)
    assert await code_of(shop, ann) == code
    assert (await of(shop, ann)).code.link == f"https://corner.example/join?code={code}"
    ben = await bring(shop, f"{code[:5].lower()}-{code[5:]}")
    first = await stands(shop, ann, ben, REGISTERED)
    assert (first.referrer_points, first.friend_points, first.minimum_order_minor) == (500, 200, 2_000)
    await spend(shop, ben, 1_999)
    order = await spend(shop, ben, 2_000)
    found = await stands(shop, ann, ben, REWARDED)
    assert (found.order_id, found.reason, list(found.matches)) == (order, "", [])
    await has(shop, ann, 500 + 30)
    await has(shop, ben, 200 + 19 + 20)
    bonus, told = await transactions(shop, ann)
    assert [(why.rule_id, why.points) for why in bonus.reasons] == [(made.id, 30)]
    assert (told.type, told.source, told.order_id) == (
        ledger.TRANSACTION_TYPE_EARN,
        f"referral:{found.id}",
        "",
    )
    await spend(shop, ben, 5_000)
    await has(shop, ben, 200 + 19 + 20 + 50)
    assert (await of(shop, ann)).points == 500
    assert await faults(shop) == []


async def test_what_a_member_sees_says_nothing_of_the_friend(shop: Shop) -> None:
    await promise(shop)
    ann, eve = await join(shop), await join(shop)
    invited = await mine(shop, ann).CreateMyReferral(pb.CreateMyReferralRequest())
    assert invited.state == INVITED
    ben = await bring(shop, invited.invitation.code)
    await stands(shop, ann, ben, REGISTERED)
    late = await bring(shop, invited.invitation.code)
    seen = await mine(shop, ann).ListMyReferrals(pb.ListMyReferralsRequest())
    assert [each.state for each in seen.referrals] == [REGISTERED]
    assert ben not in str(seen)
    assert (seen.HasField("brought"), seen.referrals[0].HasField("invitation")) == (False, False)
    theirs = await mine(shop, ben).ListMyReferrals(pb.ListMyReferralsRequest())
    assert (theirs.brought.state, theirs.brought.points, list(theirs.referrals)) == (REGISTERED, 200, [])
    assert ann not in str(theirs)
    for other in (late, eve):
        none = await mine(shop, other).ListMyReferrals(pb.ListMyReferralsRequest())
        assert (none.HasField("brought"), list(none.referrals)) == (False, [])
    await promise(shop, referrer_points=0)  # holds for those who come from now on
    await spend(shop, ben)
    await has(shop, ann, 500)


async def test_an_unknown_code_makes_a_customer_all_the_same(shop: Shop) -> None:
    await promise(shop)
    ann = await join(shop)
    for wrong in ("R000000000", "my friend Ann", "+1 415 555 0100", await code_of(shop, ann) + "X"):
        await spend(shop, await bring(shop, wrong))
    assert list((await of(shop, ann)).referrals) == []


async def test_a_friend_counts_once_and_only_a_new_one(shop: Shop) -> None:
    await promise(shop)
    ann, old = await join(shop), await join(shop)
    code = await code_of(shop, ann)
    ben = await bring(shop, code)
    await stands(shop, ann, ben, REGISTERED)
    await buy(shop, ben, 5_000)  # placed long before they came
    assert (await stands(shop, ann, ben, REFUSED)).reason == "NOT_NEW"
    assert await code_of(shop, old) != code


async def test_a_return_takes_the_points_back(shop: Shop) -> None:
    await promise(shop)
    ann = await join(shop)
    ben = await bring(shop, await code_of(shop, ann))
    await spend(shop, ben, 2_500, external_id="first")
    await stands(shop, ann, ben, REWARDED)
    second = await spend(shop, ben, 4_000, external_id="second")
    await has(shop, ben, 200 + 25 + 40)
    await record(shop, refund("first", 1_000))
    assert (await stands(shop, ann, ben, REWARDED)).state == REWARDED
    await has(shop, ben, 200 + 15 + 40)

    async def now_by(order: str) -> bool:
        return (await stands(shop, ann, ben, REWARDED)).order_id == order

    await until(lambda: now_by(second))  # another order is good enough
    await record(shop, refund("second", 4_000))
    await stands(shop, ann, ben, REVOKED)
    await has(shop, ann, 0)
    await has(shop, ben, 15)
    assert [each.source for each in await transactions(shop, ann)] == [
        f"referral:{(await of(shop, ann)).referrals[0].id}"
    ] * 2
    assert await faults(shop) == []


async def test_pending_points_are_all_that_a_careful_policy_takes(shop: Shop) -> None:
    await promise(shop, "PENDING_ONLY", pending_days=14)
    ann = await join(shop)
    ben = await bring(shop, await code_of(shop, ann))
    await spend(shop, ben, 2_500, external_id="o")
    await stands(shop, ann, ben, REWARDED)
    assert (await has(shop, ann, 0)).pending == 500
    await record(shop, refund("o", 2_500))
    await stands(shop, ann, ben, REVOKED)
    assert (await has(shop, ann, 0)).pending == 0
    assert await faults(shop) == []


async def test_the_same_contact_is_refused_and_the_same_address_reviewed(shop: Shop) -> None:
    await promise(shop)
    ann = await join(shop, first_name="Ann", last_name="Lee", email="ann.lee@gmail.com")
    code = await code_of(shop, ann)

    async def lives(customer: str, street: str) -> None:
        place = Address(street_lines=[street], city="New York", state="NY", postal_code="10005", country="US")
        await shop.addresses.CreateAddress(CreateAddressRequest(customer_id=customer, address=place))

    await lives(ann, "12 Wall Street")
    again = await bring(shop, code, email="AnnLee+gift@gmail.com")
    found = await stands(shop, ann, again, REFUSED)
    assert (found.reason, list(found.matches)) == ("SAME_CONTACT", [pb.REFERRAL_MATCH_EMAIL])
    shown = (await mine(shop, ann).ListMyReferrals(pb.ListMyReferralsRequest())).referrals[0]
    assert (shown.state, "SAME" in str(shown)) == (REFUSED, False)

    flagged = []
    for _ in range(2):
        friend = await bring(shop, code)
        await lives(friend, "12, WALL STREET")
        await spend(shop, friend)
        found = await stands(shop, ann, friend, FLAGGED)
        assert (found.reason, list(found.matches)) == ("SAME_ADDRESS", [pb.REFERRAL_MATCH_ADDRESS])
        flagged.append(found)
    listed = await referrals(shop).ListProgramReferrals(pb.ListProgramReferralsRequest(states=[FLAGGED]))
    assert [each.id for each in listed.referrals] == [each.id for each in reversed(flagged)]
    shown = (await mine(shop, ann).ListMyReferrals(pb.ListMyReferralsRequest())).referrals[0]
    assert shown.state == REGISTERED
    kept, thrown = flagged
    for _ in range(2):
        approved = await referrals(shop).ApproveReferral(pb.ApproveReferralRequest(id=kept.id))
        assert approved.reviewed_by.subject
        await stands(shop, ann, kept.friend_id, REWARDED)
        rejected = await referrals(shop).RejectReferral(pb.RejectReferralRequest(id=thrown.id))
        assert (rejected.state, rejected.reason) == (REFUSED, "REJECTED")
    refusal = await refused(referrals(shop).RejectReferral(pb.RejectReferralRequest(id=kept.id)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REFERRAL_NOT_FLAGGED")
    await has(shop, ann, 500)
    assert await faults(shop) == []


async def test_invitations_have_a_limit_and_need_referrals(shop: Shop) -> None:
    ann = await join(shop)
    request = pb.CreateReferralRequest(customer_id=ann)
    refusal = await refused(referrals(shop).CreateReferral(request))
    assert refusal.reason == "REFERRALS_NOT_ENABLED"
    await promise(shop)
    request.request_id = "once"
    first, again = [await referrals(shop).CreateReferral(request) for _ in range(2)]
    assert first == again
    bad = programs.ReferralSettings(enabled=True, link_template="javascript:alert(1)")
    assert (await refused(set_program(shop, referrals=bad))).code == grpc.StatusCode.INVALID_ARGUMENT
