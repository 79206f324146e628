"""What orders and occasions earn, and why."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.loyalty.programs import rules
from services.loyalty.programs.rules import Context, Judgement, Line, Purchase, Rule, Settings

ZONE = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 3, 2, 11, tzinfo=UTC)  # a Monday, 12:00 in Berlin


def rule(number: int = 1, **stored: Any) -> Rule:
    stored.setdefault("name", f"rule {number}")
    if not set(rules.KINDS) & set(stored):
        stored["per_amount"] = {"points": 1}
    return rules.rule_of(UUID(int=number), stored)


def buy(total: int = 10_000, *lines: Line, **more: Any) -> Purchase:
    given: dict[str, Any] = {"placed_at": NOON, "currency": "USD", "total_minor": total, "lines": lines}
    return Purchase(**(given | more))


def judged(purchase: Purchase, *of: Rule, **context: Any) -> Judgement:
    return rules.judge(of, purchase, Context(**context), ZONE)


def test_a_point_for_each_unit_of_the_currency_by_default() -> None:
    found = judged(buy(2_540), rule())
    assert found.points == 25
    assert found.awards[0].explanation == "1 point for each 1.00 USD of 25.40 USD"
    assert judged(buy(2_540, currency="JPY"), rule()).points == 2_540


def test_net_of_tax_discount_and_shipping_as_set() -> None:
    paid = {"total": 10_000, "tax_minor": 1_000, "shipping_minor": 500, "discount_minor": 2_000}

    def points(**terms: Any) -> int:
        return judged(buy(**paid), rule(per_amount={"points": 1} | terms)).points

    assert points() == 95
    assert points(without_tax=True) == 85
    assert points(with_shipping=True) == 100
    assert points(before_discount=True) == 115


def test_fractions_are_rounded_as_the_rule_says() -> None:
    lines = (Line("a", "", "", 1, 150), Line("b", "", "", 1, 150))

    def points(**terms: Any) -> int:
        return judged(buy(300, *lines), rule(per_amount={"points": 1} | terms)).points

    assert points() == 3
    assert points(rounding_scope="ROUNDING_SCOPE_LINE") == 2
    assert points(rounding_scope="ROUNDING_SCOPE_LINE", rounding="ROUNDING_HALF_UP") == 4
    assert points(per_minor=200) == 1
    assert points(per_minor=200, rounding="ROUNDING_HALF_UP") == 2


def test_lines_that_match_share_what_was_paid() -> None:
    lines = (Line("1", "Coffee", "A", 1, 6_000), Line("2", "Tea", "B", 1, 4_000))
    coffee = rule(conditions={"categories": ["coffee"]})
    assert judged(buy(5_000, *lines), coffee).points == 30  # half price on everything
    assert judged(buy(5_000, lines[1]), coffee).skipped[0].reason == "NO_MATCHING_ITEM"


def test_multipliers_work_on_what_was_paid() -> None:
    double = rule(2, multiplier={"factor_percent": 200})
    coffee = rule(3, multiplier={"factor_percent": 150}, conditions={"categories": ["coffee"]})
    lines = (Line("1", "Coffee", "", 1, 5_000), Line("2", "Tea", "", 1, 5_000))
    found = judged(buy(10_000, *lines), coffee, double, rule())
    assert [(award.name, award.points) for award in found.awards] == [
        ("rule 1", 100),
        ("rule 2", 100),
        ("rule 3", 25),
    ]
    assert found.awards[1].explanation == "× 2 on 100 points"
    assert judged(buy(10), double, rule()).skipped[-1].reason == "NOTHING_TO_MULTIPLY"


def test_an_exclusive_rule_ends_its_kind() -> None:
    first = rule(2, per_amount={"points": 2}, exclusive=True)
    later = rule(1, priority=5)
    bonus = rule(3, bonus={"trigger": "BONUS_TRIGGER_FIRST_ORDER", "points": 50})
    found = judged(buy(), later, first, bonus)
    assert [award.points for award in found.awards] == [200, 50]
    assert [(skip.name, skip.reason) for skip in found.skipped] == [("rule 1", "EXCLUDED")]


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ({"valid_from": "2026-03-03T00:00:00Z"}, "NOT_VALID_NOW"),
        ({"valid_until": "2026-03-02T11:00:00Z"}, "NOT_VALID_NOW"),
        ({"valid_from": "2026-03-02T11:00:00Z"}, ""),
        ({"weekdays": [2]}, "OTHER_WEEKDAY"),
        ({"weekdays": [1]}, ""),
        ({"time_from": "12:00", "time_until": "13:00"}, ""),
        ({"time_from": "12:01"}, "OTHER_TIME"),
        ({"time_from": "22:00", "time_until": "12:00"}, "OTHER_TIME"),
        ({"time_from": "22:00", "time_until": "12:01"}, ""),
        ({"channels": ["POS"]}, "OTHER_CHANNEL"),
        ({"channels": ["Online"]}, ""),
        ({"stores": ["Mitte"]}, "OTHER_STORE"),
        ({"tiers": ["Gold"]}, "OTHER_TIER"),
        ({"tiers": ["SILVER"]}, ""),
        ({"segment_ids": ["a"]}, "OTHER_SEGMENT"),
        ({"segment_ids": ["a", "b"]}, ""),
    ],
)
def test_conditions(conditions: dict[str, Any], why: str) -> None:
    found = judged(
        buy(channel="online", store="Nord"),
        rule(conditions=conditions),
        tier="Silver",
        segment_ids=frozenset({"b"}) if len(conditions.get("segment_ids", ())) > 1 else frozenset(),
    )
    assert [skip.reason for skip in found.skipped] == ([why] if why else [])


def test_caps_per_order_day_and_month() -> None:
    capped = rule(caps={"per_order": 50, "per_day": 60, "per_month": 1000})
    assert judged(buy(), capped).points == 50
    assert judged(buy(), capped).awards[0].explanation.endswith("; at most 50 for an order")
    assert judged(buy(), capped, given_day={str(UUID(int=1)): 45}).points == 15
    full = judged(buy(), capped, given_month={str(UUID(int=1)): 1000})
    assert (full.points, full.skipped[0].reason) == (0, "CAP_REACHED")


def test_first_and_nth_orders() -> None:
    first = rule(1, bonus={"trigger": "BONUS_TRIGGER_FIRST_ORDER", "points": 10})
    third = rule(2, bonus={"trigger": "BONUS_TRIGGER_NTH_ORDER", "points": 5, "every": 3})
    once = rule(3, bonus={"trigger": "BONUS_TRIGGER_NTH_ORDER", "points": 1, "every": 3, "once": True})
    points = [judged(buy(), first, third, once, number=number).points for number in range(1, 7)]
    assert points == [10, 0, 6, 0, 0, 5]


def test_a_tier_multiplies_what_was_paid_alone() -> None:
    bonus = rule(2, bonus={"trigger": "BONUS_TRIGGER_FIRST_ORDER", "points": 50})
    found = judged(buy(), rule(), bonus, tier="GOLD", tier_percent=150)
    assert [(award.rule_id, award.points) for award in found.awards] == [
        (UUID(int=1), 100),
        (None, 50),
        (UUID(int=2), 50),
    ]
    assert found.awards[1].explanation == "× 1.5 on 100 points as GOLD"


def test_who_is_refused_earns_nothing() -> None:
    found = judged(buy(), rule(), refused="BLOCKED")
    assert (found.points, found.skipped[0].reason) == (0, "BLOCKED")


def test_below_the_minimum() -> None:
    least = rule(per_amount={"points": 1, "minimum_minor": "5000"})
    assert judged(buy(4_999), least).skipped[0].reason == "BELOW_MINIMUM"
    assert judged(buy(5_000), least).points == 50


def test_occasions() -> None:
    birthday = rule(bonus={"trigger": "BONUS_TRIGGER_BIRTHDAY", "points": 100})
    found = rules.occasion_award(birthday, rules.BIRTHDAY, NOON, Context(), ZONE)
    assert found is not None
    assert (found.points, found.explanation) == (100, "for the birthday")
    assert rules.occasion_award(birthday, rules.SIGN_UP, NOON, Context(), ZONE) is None
    quiz = rule(bonus={"trigger": "BONUS_TRIGGER_CUSTOM_EVENT", "points": 7, "event": "quiz"})
    assert rules.occasion_award(quiz, rules.CUSTOM_EVENT, NOON, Context(), ZONE, "poll") is None
    assert rules.occasion_award(quiz, rules.CUSTOM_EVENT, NOON, Context(), ZONE, "quiz") is not None


@pytest.mark.parametrize(
    ("kind", "months", "last_local_day"),
    [
        ("ROLLING", 12, date(2027, 3, 2)),
        ("END_OF_MONTH", 12, date(2027, 3, 31)),
        ("END_OF_QUARTER", 1, date(2026, 6, 30)),
        ("END_OF_YEAR", 12, date(2027, 12, 31)),
        ("END_OF_MONTH", 0, date(2026, 3, 31)),
        ("END_OF_QUARTER", 0, date(2026, 3, 31)),
        ("END_OF_YEAR", 0, date(2026, 12, 31)),
        ("INACTIVITY", 6, date(2026, 9, 2)),
    ],
)
def test_points_lapse_at_the_end_of_a_local_day(kind: str, months: int, last_local_day: date) -> None:
    settings = rules.settings_of({"expiry": f"EXPIRY_KIND_{kind}", "expiry_months": months})
    found = rules.expires_at(settings, NOON, ZONE)
    assert found is not None
    local = found.astimezone(ZONE)
    assert (local.date() - last_local_day).days == 1
    assert (local.hour, local.minute) == (0, 0)
    assert rules.expires_at(Settings(expiry="NEVER"), NOON, ZONE) is None


def test_months_end_where_they_must() -> None:
    assert rules.months_later(date(2024, 2, 29), 12) == date(2025, 2, 28)
    assert rules.months_later(date(2026, 1, 31), 1) == date(2026, 2, 28)


def test_leap_days() -> None:
    on = [day for day in (date(2027, 2, 28), date(2027, 3, 1)) if rules.falls_on(day, 2, 29, "FEBRUARY_28")]
    assert on == [date(2027, 2, 28)]
    on = [day for day in (date(2027, 2, 28), date(2027, 3, 1)) if rules.falls_on(day, 2, 29, "MARCH_1")]
    assert on == [date(2027, 3, 1)]
    assert rules.falls_on(date(2028, 2, 29), 2, 29, "MARCH_1")
    assert not rules.falls_on(date(2028, 3, 1), 2, 29, "MARCH_1")


@given(
    total=st.integers(0, 10**9),
    points=st.integers(1, 100),
    per=st.integers(1, 10**6),
    percent=st.integers(101, 1000),
    cap=st.integers(0, 10**6),
)
def test_points_are_never_negative_nor_above_the_cap(
    total: int, points: int, per: int, percent: int, cap: int
) -> None:
    found = judged(
        buy(total),
        rule(1, per_amount={"points": points, "per_minor": per}, caps={"per_order": cap}),
        rule(2, multiplier={"factor_percent": percent}),
    )
    assert all(award.points > 0 and award.explanation for award in found.awards)
    base = [award.points for award in found.awards if award.rule_id == UUID(int=1)]
    assert not base or base[0] == min(total * points // per, cap or 10**12)
    assert len(found.awards) + len(found.skipped) == 2
