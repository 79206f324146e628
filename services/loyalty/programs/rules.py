"""What an order or an occasion earns by a program's rules, why each point is given, and when points lapse."""

import calendar
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from libs.money import MINOR_DIGITS

# Kinds of rules, in the order of their evaluation.
PER_AMOUNT, MULTIPLIER, BONUS, STAMP_CARD = "per_amount", "multiplier", "bonus", "stamp_card"
KINDS = (PER_AMOUNT, MULTIPLIER, BONUS, STAMP_CARD)
ENDS_OF_PERIODS = {"END_OF_MONTH", "END_OF_QUARTER", "END_OF_YEAR"}
# What bonuses are given for besides orders.
SIGN_UP, BIRTHDAY, ANNIVERSARY = "SIGN_UP", "BIRTHDAY", "ANNIVERSARY"
CUSTOM_EVENT, REVIEW, REFERRAL = "CUSTOM_EVENT", "REVIEW", "REFERRAL"
PROFILE_COMPLETED = "PROFILE_COMPLETED"
FIRST_ORDER, NTH_ORDER = "FIRST_ORDER", "NTH_ORDER"
_ENUM_PREFIX = {
    "trigger": "BONUS_TRIGGER_",
    "rounding": "ROUNDING_",
    "rounding_scope": "ROUNDING_SCOPE_",
    "expiry": "EXPIRY_KIND_",
    "return_policy": "RETURN_POLICY_",
    "leap_day": "LEAP_DAY_",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a program works; see ProgramSettings. Numbers are never absent; `referrals` as they are stored."""

    expiry: str = "ROLLING"
    expiry_months: int = 12
    expiring_notice_days: int = 30
    pending_days: int = 0
    return_policy: str = "WITHIN_BALANCE"
    returned_points_days: int = 0
    hold_seconds: int = 900
    transfers_allowed: bool = False
    guests_excluded: bool = False
    leap_day: str = "FEBRUARY_28"
    hundred_points_minor: int = 100
    transferable_points_per_month: int = 0
    referrals: Mapping[str, Any] = field(default_factory=dict)
    pooling_allowed: bool = False
    largest_household: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a rule is limited to; empty limits nothing. Texts of orders are compared without regard to case."""

    valid_from: datetime | None = None
    valid_until: datetime | None = None
    tiers: frozenset[str] = frozenset()
    segment_ids: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    brands: frozenset[str] = frozenset()
    skus: frozenset[str] = frozenset()
    weekdays: frozenset[int] = frozenset()
    time_from: time | None = None
    time_until: time | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An earning rule. `terms` are the fields of its kind, enums without prefix."""

    rule_id: UUID
    name: str
    kind: str
    terms: Mapping[str, Any]
    conditions: Conditions = Conditions()
    per_order: int = 0
    per_day: int = 0
    per_month: int = 0
    priority: int = 0
    exclusive: bool = False
    active: bool = True

    @property
    def capped_by_time(self) -> bool:
        """True if what it gave on other occasions counts."""
        return bool(self.per_day or self.per_month)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an order. `amount_minor` is after the line's own discount."""

    sku: str
    category: str
    brand: str
    quantity: int
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What counts of an order. Amounts are minor units of `currency`; `total_minor` is before refunds."""

    placed_at: datetime
    currency: str
    total_minor: int
    subtotal_minor: int = 0
    discount_minor: int = 0
    shipping_minor: int = 0
    tax_minor: int = 0
    channel: str = ""
    store: str = ""
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Whose order it is: what was true of the member when it was first judged.

    `number` counts the member's completed orders, this one included. `given_day` and `given_month` are what
    rules (by id) gave the member on that day and in that month before. `refused` says why nothing is earned.
    """

    tier: str = ""
    tier_percent: int = 100
    segment_ids: frozenset[str] = frozenset()
    number: int = 1
    given_day: Mapping[str, int] = field(default_factory=dict)
    given_month: Mapping[str, int] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Award:
    """Points of one rule, and how it came to them. `rule_id` is None for a tier's multiplier."""

    rule_id: UUID | None
    name: str
    points: int
    explanation: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule that gives nothing, and why (UPPER_SNAKE)."""

    rule_id: UUID
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an order earns."""

    awards: tuple[Award, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def points(self) -> int:
        """All of them."""
        return sum(award.points for award in self.awards)


def settings_of(stored: Mapping[str, Any]) -> Settings:
    """Settings from their stored form, which is that of the message."""
    known = {name: value for name, value in _plain(stored).items() if value and name in Settings.__slots__}
    if known.get("expiry") in ENDS_OF_PERIODS:
        known.setdefault("expiry_months", 0)
    return Settings(**known)


def rule_of(rule_id: UUID, stored: Mapping[str, Any]) -> Rule:
    """A rule from its stored form, which is that of the message."""
    kind = next(kind for kind in KINDS if kind in stored)
    conditions, caps = stored.get("conditions", {}), stored.get("caps", {})
    return Rule(
        rule_id=rule_id,
        name=stored.get("name", ""),
        kind=kind,
        terms=_plain(stored[kind]),
        conditions=_conditions(conditions),
        per_order=int(caps.get("per_order", 0)),
        per_day=int(caps.get("per_day", 0)),
        per_month=int(caps.get("per_month", 0)),
        priority=int(stored.get("priority", 0)),
        exclusive=bool(stored.get("exclusive", False)),
        active=bool(stored.get("active", True)),
    )


def judge(rules: Iterable[Rule], purchase: Purchase, context: Context, zone: ZoneInfo) -> Judgement:
    """What a completed order earns by these rules, and why. The same input always gives the same."""
    ordered = sorted(rules, key=lambda rule: (KINDS.index(rule.kind), rule.priority, rule.rule_id))
    if context.refused:
        return Judgement(skipped=tuple(Skipped(r.rule_id, r.name, context.refused) for r in ordered))
    local = purchase.placed_at.astimezone(zone)
    awards: list[Award] = []
    skipped: list[Skipped] = []
    closed: set[str] = set()
    # Points for what was paid, by rule: on them multipliers work.
    paid: list[tuple[Rule, int]] = []
    tier_done = False
    for rule in ordered:
        if rule.kind != PER_AMOUNT and not tier_done:
            tier_done = True
            awards += _tier_award(context, sum(points for _, points in paid))
        why = "EXCLUDED" if rule.kind in closed else _why_not(rule, purchase, context, local)
        award: Award | None = None
        if not why:
            if rule.kind == PER_AMOUNT:
                award, why = _per_amount(rule, purchase)
            elif rule.kind == MULTIPLIER:
                award, why = _multiplied(rule, purchase, paid)
            elif rule.kind == BONUS:
                award, why = _order_bonus(rule, context.number)
            else:
                why = "COUNTED_BY_CARD"
        if award is not None:
            award = _capped(rule, award, context)
            why = "" if award.points else "CAP_REACHED"
        if award is None or not award.points:
            skipped.append(Skipped(rule.rule_id, rule.name, why))
            continue
        awards.append(award)
        if rule.kind == PER_AMOUNT:
            paid.append((rule, award.points))
        if rule.exclusive:
            closed.add(rule.kind)
    if not tier_done:
        awards += _tier_award(context, sum(points for _, points in paid))
    return Judgement(tuple(awards), tuple(skipped))


def occasion_award(
    rule: Rule, trigger: str, at: datetime, context: Context, zone: ZoneInfo, event: str = ""
) -> Award | None:
    """What a bonus rule gives for something that is no order (a birthday, a review); None: nothing."""
    terms = rule.terms
    if rule.kind != BONUS or terms.get("trigger") != trigger or context.refused:
        return None
    if trigger == CUSTOM_EVENT and terms.get("event") != event:
        return None
    if _why_not_now(rule, at.astimezone(zone), at) or _why_not_them(rule, context):
        return None
    told = {
        SIGN_UP: "for becoming a member",
        BIRTHDAY: "for the birthday",
        ANNIVERSARY: "for another year as a member",
        REVIEW: "for a review",
        REFERRAL: "for a friend who came to stay",
        PROFILE_COMPLETED: "for a complete profile",
        CUSTOM_EVENT: f"for “{event}”",
    }.get(trigger, f"for {trigger.lower().replace('_', ' ')}")
    award = _capped(rule, Award(rule.rule_id, rule.name, int(terms["points"]), told), context)
    return award if award.points else None


def matching(rule: Rule, purchase: Purchase) -> list[Line]:
    """The lines that a rule counts."""
    wanted = rule.conditions
    return [
        line
        for line in purchase.lines
        if (not wanted.categories or line.category.casefold() in wanted.categories)
        and (not wanted.brands or line.brand.casefold() in wanted.brands)
        and (not wanted.skus or line.sku.casefold() in wanted.skus)
    ]


def chooses_lines(rule: Rule) -> bool:
    """True if a rule does not count every line."""
    wanted = rule.conditions
    return bool(wanted.categories or wanted.brands or wanted.skus)


def counted_minor(rule: Rule, purchase: Purchase) -> int:
    """What a rule counts of a whole order, before it chooses lines: net of what its terms leave out."""
    terms = rule.terms
    counted = purchase.total_minor
    if terms.get("without_tax"):
        counted -= purchase.tax_minor
    if not terms.get("with_shipping"):
        counted -= purchase.shipping_minor
    if terms.get("before_discount"):
        counted += purchase.discount_minor
    return max(counted, 0)


def is_for(rule: Rule, purchase: Purchase, context: Context, zone: ZoneInfo) -> bool:
    """True if a rule's conditions let this order in."""
    return not context.refused and not _why_not(rule, purchase, context, purchase.placed_at.astimezone(zone))


def available_at(settings: Settings, at: datetime) -> datetime:
    """When points that are earned at an instant can be spent."""
    return at + timedelta(days=settings.pending_days)


def expires_at(settings: Settings, at: datetime, zone: ZoneInfo) -> datetime | None:
    """When points that are earned at an instant lapse: the first instant at which they are no more."""
    if settings.expiry == "NEVER":
        return None
    last = months_later(at.astimezone(zone).date(), settings.expiry_months)
    if settings.expiry == "END_OF_MONTH":
        last = _end_of_month(last.year, last.month)
    elif settings.expiry == "END_OF_QUARTER":
        last = _end_of_month(last.year, (last.month + 2) // 3 * 3)
    elif settings.expiry == "END_OF_YEAR":
        last = date(last.year, 12, 31)
    return beginning(last + timedelta(days=1), zone)


def months_later(day: date, months: int) -> date:
    """The same day some months later; the last of the month where there is none."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def beginning(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which a day begins somewhere."""
    return datetime.combine(day, time(), zone).astimezone(ZoneInfo("UTC"))


def falls_on(day: date, month: int, day_of_month: int, leap_day: str) -> bool:
    """True if something yearly of this date falls due on `day`; 29 February as `leap_day` says in other years."""
    if (month, day_of_month) == (2, 29) and not calendar.isleap(day.year):
        month, day_of_month = (3, 1) if leap_day == "MARCH_1" else (2, 28)
    return (day.month, day.day) == (month, day_of_month)


def _plain(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as numbers and enums without their prefix; an unspecified enum is left out."""
    found: dict[str, Any] = {}
    for name, value in stored.items():
        prefix = _ENUM_PREFIX.get(name)
        if prefix is not None:
            plain = str(value).removeprefix(prefix)
            if plain != "UNSPECIFIED":
                found[name] = plain
        else:
            found[name] = int(value) if isinstance(value, str) and name.endswith("_minor") else value
    return found


def _conditions(stored: Mapping[str, Any]) -> Conditions:
    def texts(name: str) -> frozenset[str]:
        return frozenset(text.casefold() for text in stored.get(name, ()))

    def instant(name: str) -> datetime | None:
        return datetime.fromisoformat(stored[name]) if stored.get(name) else None

    def clock(name: str) -> time | None:
        return time.fromisoformat(stored[name]) if stored.get(name) else None

    return Conditions(
        valid_from=instant("valid_from"),
        valid_until=instant("valid_until"),
        tiers=texts("tiers"),
        segment_ids=texts("segment_ids"),
        channels=texts("channels"),
        stores=texts("stores"),
        categories=texts("categories"),
        brands=texts("brands"),
        skus=texts("skus"),
        weekdays=frozenset(stored.get("weekdays", ())),
        time_from=clock("time_from"),
        time_until=clock("time_until"),
    )


def _why_not(rule: Rule, purchase: Purchase, context: Context, local: datetime) -> str:
    wanted = rule.conditions
    why = _why_not_now(rule, local, purchase.placed_at) or _why_not_them(rule, context)
    if why:
        return why
    if wanted.channels and purchase.channel.casefold() not in wanted.channels:
        return "OTHER_CHANNEL"
    if wanted.stores and purchase.store.casefold() not in wanted.stores:
        return "OTHER_STORE"
    if chooses_lines(rule) and not matching(rule, purchase):
        return "NO_MATCHING_ITEM"
    return ""


def _why_not_now(rule: Rule, local: datetime, at: datetime) -> str:
    wanted = rule.conditions
    if not rule.active:
        return "INACTIVE"
    if (wanted.valid_from and at < wanted.valid_from) or (wanted.valid_until and at >= wanted.valid_until):
        return "NOT_VALID_NOW"
    if wanted.weekdays and local.isoweekday() not in wanted.weekdays:
        return "OTHER_WEEKDAY"
    since, until = wanted.time_from, wanted.time_until
    if since or until:
        clock, since, until = local.time(), since or time(), until or time.max
        inside = since <= clock < until if since <= until else (clock >= since or clock < until)
        if not inside:
            return "OTHER_TIME"
    return ""


def _why_not_them(rule: Rule, context: Context) -> str:
    wanted = rule.conditions
    if wanted.tiers and context.tier.casefold() not in wanted.tiers:
        return "OTHER_TIER"
    if wanted.segment_ids and not wanted.segment_ids & context.segment_ids:
        return "OTHER_SEGMENT"
    return ""


def _share(rule: Rule, purchase: Purchase, counted: int) -> Fraction:
    """What a rule counts of an order's counted amount: the share of the lines that it chooses."""
    if not chooses_lines(rule):
        return Fraction(counted)
    whole = sum(line.amount_minor for line in purchase.lines)
    mine = sum(line.amount_minor for line in matching(rule, purchase))
    return Fraction(counted * mine, whole) if whole else Fraction(0)


def _per_amount(rule: Rule, purchase: Purchase) -> tuple[Award | None, str]:
    terms = rule.terms
    counted = counted_minor(rule, purchase)
    base = _share(rule, purchase, counted)
    digits = MINOR_DIGITS.get(purchase.currency, 2)
    per = int(terms.get("per_minor") or 10**digits)
    rate = Fraction(int(terms["points"]), per)
    if not base or base < int(terms.get("minimum_minor") or 0):
        return None, "BELOW_MINIMUM"
    if terms.get("rounding_scope") == "LINE" and purchase.lines:
        whole = sum(line.amount_minor for line in purchase.lines) or 1
        lines = matching(rule, purchase) if chooses_lines(rule) else list(purchase.lines)
        points = sum(_rounded(Fraction(counted * line.amount_minor, whole) * rate, terms) for line in lines)
    else:
        points = _rounded(base * rate, terms)
    if not points:
        return None, "BELOW_ONE_POINT"
    each = int(terms["points"])
    told = (
        f"{each} {_points(each)} for each {_money(per, purchase.currency, digits)} of"
        f" {_money(int(base), purchase.currency, digits)}"
    )
    return Award(rule.rule_id, rule.name, points, told), ""


def _multiplied(rule: Rule, purchase: Purchase, paid: Sequence[tuple[Rule, int]]) -> tuple[Award | None, str]:
    points = sum(given for _, given in paid)
    if not points:
        return None, "NOTHING_TO_MULTIPLY"
    percent = int(rule.terms["factor_percent"])
    share = Fraction(1)
    if chooses_lines(rule):
        whole = sum(line.amount_minor for line in purchase.lines)
        mine = sum(line.amount_minor for line in matching(rule, purchase))
        share = Fraction(mine, whole) if whole else Fraction(0)
    extra = _rounded(points * share * Fraction(percent - 100, 100), rule.terms)
    if not extra:
        return None, "BELOW_ONE_POINT"
    on = int(points * share)
    told = f"× {_factor(percent)} on {on} {_points(on)}"
    return Award(rule.rule_id, rule.name, extra, told), ""


def _tier_award(context: Context, points: int) -> list[Award]:
    extra = points * (context.tier_percent - 100) // 100
    if extra <= 0:
        return []
    told = f"× {_factor(context.tier_percent)} on {points} {_points(points)} as {context.tier}"
    return [Award(None, context.tier, extra, told)]


def _order_bonus(rule: Rule, number: int) -> tuple[Award | None, str]:
    terms = rule.terms
    points = int(terms["points"])
    if terms["trigger"] == FIRST_ORDER:
        if number != 1:
            return None, "OTHER_ORDER"
        return Award(rule.rule_id, rule.name, points, "for the first order"), ""
    if terms["trigger"] == NTH_ORDER:
        every = int(terms.get("every") or 2)
        if number != every if terms.get("once") else number % every:
            return None, "OTHER_ORDER"
        return Award(rule.rule_id, rule.name, points, f"for order number {number}"), ""
    return None, "NOT_FOR_ORDERS"


def _capped(rule: Rule, award: Award, context: Context) -> Award:
    key = str(rule.rule_id)
    room, named = award.points, ""
    for cap, given, told in (
        (rule.per_order, 0, "an order"),
        (rule.per_day, context.given_day.get(key, 0), "a day"),
        (rule.per_month, context.given_month.get(key, 0), "a month"),
    ):
        if cap and cap - given < room:
            room, named = (
                max(cap - given, 0),
                f"at most {cap} in {told}" if told != "an order" else (f"at most {cap} for an order"),
            )
    if room == award.points:
        return award
    return replace(award, points=room, explanation=f"{award.explanation}; {named}")


def _rounded(value: Fraction, terms: Mapping[str, Any]) -> int:
    if terms.get("rounding") == "HALF_UP":
        value += Fraction(1, 2)
    return value.numerator // value.denominator


def _end_of_month(year: int, month: int) -> date:
    return date(year, month, calendar.monthrange(year, month)[1])


def _points(count: int) -> str:
    return "point" if count == 1 else "points"


def _factor(percent: int) -> str:
    whole, rest = divmod(percent, 100)
    return f"{whole}.{rest:02}".rstrip("0").rstrip(".")


def _money(minor: int, currency: str, digits: int) -> str:
    whole, rest = divmod(minor, 10**digits)
    return f"{whole}.{rest:0{digits}} {currency}" if digits else f"{whole} {currency}"
