"""Which tier a member has, and when it is lost."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.loyalty.tiers import rules
from services.loyalty.tiers.rules import Facts, Ladder, Standing, Tier

ZONE = ZoneInfo("UTC")
TIERS = (
    Tier(name="BRONZE"),
    Tier(name="SILVER", spending_minor=100, visits=10),
    Tier(name="GOLD", spending_minor=300, visits=30),
)
YEARLY = Ladder(tiers=TIERS)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONE = Facts()


def test_any_or_all_thresholds() -> None:
    assert [rules.earned(YEARLY, Facts(*f)) for f in ((99, 9, 0), (100, 0, 0), (0, 10, 0), (300, 0, 0))] == [
        0,
        1,
        1,
        2,
    ]
    strict = replace(YEARLY, match_all=True)
    assert [rules.earned(strict, Facts(*f)) for f in ((300, 9, 0), (100, 10, 0), (300, 30, 0))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("period", "rolling", "start", "end"),
    [
        ("MONTHLY", False, date(2026, 5, 1), date(2026, 5, 31)),
        ("QUARTERLY", False, date(2026, 4, 1), date(2026, 6, 30)),
        ("YEARLY", False, date(2026, 1, 1), date(2026, 12, 31)),
        ("LIFETIME", False, None, None),
        ("YEARLY", True, date(2025, 5, 20), None),
        ("MONTHLY", True, date(2026, 4, 20), None),
    ],
)
def test_periods(period: str, rolling: bool, start: date | None, end: date | None) -> None:
    found = rules.periods(replace(YEARLY, period=period, rolling=rolling), date(2026, 5, 19))
    assert (found.start, found.end) == (start, end)


def test_rising_is_immediate() -> None:
    found = rules.judge(YEARLY, Standing(tier="BRONZE"), Facts(120), NONE, NOW, ZONE)
    assert (found.standing.tier, found.standing.since, found.why) == ("SILVER", NOW, rules.RULE)
    assert found.standing.review_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_falling_waits_for_the_end_of_the_period_and_of_the_grace() -> None:
    silver = rules.judge(YEARLY, Standing(tier="BRONZE"), Facts(120), NONE, NOW, ZONE).standing
    early = rules.judge(YEARLY, silver, Facts(20), NONE, NOW + timedelta(days=9), ZONE)
    assert (early.standing, early.why) == (silver, 0)
    first = datetime(2027, 1, 1, tzinfo=UTC)
    kept = rules.judge(YEARLY, silver, NONE, Facts(120), first, ZONE)
    assert (kept.standing.tier, kept.standing.review_at) == ("SILVER", datetime(2028, 1, 1, tzinfo=UTC))
    second = datetime(2028, 1, 1, tzinfo=UTC)
    pending = rules.judge(YEARLY, kept.standing, NONE, Facts(20), second, ZONE)
    assert pending.announced
    assert (pending.standing.tier, pending.standing.grace_until) == (
        "SILVER",
        datetime(2028, 4, 1, tzinfo=UTC),
    )
    saved = rules.judge(YEARLY, pending.standing, Facts(100), Facts(20), second + timedelta(days=20), ZONE)
    assert (saved.standing.tier, saved.standing.grace_until) == ("SILVER", None)
    lost = rules.judge(YEARLY, pending.standing, Facts(50), Facts(20), datetime(2028, 4, 1, tzinfo=UTC), ZONE)
    assert (lost.standing.tier, lost.why, lost.standing.review_at) == ("BRONZE", rules.RULE, None)


def test_without_grace_a_member_falls_at_once() -> None:
    gold = Standing(tier="GOLD", review_at=NOW)
    found = rules.judge(replace(YEARLY, grace_months=0), gold, Facts(100), NONE, NOW, ZONE)
    assert (found.standing.tier, found.announced) == ("SILVER", False)


def test_an_override_beats_the_calculation_until_it_ends() -> None:
    over = Standing(tier="GOLD", overridden=True, override_until=NOW + timedelta(days=1))
    assert rules.judge(YEARLY, over, NONE, NONE, NOW, ZONE, recalculating=True).standing == over
    found = rules.judge(YEARLY, over, Facts(120), NONE, NOW + timedelta(days=1), ZONE)
    assert (found.standing.tier, found.standing.overridden, found.why) == ("SILVER", False, rules.OVERRIDE)


def test_a_recalculation_moves_at_once() -> None:
    found = rules.judge(YEARLY, Standing(tier="GOLD"), Facts(120), NONE, NOW, ZONE, recalculating=True)
    assert (found.standing.tier, found.why) == ("SILVER", rules.RECALCULATION)
    gone = rules.judge(YEARLY, Standing(tier="DIAMOND"), NONE, NONE, NOW, ZONE, recalculating=True)
    assert (gone.standing.tier, gone.why) == ("BRONZE", rules.RECALCULATION)


def test_a_recalculation_never_cuts_a_running_grace_short() -> None:
    later = NOW + timedelta(days=30)
    waits = Standing(tier="GOLD", grace_until=later, review_at=later)
    for facts in (NONE, Facts(120)):
        found = rules.judge(YEARLY, waits, facts, NONE, NOW, ZONE, recalculating=True)
        assert (found.standing, found.why) == (waits, 0)
    found = rules.judge(YEARLY, waits, Facts(300), NONE, NOW, ZONE, recalculating=True)
    assert (found.standing.tier, found.standing.grace_until) == ("GOLD", None)
    gone = rules.judge(
        YEARLY, replace(waits, tier="DIAMOND"), Facts(120), NONE, NOW, ZONE, recalculating=True
    )
    assert gone.standing.tier == "SILVER"
    ended = rules.judge(YEARLY, waits, Facts(120), NONE, later, ZONE, recalculating=True)
    assert (ended.standing.tier, ended.standing.grace_until) == ("SILVER", None)


def test_only_what_is_asked_for_moves_anybody() -> None:
    texts = tuple(replace(tier, perks=("tea",), earning_percent=200, birthday_points=9) for tier in TIERS)
    assert rules.judges_alike(YEARLY, replace(YEARLY, tiers=texts, grace_months=1))
    for other in ({"tiers": TIERS[:2]}, {"period": "MONTHLY"}, {"rolling": True}, {"match_all": True}):
        assert not rules.judges_alike(YEARLY, replace(YEARLY, **other))


def test_what_has_ended_counts_no_more() -> None:
    over = Standing(tier="GOLD", overridden=True, override_until=NOW)
    grace = Standing(tier="GOLD", grace_until=NOW, review_at=NOW)
    before = NOW - timedelta(seconds=1)
    for standing in (over, grace):
        assert rules.as_of(YEARLY, standing, Facts(120), NONE, before, ZONE) == standing
        assert rules.as_of(YEARLY, standing, Facts(120), NONE, NOW, ZONE).tier == "SILVER"
    for_good = Standing(tier="GOLD", overridden=True, review_at=before)
    assert rules.as_of(YEARLY, for_good, NONE, NONE, NOW, ZONE) == for_good


def test_progress() -> None:
    found = rules.progress(YEARLY, "BRONZE", Facts(60, 9))
    assert found is not None
    assert (found.next_tier, found.percent, found.missing) == ("SILVER", 90, Facts(40, 1, 0))
    strict = rules.progress(replace(YEARLY, match_all=True), "BRONZE", Facts(60, 9))
    assert strict is not None
    assert strict.percent == 60
    assert rules.progress(YEARLY, "GOLD", NONE) is None


def test_thresholds_rise_from_tier_to_tier() -> None:
    assert rules.faults(TIERS) == []
    assert rules.faults((TIERS[0], TIERS[2], TIERS[1])) == [
        ("tiers[2].spending_minor", "must be above that of the tier before"),
        ("tiers[2].visits", "must be above that of the tier before"),
    ]
    assert [field for field, _ in rules.faults((TIERS[1], Tier(name="silver")))] == [
        "tiers[1].name",
        "tiers[0]",
        "tiers[1]",
    ]
