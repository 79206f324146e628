"""Members rise with their orders, fall after their grace, and stand where staff put them."""

import asyncio
import time
from functools import partial
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import text

from libs import clock
from libs.ids import new_id
from libs.instants import stamp
from regulars.customers.v1.customers_pb2 import CreateCustomerRequest, Customer, DeleteCustomerRequest
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.loyalty.v1 import tiers_pb2 as pb
from regulars.loyalty.v1.loyalty_pb2 import (
    MEMBERSHIP_STATUS_FROZEN,
    GetMembershipRequest,
    GetMyMembershipRequest,
    Membership,
)
from regulars.loyalty.v1.loyalty_pb2_grpc import JobsServiceStub, LoyaltyServiceStub
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from regulars.type.v1.job_pb2 import JOB_STATE_SUCCEEDED, GetJobRequest
from services.loyalty.tiers.jobs import judge_due
from tests.customers.purchases import order, record, refund
from tests.customers.shop import Shop, refused
from tests.loyalty.members import buy, faults, has, in_ledger, join, until

EVERYTHING = FieldMask(paths=["*"])


def tiers(shop: Shop, *roles: str) -> TiersServiceStub:
    found: TiersServiceStub = shop.calls(TiersServiceStub, *roles)
    return found


def ladder(*steps: tuple[str, int], **fields: Any) -> pb.TierConfiguration:
    """Tiers by spending in whole dollars, over all time."""
    fields.setdefault("period", pb.TIER_PERIOD_LIFETIME)
    return pb.TierConfiguration(
        tiers=[pb.Tier(name=name, spending_minor=dollars * 100) for name, dollars in steps], **fields
    )


async def configure(shop: Shop, configuration: pb.TierConfiguration, **fields: Any) -> pb.TierConfiguration:
    """Sets the shop's tiers, and waits until everybody was moved."""
    done = await tiers(shop).UpdateTierConfiguration(
        pb.UpdateTierConfigurationRequest(configuration=configuration, **fields)
    )
    if done.recalculation_job_id:

        async def finished() -> bool:
            job = await shop.calls(JobsServiceStub).GetJob(GetJobRequest(id=done.recalculation_job_id))
            return bool(job.state == JOB_STATE_SUCCEEDED)

        await until(finished)
    return done


async def member_of(shop: Shop, customer_id: str) -> Membership:
    loyalty = shop.calls(LoyaltyServiceStub)
    found: Membership = await loyalty.GetMembership(GetMembershipRequest(customer_id=customer_id))
    return found


async def is_frozen(shop: Shop, customer_id: str) -> bool:
    return (await member_of(shop, customer_id)).status == MEMBERSHIP_STATUS_FROZEN


async def stands(shop: Shop, customer_id: str, tier: str) -> pb.TierStanding:
    """The member's standing once it is in this tier."""

    async def look() -> Any:
        found = (await member_of(shop, customer_id)).tier
        return found if found.tier == tier else None

    found: pb.TierStanding = await until(look)
    return found


async def history(shop: Shop, customer_id: str) -> list[tuple[str, str, int]]:
    answer = await tiers(shop).ListTierHistory(pb.ListTierHistoryRequest(customer_id=customer_id))
    return [(change.from_tier, change.to_tier, change.why) for change in answer.changes]


async def test_an_order_lifts_a_member_within_a_second(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 500), ("GOLD", 1_500)))
    took = []
    for _ in range(3):  # the machine may be busy with something else, but not three times
        member = await join(shop)
        await buy(shop, member, 45_000)
        await has(shop, member, 450)
        before = await stands(shop, member, "BRONZE")
        assert (before.progress.next_tier, before.progress.percent) == ("SILVER", 90)
        assert before.progress.missing_spending_minor == 5_000
        began = time.monotonic()
        await buy(shop, member, 5_000)
        after = await stands(shop, member, "SILVER")
        took.append(time.monotonic() - began)
    assert min(took) < 1
    assert (after.spending_minor, after.visits, after.progress.next_tier) == (50_000, 1, "GOLD")
    assert await history(shop, member) == [("BRONZE", "SILVER", pb.TIER_REASON_RULE)]
    assert await faults(shop) == []


