"""Who shares with whom: households as members and staff make them, and what is refused."""

import grpc

from regulars.customers.v1 import customers_pb2 as customers
from regulars.loyalty.v1 import households_pb2 as pb
from regulars.loyalty.v1 import programs_pb2 as programs
from tests.customers.shop import Shop, refused
from tests.loyalty.members import default_program, faults, give, join, rules, set_program, until
from tests.loyalty.sharing import accept, add, household, households, inside, invite, mine, of
from tests.loyalty.test_rewards_races import rush


async def test_a_member_invites_and_another_accepts(shop: Shop) -> None:
    ann, ben, eve = [await join(shop) for _ in range(3)]
    begin = pb.CreateMyHouseholdRequest(request_id="ours")
    assert (await refused(mine(shop, ann).CreateMyHousehold(begin))).reason == "POOLING_NOT_ALLOWED"
    await set_program(shop, pooling_allowed=True)
    made = await mine(shop, ann).CreateMyHousehold(begin)
    assert (inside(made), made.largest) == ([ann], 6)
    assert await mine(shop, ann).CreateMyHousehold(begin) == made
    again = mine(shop, ann).CreateMyHousehold(pb.CreateMyHouseholdRequest())
    assert (await refused(again)).reason == "ALREADY_IN_HOUSEHOLD"
    invited = await invite(shop, ann, request_id="ben")
    assert await invite(shop, ann, request_id="ben") == invited
    code = f"{invited.code[:4].lower()}-{invited.code[4:]} "
    joined = await accept(shop, ben, code, request_id="yes")
    assert (joined.id, inside(joined)) == (made.id, [ann, ben])
    assert await accept(shop, ben, code, request_id="yes") == joined
    assert (await refused(accept(shop, eve, code))).reason == "HOUSEHOLD_INVITATION_NOT_FOUND"
    assert await mine(shop, ann).GetMyHousehold(pb.GetMyHouseholdRequest()) == joined
    outside = await refused(mine(shop, eve).GetMyHousehold(pb.GetMyHouseholdRequest()))
    assert (outside.code, outside.reason) == (grpc.StatusCode.NOT_FOUND, "HOUSEHOLD_NOT_FOUND")

    left = (await invite(shop, ann)).code
    for each in (ann, ann, ben):
        await mine(shop, each).LeaveMyHousehold(pb.LeaveMyHouseholdRequest())
    closed = await households(shop).GetHousehold(pb.GetHouseholdRequest(id=made.id))
    assert (inside(closed), closed.HasField("closed_at"), await of(shop, ann)) == ([], True, [])
    assert (await refused(accept(shop, eve, left))).reason == "HOUSEHOLD_INVITATION_NOT_FOUND"
    assert (await refused(add(shop, made, eve))).reason == "HOUSEHOLD_CLOSED"


async def test_staff_add_with_a_reason_that_members_do_not_read(shop: Shop) -> None:
    made, (ann, ben) = await household(shop, 300, 50)
    (found,) = await of(shop, ben)
    assert found == made
    told = [(each.balance, each.spendable, each.frozen, each.reason) for each in found.members]
    assert told == [(300, 300, False, ""), (50, 50, False, "they asked at the counter")]
    assert found.members[1].added_by.subject
    seen = await mine(shop, ann).GetMyHousehold(pb.GetMyHouseholdRequest())
    assert [(each.reason, each.HasField("added_by")) for each in seen.members] == [("", False)] * 2
    eve = await join(shop)
    await give(shop, ann, 1)
    assert (await of(shop, ann))[0].etag != made.etag  # so that nobody is told that nothing changed
    stale = await refused(add(shop, made, eve, etag="1"))
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    wrong = await refused(add(shop, pb.Household(id="x"), "y", reason="", etag="z" * 101))
    assert (wrong.code, set(wrong.fields)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"id", "customer_id", "reason", "etag"},
    )
    assert (await refused(add(shop, made, eve, reason=" "))).fields == {"reason": "REQUIRED"}
    assert inside(await add(shop, made, ben, etag=made.etag)) == inside(made)
    gone = pb.RemoveHouseholdMemberRequest(id=made.id, customer_id=ann, etag=made.etag)
    assert inside(await households(shop).RemoveHouseholdMember(gone)) == [ben]
    gone.etag = ""
    assert (
        await refused(households(shop).RemoveHouseholdMember(gone))
    ).reason == "HOUSEHOLD_MEMBER_NOT_FOUND"
    for role in ("marketer", "analyst"):
        asked = households(shop, role).RemoveHouseholdMember(gone)
        assert (await refused(asked)).code == grpc.StatusCode.PERMISSION_DENIED


async def test_who_is_gone_has_left(shop: Shop) -> None:
    _, (ann, ben, eve) = await household(shop, 0, 0, 0)
    await shop.customers.DeleteCustomer(customers.DeleteCustomerRequest(id=ben))

    async def without() -> bool:
        (found,) = await of(shop, ann)
        return inside(found) == [ann, eve]

    await until(without)
    assert await faults(shop) == []


async def test_as_many_as_there_may_be_however_many_come_at_once(shop: Shop) -> None:
    program = await default_program(shop)
    for wrong in (1, 21, -1):
        settings = programs.ProgramSettings(largest_household=wrong, hold_seconds=-1)
        change = programs.UpdateProgramRequest(id=program.id, program=programs.Program(settings=settings))
        odd = await refused(rules(shop).UpdateProgram(change))
        assert set(odd.fields) == {"program.settings.largest_household", "program.settings.hold_seconds"}
    made, (ann, _) = await household(shop, 0, 0, largest_household=4)
    people = [await join(shop) for _ in range(5)]
    codes = [(await invite(shop, ann)).code for _ in range(2)]
    full = await refused(invite(shop, ann))
    assert (full.reason, full.metadata) == ("HOUSEHOLD_FULL", {"largest": "4"})
    calls = [add(shop, made, each) for each in people[:3]]
    calls += [accept(shop, each, code) for each, code in zip(people[3:], codes, strict=True)]
    done, refusals = await rush(calls)
    assert (len(done), refusals) == (2, {"HOUSEHOLD_FULL": 3})
    (found,) = await of(shop, ann)
    assert len(found.members) == 4


async def test_one_member_comes_into_one_household_of_those_that_want_them(shop: Shop) -> None:
    made, (ann,) = await household(shop, 0)
    ben, eve = await join(shop), await join(shop)
    other = await mine(shop, ben).CreateMyHousehold(pb.CreateMyHouseholdRequest())
    codes = [(await invite(shop, each)).code for each in (ann, ben)]
    done, refusals = await rush([accept(shop, eve, code) for code in codes])
    assert (len(done), refusals) == (1, {"ALREADY_IN_HOUSEHOLD": 1})
    (found,) = await of(shop, eve)
    assert found.id in {made.id, other.id}
