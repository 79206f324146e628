"""Programs and rules are made, changed and listed; changes at once come one after another."""

import asyncio

import grpc

from regulars.loyalty.v1 import programs_pb2 as pb
from regulars.loyalty.v1 import tiers_pb2 as tiers
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from tests.customers.shop import Shop, refused
from tests.loyalty.members import add_rule, default_program, rules, set_program


async def test_a_business_has_a_program_with_a_rule_from_the_start(shop: Shop) -> None:
    program = await default_program(shop)
    assert (program.name, program.is_default, program.currency) == ("Points", True, "USD")
    listed = await rules(shop).ListRules(pb.ListRulesRequest(program_id=program.id))
    assert [rule.per_amount.points for rule in listed.rules] == [1]


async def test_another_program_may_become_the_default(shop: Shop) -> None:
    first = await default_program(shop)
    request = pb.CreateProgramRequest(program=pb.Program(name="Club", is_default=True), request_id="p")
    made = await rules(shop).CreateProgram(request)
    assert await rules(shop).CreateProgram(request) == made
    found = await rules(shop).ListPrograms(pb.ListProgramsRequest())
    assert [(each.name, each.is_default) for each in found.programs] == [("Club", True), ("Points", False)]
    change = pb.UpdateProgramRequest(id=made.id, program=pb.Program(is_default=False))
    assert (await refused(rules(shop).UpdateProgram(change))).fields == {"program.is_default": "INVALID"}
    stale = pb.UpdateProgramRequest(id=first.id, program=pb.Program(name="Old"), etag=first.etag)
    assert (await refused(rules(shop).UpdateProgram(stale))).reason == "ETAG_MISMATCH"


async def test_rules_that_cannot_be_are_refused(shop: Shop) -> None:
    program = await default_program(shop)

    async def wrong(**fields: object) -> dict[str, str]:
        rule = pb.EarningRule(**({"name": "x"} | fields))  # type: ignore[arg-type]
        request = pb.CreateRuleRequest(program_id=program.id, rule=rule)
        refusal = await refused(rules(shop).CreateRule(request))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        return refusal.fields

    assert await wrong() == {"rule.kind": "REQUIRED"}
    paid = pb.PerAmount(points=1)
    assert await wrong(name=" ", per_amount=paid) == {"rule.name": "REQUIRED"}
    assert "rule.conditions.time_from" in await wrong(
        per_amount=paid, conditions=pb.RuleConditions(time_from="25:00")
    )
    assert "rule.caps.per_day" in await wrong(per_amount=paid, caps=pb.PointCaps(per_day=-1))
    nth = pb.Bonus(trigger=pb.BONUS_TRIGGER_NTH_ORDER, points=5)
    assert await wrong(bonus=nth) == {"rule.bonus.every": "OUT_OF_RANGE"}
    custom = pb.Bonus(trigger=pb.BONUS_TRIGGER_CUSTOM_EVENT, points=5)
    assert await wrong(bonus=custom) == {"rule.bonus.event": "REQUIRED"}
    assert await wrong(stamp_card=pb.StampCard(stamps=5)) == {"rule.stamp_card.points": "REQUIRED"}


async def test_a_deleted_rule_is_gone(shop: Shop) -> None:
    rule = await add_rule(shop, per_amount={"points": 3})
    await rules(shop).DeleteRule(pb.DeleteRuleRequest(id=rule.id))
    refusal = await refused(rules(shop).DeleteRule(pb.DeleteRuleRequest(id=rule.id)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RULE_NOT_FOUND")


async def test_changes_at_once_come_one_after_another(shop: Shop) -> None:
    rule = await add_rule(shop, per_amount={"points": 3})
    changes = [
        pb.UpdateRuleRequest(id=rule.id, rule=pb.EarningRule(name=f"name {n}", priority=n)) for n in range(8)
    ]
    done = await asyncio.gather(*(rules(shop).UpdateRule(change) for change in changes))
    assert sorted(int(each.etag) for each in done) == list(range(2, 10))
    ladders = [
        tiers.UpdateTierConfigurationRequest(
            configuration=tiers.TierConfiguration(
                tiers=[tiers.Tier(name="A"), tiers.Tier(name="B", visits=n + 1)]
            )
        )
        for n in range(8)
    ]
    calls = shop.calls(TiersServiceStub)
    set_ = await asyncio.gather(*(calls.UpdateTierConfiguration(each) for each in ladders))
    assert sorted(int(each.etag) for each in set_) == list(range(2, 10))
    programs = await asyncio.gather(*(set_program(shop, pending_days=n) for n in range(1, 9)))
    assert len({each.etag for each in programs}) == 8


async def test_what_is_inside_of_settings_and_rules_changes_one_by_one(shop: Shop) -> None:
    program = await set_program(shop, pending_days=3, hold_seconds=60)
    other = pb.Program(settings=pb.ProgramSettings(hold_seconds=90, pending_days=9))
    request = pb.UpdateProgramRequest(id=program.id, program=other)
    request.update_mask.paths.append("settings.hold_seconds")
    settings = (await rules(shop).UpdateProgram(request)).settings
    assert (settings.pending_days, settings.hold_seconds) == (3, 90)
    request.update_mask.paths[:] = ["settings.nothing"]
    assert (await refused(rules(shop).UpdateProgram(request))).fields == {"update_mask": "INVALID"}
    rule = await add_rule(
        shop,
        multiplier=pb.Multiplier(factor_percent=200),
        conditions=pb.RuleConditions(weekdays=[1], channels=["web"]),
    )
    change = pb.UpdateRuleRequest(id=rule.id, rule=pb.EarningRule(conditions=pb.RuleConditions(weekdays=[2])))
    change.update_mask.paths.append("conditions.weekdays")
    after = (await rules(shop).UpdateRule(change)).conditions
    assert (list(after.weekdays), list(after.channels)) == ([2], ["web"])