async def test_a_tier_multiplies_what_later_orders_earn(shop: Shop) -> None:
    steps = ladder(("BRONZE", 0), ("GOLD", 100))
    steps.tiers[1].earning_percent = 150
    await configure(shop, steps)
    member = await join(shop)
    await buy(shop, member, 10_000)
    await has(shop, member, 100)
    await buy(shop, member, 10_000)
    await has(shop, member, 250)
    assert await faults(shop) == []


async def test_falling_is_announced_and_done_after_the_grace(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 100), grace_months=2))
    member = await join(shop)
    await buy(shop, member, 20_000, external_id="f")
    await stands(shop, member, "SILVER")
    await record(shop, refund("f", 15_000))
    await has(shop, member, 50)

    async def judged(column: str) -> None:
        """As if the day of it had come."""
        await in_ledger(
            shop,
            lambda tx: tx.execute(
                text(f"update standings set review_at = now(), {column} where business_id = :business"),
                {"business": shop.id},
            ),
        )
        await judge_due(shop.tenant.stack.runtimes["loyalty"])

    await judged("since = since")
    pending = await stands(shop, member, "SILVER")
    assert pending.HasField("downgrade_at")
    texts = ladder(("BRONZE", 0), ("SILVER", 100))
    texts.tiers[1].perks.append("tea")
    assert not (await configure(shop, texts)).recalculation_job_id
    assert (await configure(shop, ladder(("BRONZE", 0), ("SILVER", 90)))).recalculation_job_id
    waits = await stands(shop, member, "SILVER")
    assert waits.downgrade_at == pending.downgrade_at
    then = pb.PreviewTierConfigurationRequest(configuration=ladder(("BRONZE", 0), ("SILVER", 80)))
    (move,) = (await tiers(shop).PreviewTierConfiguration(then)).moves
    assert (move.from_tier, move.to_tier, move.members) == ("SILVER", "SILVER", 1)
    await judged("grace_until = now()")
    fallen = await stands(shop, member, "BRONZE")
    assert not fallen.HasField("downgrade_at")
    assert (await history(shop, member))[0] == ("SILVER", "BRONZE", pb.TIER_REASON_RULE)
    await buy(shop, member, 10_000)
    await stands(shop, member, "SILVER")


async def test_new_tiers_are_previewed_and_move_everybody(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 100)))
    members = [await join(shop) for _ in range(3)]
    for member, minor in zip(members, (5_000, 20_000, 50_000), strict=True):
        await buy(shop, member, minor)
        await has(shop, member, minor // 100)
    await asyncio.gather(*(stands(shop, each, "SILVER") for each in members[1:]))
    await join(shop)  # nothing happened to their points
    gone = await join(shop)
    await buy(shop, gone, 50_000)
    await stands(shop, gone, "SILVER")
    await shop.customers.DeleteCustomer(DeleteCustomerRequest(id=gone))
    await until(partial(is_frozen, shop, gone))
    then = ladder(("BASE", 0), ("SILVER", 300))
    preview = await tiers(shop).PreviewTierConfiguration(
        pb.PreviewTierConfigurationRequest(configuration=then)
    )
    assert preview.members == 4
    assert [(move.from_tier, move.to_tier, move.members) for move in preview.moves] == [
        ("BRONZE", "BASE", 2),
        ("SILVER", "BASE", 1),
        ("SILVER", "SILVER", 1),
    ]
    assert list(preview.moves[1].sample_customer_ids) == [members[1]]
    assert (await member_of(shop, members[1])).tier.tier == "SILVER"
    await _previews_of_visits_and_points(shop)
    await configure(shop, then, reason="a new year")
    found = [(await member_of(shop, each)).tier.tier for each in members]
    assert found == ["BASE", "BASE", "SILVER"]
    audits = (await tiers(shop).ListTierAudits(pb.ListTierAuditsRequest())).audits
    assert (audits[0].reason, audits[0].actor.subject) == ("a new year", "tester")
    assert audits[0].previous.tiers[1].spending_minor == 10_000
    assert audits[0].current.tiers[1].spending_minor == 30_000
    assert not audits[-1].HasField("previous")


async def _previews_of_visits_and_points(shop: Shop) -> None:
    """Of three with a visit each, and 50, 200 and 500 points, and one with nothing."""
    steps = [
        pb.Tier(name="A"),
        pb.Tier(name="B", visits=1, points=100),
        pb.Tier(name="C", visits=2, points=400),
    ]
    for match, count, wanted in (
        (pb.TIER_MATCH_ALL, 3, {"A": 2, "B": 2}),
        (pb.TIER_MATCH_ANY, 3, {"A": 1, "B": 2, "C": 1}),
        (pb.TIER_MATCH_ANY, 1, {"A": 4}),
    ):
        then = pb.TierConfiguration(period=pb.TIER_PERIOD_LIFETIME, match=match, tiers=steps[:count])
        request = pb.PreviewTierConfigurationRequest(configuration=then)
        found: dict[str, int] = {}
        for move in (await tiers(shop).PreviewTierConfiguration(request)).moves:
            found[move.to_tier] = found.get(move.to_tier, 0) + move.members
        assert found == wanted


async def test_thresholds_must_rise(shop: Shop) -> None:
    wrong = pb.UpdateTierConfigurationRequest(
        configuration=ladder(("BRONZE", 0), ("SILVER", 500), ("GOLD", 400))
    )
    refusal = await refused(tiers(shop).UpdateTierConfiguration(wrong))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {"configuration.tiers[2].spending_minor": "THRESHOLDS"}
    wrong.configuration.tiers[2].spending_minor = -1
    refusal = await refused(tiers(shop).UpdateTierConfiguration(wrong))
    assert "configuration.tiers[2].spending_minor" in refusal.fields
    right = pb.UpdateTierConfigurationRequest(configuration=ladder(("A", 0), ("B", 1)), etag="7")
    assert (await refused(tiers(shop).UpdateTierConfiguration(right))).reason == "ETAG_MISMATCH"


async def test_a_patch_changes_what_it_names(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 500), rolling=True), update_mask=EVERYTHING)
    found = await configure(shop, pb.TierConfiguration(grace_months=0), reason="no grace")
    assert (found.grace_months, found.rolling, len(found.tiers)) == (0, True, 2)
    found = await configure(shop, pb.TierConfiguration(), update_mask=FieldMask(paths=["rolling"]))
    assert (found.grace_months, found.rolling, found.period) == (0, False, pb.TIER_PERIOD_LIFETIME)
    found = await configure(shop, pb.TierConfiguration(tiers=[pb.Tier(name="ALL")]), update_mask=EVERYTHING)
    assert (found.grace_months, found.period, len(found.tiers)) == (3, pb.TIER_PERIOD_YEARLY, 1)
    for paths, field in ((["tiers"], "configuration.tiers"), (["etag"], "update_mask")):
        wrong = pb.UpdateTierConfigurationRequest(
            configuration=pb.TierConfiguration(), update_mask=FieldMask(paths=paths)
        )
        assert field in (await refused(tiers(shop).UpdateTierConfiguration(wrong))).fields


async def test_an_override_beats_the_calculation_until_it_ends(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 100), ("GOLD", 1_000)))
    member = await join(shop)
    over = pb.SetTierOverrideRequest(customer_id=member, tier="gold", reason="press")
    found = await tiers(shop).SetTierOverride(over)
    assert (found.tier, found.overridden) == ("GOLD", True)
    await buy(shop, member, 20_000)
    await has(shop, member, 200)
    assert (await member_of(shop, member)).tier.tier == "GOLD"
    found = await tiers(shop).ClearTierOverride(pb.ClearTierOverrideRequest(customer_id=member))
    assert (found.tier, found.overridden) == ("SILVER", False)
    answer = await tiers(shop).ListTierHistory(pb.ListTierHistoryRequest(customer_id=member))
    assert [(c.from_tier, c.to_tier, c.reason, c.actor.subject) for c in answer.changes] == [
        ("GOLD", "SILVER", "", "tester"),
        ("BRONZE", "GOLD", "press", "tester"),
    ]
    refusal = await refused(
        tiers(shop).SetTierOverride(pb.SetTierOverrideRequest(customer_id=member, tier="TIN", reason="x"))
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TIER_NOT_FOUND")
    over.until.CopyFrom(stamp(clock.now()))
    assert (await refused(tiers(shop).SetTierOverride(over))).fields == {"until": "OUT_OF_RANGE"}
    over.reason = " "
    assert (await refused(tiers(shop).SetTierOverride(over))).fields == {"reason": "REQUIRED"}


async def test_an_override_changes_in_part(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 100), ("GOLD", 1_000)))
    member = await join(shop)

    async def change(override: pb.TierOverride, *paths: str) -> pb.TierStanding:
        return await tiers(shop).UpdateTierOverride(
            pb.UpdateTierOverrideRequest(
                customer_id=member, override=override, update_mask=FieldMask(paths=paths)
            )
        )

    refusal = await refused(change(pb.TierOverride(tier="GOLD")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "OVERRIDE_NOT_FOUND")
    await tiers(shop).SetTierOverride(
        pb.SetTierOverrideRequest(customer_id=member, tier="GOLD", reason="press")
    )
    end = stamp(clock.now().replace(year=2040))
    found = await change(pb.TierOverride(until=end))
    assert (found.tier, found.override_until) == ("GOLD", end)
    found = await change(pb.TierOverride(tier="silver"))
    assert (found.tier, found.override_until) == ("SILVER", end)
    found = await change(pb.TierOverride(reason="a friend"), "reason", "until")
    assert (found.tier, found.overridden, found.HasField("override_until")) == ("SILVER", True, False)
    assert (await refused(change(pb.TierOverride(tier="TIN")))).reason == "TIER_NOT_FOUND"
    wrong = pb.TierOverride(until=stamp(clock.now()))
    assert (await refused(change(wrong, "*"))).fields == {
        "override.tier": "REQUIRED",
        "override.reason": "REQUIRED",
        "override.until": "OUT_OF_RANGE",
    }
    answer = await tiers(shop).ListTierHistory(pb.ListTierHistoryRequest(customer_id=member))
    assert [(each.to_tier, each.reason) for each in answer.changes] == [
        ("SILVER", "a friend"),
        ("SILVER", "press"),
        ("GOLD", "press"),
        ("GOLD", "press"),
    ]


async def test_an_initial_tier_is_an_override(shop: Shop) -> None:
    for tier, stands_in in (("gold", "GOLD"), ("TIN", "BRONZE")):
        new = CreateCustomerRequest(customer=Customer(email=f"{new_id().hex}@example.com"), initial_tier=tier)
        member = (await shop.customers.CreateCustomer(new)).id
        found = await stands(shop, member, stands_in)
        assert found.overridden == (stands_in == "GOLD")
    new = CreateCustomerRequest(customer=Customer(email=f"{new_id().hex}@example.com"), initial_tier="GOLD")
    marketer = shop.calls(CustomersServiceStub, "marketer")
    assert (await refused(marketer.CreateCustomer(new))).code == grpc.StatusCode.PERMISSION_DENIED
    member = (await shop.customers.CreateCustomer(new)).id
    await stands(shop, member, "GOLD")
    answer = await tiers(shop).ListTierHistory(pb.ListTierHistoryRequest(customer_id=member))
    assert [(c.to_tier, c.why, c.actor.subject) for c in answer.changes] == [
        ("GOLD", pb.TIER_REASON_OVERRIDE, "tester")
    ]


async def test_an_override_ends_by_itself(shop: Shop) -> None:
    steps = ladder(("BRONZE", 0), ("SILVER", 300), ("GOLD", 900))
    steps.tiers[1].earning_percent, steps.tiers[2].earning_percent = 200, 300
    await configure(shop, steps)
    member, gone = await join(shop), await join(shop)
    end = stamp(clock.now().replace(year=2040))
    over = pb.SetTierOverrideRequest(customer_id=member, tier="GOLD", reason="a day", until=end)
    for _ in range(2):
        await tiers(shop).SetTierOverride(over)
    assert await history(shop, member) == [("BRONZE", "GOLD", pb.TIER_REASON_OVERRIDE)]
    over.reason = "another day"
    await tiers(shop).SetTierOverride(over)
    assert len(await history(shop, member)) == 2
    over.customer_id = gone
    await tiers(shop).SetTierOverride(over)
    await shop.customers.DeleteCustomer(DeleteCustomerRequest(id=gone))
    await until(partial(is_frozen, shop, gone))
    await in_ledger(
        shop,
        lambda tx: tx.execute(
            text("update standings set override_until = now() where business_id = :business"),
            {"business": shop.id},
        ),
    )
    assert (await member_of(shop, member)).tier.tier == "BRONZE"  # nobody wrote it down yet
    await buy(shop, member, 50_000)
    await has(shop, member, 500)
    assert [each[1] for each in await history(shop, member)] == ["SILVER", "GOLD", "GOLD"]
    await judge_due(shop.tenant.stack.runtimes["loyalty"])
    assert len(await history(shop, gone)) == 1


async def test_points_count_in_the_period_of_their_order(shop: Shop) -> None:
    steps = [pb.Tier(name="BRONZE"), pb.Tier(name="SILVER", points=300)]
    await configure(shop, pb.TierConfiguration(period=pb.TIER_PERIOD_YEARLY, tiers=steps))
    member, now = await join(shop), clock.now()
    last_year = now.replace(year=now.year - 1, day=1)
    await buy(shop, member, 20_000, external_id="old", placed_at=stamp(last_year))
    await buy(shop, member, 15_000, external_id="new", placed_at=stamp(now))
    await has(shop, member, 350)
    standing = await stands(shop, member, "BRONZE")
    assert (standing.points, standing.spending_minor) == (150, 15_000)
    await record(shop, refund("old", 20_000))
    await has(shop, member, 150)
    standing = await stands(shop, member, "BRONZE")
    assert (standing.points, standing.spending_minor) == (150, 15_000)
    await record(shop, refund("new", 5_000))
    await has(shop, member, 100)
    assert (await member_of(shop, member)).tier.points == 100
    then = pb.TierConfiguration(tiers=[pb.Tier(name="BRONZE"), pb.Tier(name="SILVER", points=101)])
    request = pb.PreviewTierConfigurationRequest(configuration=then)
    assert [each.to_tier for each in (await tiers(shop).PreviewTierConfiguration(request)).moves] == [
        "BRONZE"
    ]
    assert await faults(shop) == []


async def test_many_orders_at_once_lift_a_member_once(shop: Shop) -> None:
    await configure(shop, ladder(("BRONZE", 0), ("SILVER", 100), ("GOLD", 300)))
    member = await join(shop)
    paid = [order(customer_id=member, total={"amount_minor": 5_000}) for _ in range(8)]
    await asyncio.gather(*(record(shop, each) for each in paid))
    await has(shop, member, 400)
    await stands(shop, member, "GOLD")
    assert (await history(shop, member))[0][1] == "GOLD"
    assert len(await history(shop, member)) <= 2
    assert await faults(shop) == []


async def test_a_member_sees_its_own_tier_and_points(shop: Shop) -> None:
    member = await join(shop)
    await buy(shop, member, 60_000)
    await has(shop, member, 600)
    me = shop.calls(LoyaltyServiceStub, customer=member)
    mine = await me.GetMyMembership(GetMyMembershipRequest())
    assert (mine.points.balance, mine.customer_id) == (600, member)
    assert mine.tier.tier in {"BRONZE", "SILVER"}
