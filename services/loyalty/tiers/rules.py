"""Which tier a member has by what was spent, visited and earned, and when one that is not earned any more is lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from services.loyalty.programs.rules import beginning, months_later

# Reasons of changes, as TierReason has them.
RULE, OVERRIDE, RECALCULATION, MERGE = 1, 2, 3, 4
REASONS = {RULE: "RULE", OVERRIDE: "OVERRIDE", RECALCULATION: "RECALCULATION", MERGE: "MERGE"}
_MONTHS = {"MONTHLY": 1, "QUARTERLY": 3, "YEARLY": 12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier. A threshold of 0 is not asked for."""

    name: str
    spending_minor: int = 0
    visits: int = 0
    points: int = 0
    earning_percent: int = 100
    birthday_points: int = 0
    perks: tuple[str, ...] = ()

    @property
    def thresholds(self) -> tuple[int, int, int]:
        """Spending, visits, points."""
        return self.spending_minor, self.visits, self.points


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The tiers of a program from the lowest to the highest, and how members are judged."""

    tiers: tuple[Tier, ...]
    period: str = "YEARLY"
    rolling: bool = False
    match_all: bool = False
    grace_months: int = 3

    def rank(self, name: str) -> int:
        """The place of a tier; the lowest for one that is there no more."""
        wanted = name.casefold()
        return next((i for i, tier in enumerate(self.tiers) if tier.name.casefold() == wanted), 0)

    def has(self, name: str) -> bool:
        """True if there is a tier of this name."""
        return any(tier.name.casefold() == name.casefold() for tier in self.tiers)

    def tier(self, name: str) -> Tier:
        """The tier of this name, else the lowest."""
        return self.tiers[self.rank(name)]


@dataclass(frozen=True, slots=True)
class Facts:
    """What counts of a member in a period: net spending in minor units, visits, points earned."""

    spending_minor: int = 0
    visits: int = 0
    points: int = 0

    @property
    def values(self) -> tuple[int, int, int]:
        """In the order of `Tier.thresholds`."""
        return self.spending_minor, self.visits, self.points


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a member stands. `review_at`: when the tier is judged next; None in the lowest tier."""

    tier: str
    since: datetime | None = None
    grace_until: datetime | None = None
    review_at: datetime | None = None
    override_until: datetime | None = None
    overridden: bool = False
    version: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A standing after it was judged; why the tier changed (0: it did not), and whether a fall was announced."""

    standing: Standing
    why: int = 0
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Periods:
    """First day of the period that counts now (None: all time), and first and last day of the one before."""

    start: date | None
    last_start: date | None
    last_end: date | None
    end: date | None


def ladder_of(stored: Mapping[str, Any]) -> Ladder:
    """A ladder from its stored form, which is that of the message."""
    return Ladder(
        tiers=tuple(
            Tier(
                name=tier["name"],
                spending_minor=int(tier.get("spending_minor", 0)),
                visits=int(tier.get("visits", 0)),
                points=int(tier.get("points", 0)),
                earning_percent=int(tier.get("earning_percent", 0)) or 100,
                birthday_points=int(tier.get("birthday_points", 0)),
                perks=tuple(tier.get("perks", ())),
            )
            for tier in stored["tiers"]
        ),
        period=str(stored.get("period", "TIER_PERIOD_YEARLY")).removeprefix("TIER_PERIOD_"),
        rolling=bool(stored.get("rolling", False)),
        match_all=stored.get("match") == "TIER_MATCH_ALL",
        grace_months=int(stored.get("grace_months", 3)),
    )


def faults(tiers: Sequence[Tier]) -> list[tuple[str, str]]:
    """What is wrong with tiers: (field, description). Thresholds rise from tier to tier; the lowest has none."""
    found = []
    seen: set[str] = set()
    for i, tier in enumerate(tiers):
        if tier.name.casefold() in seen:
            found.append((f"tiers[{i}].name", "must be unique in the program"))
        seen.add(tier.name.casefold())
    if any(tiers[0].thresholds):
        found.append(("tiers[0]", "the lowest tier has no thresholds"))
    names = ("spending_minor", "visits", "points")
    highest = dict.fromkeys(names, 0)
    for i, tier in enumerate(tiers[1:], 1):
        if not any(tier.thresholds):
            found.append((f"tiers[{i}]", "needs a threshold"))
        for name in names:
            value = getattr(tier, name)
            if highest[name] and value and value <= highest[name]:
                found.append((f"tiers[{i}].{name}", "must be above that of the tier before"))
            highest[name] = max(highest[name], value)
    return found


def earned(ladder: Ladder, facts: Facts) -> int:
    """The place of the highest tier that is reached."""
    for rank in range(len(ladder.tiers) - 1, 0, -1):
        reached = [
            value >= wanted
            for value, wanted in zip(facts.values, ladder.tiers[rank].thresholds, strict=True)
            if wanted
        ]
        if reached and (all(reached) if ladder.match_all else any(reached)):
            return rank
    return 0


def periods(ladder: Ladder, today: date) -> Periods:
    """What counts on a day of the business."""
    months = _MONTHS.get(ladder.period)
    if months is None:
        return Periods(None, None, None, None)
    if ladder.rolling:
        return Periods(months_later(today, -months) + timedelta(days=1), None, None, None)
    start = date(today.year, (today.month - 1) // months * months + 1, 1)
    following = months_later(start, months)
    return Periods(
        start, months_later(start, -months), start - timedelta(days=1), following - timedelta(days=1)
    )


def next_review(ladder: Ladder, now: datetime, zone: ZoneInfo) -> datetime:
    """When a tier is judged next: at the end of the calendar's period, else at the end of the day."""
    today = now.astimezone(zone).date()
    end = periods(ladder, today).end or today
    return beginning(end + timedelta(days=1), zone)


def judge(
    ladder: Ladder,
    standing: Standing,
    facts: Facts,
    before: Facts,
    now: datetime,
    zone: ZoneInfo,
    *,
    recalculating: bool = False,
) -> Verdict:
    """Where a member stands by the facts of the period so far and of the one before (none if it has no end).

    Rising is immediate. Falling is judged when a review is due, announced, and done after the grace period;
    a recalculation moves at once, but for who is in a grace that runs. An override holds until it ends.
    """
    ended = False
    if standing.overridden:
        if is_overridden(standing, now):
            return Verdict(standing)
        ended = True
        standing = replace(standing, overridden=False, override_until=None)
    rank, current = earned(ladder, facts), ladder.rank(standing.tier)
    review = next_review(ladder, now, zone)
    worth = max(rank, earned(ladder, before))

    def moved(to: int, why: int) -> Verdict:
        after = replace(
            standing,
            tier=ladder.tiers[to].name,
            since=now,
            grace_until=None,
            review_at=review if to else None,
        )
        return Verdict(after, why)

    if ended and worth != current:
        return moved(worth, OVERRIDE)
    spared = standing.grace_until is not None and standing.grace_until > now and worth < current
    if recalculating and (worth != current or not ladder.has(standing.tier)) and not spared:
        return moved(worth, RECALCULATION)
    if rank > current:
        return moved(rank, RULE)
    if standing.grace_until is not None and rank >= current:
        return Verdict(replace(standing, grace_until=None, review_at=review if current else None))
    due = standing.review_at is not None and standing.review_at <= now
    if not due:
        fresh = review if current and standing.review_at is None else standing.review_at
        return Verdict(replace(standing, review_at=fresh))
    if worth >= current:
        return Verdict(replace(standing, grace_until=None, review_at=review if current else None))
    if standing.grace_until is None and ladder.grace_months:
        last = months_later(now.astimezone(zone).date(), ladder.grace_months)
        until = beginning(last, zone)
        return Verdict(replace(standing, grace_until=until, review_at=until), announced=True)
    return moved(worth, RULE)


def is_past(standing: Standing, now: datetime) -> bool:
    """True if the standing is to be judged by now: an override has ended, or a period, or a grace."""
    ends = standing.override_until if standing.overridden else standing.review_at
    return ends is not None and ends <= now


def as_of(
    ladder: Ladder, standing: Standing, facts: Facts, before: Facts, now: datetime, zone: ZoneInfo
) -> Standing:
    """Where a member stands by now, also if what has ended was not written down yet."""
    past = is_past(standing, now)
    return judge(ladder, standing, facts, before, now, zone).standing if past else standing


def judges_alike(one: Ladder, other: Ladder) -> bool:
    """True if nobody stands elsewhere by one ladder than by the other: what they ask for is the same."""

    def asked(of: Ladder) -> tuple[object, ...]:
        tiers = [(tier.name, tier.thresholds) for tier in of.tiers]
        return tiers, of.period, of.rolling, of.match_all

    return asked(one) == asked(other)


def is_overridden(standing: Standing, now: datetime) -> bool:
    """True while an override holds."""
    return standing.overridden and (standing.override_until is None or standing.override_until > now)


def overridden(standing: Standing, tier: str, until: datetime | None, now: datetime) -> Standing:
    """Where a member stands whom staff put into a tier."""
    return replace(
        standing,
        tier=tier,
        since=standing.since if tier == standing.tier else now,
        grace_until=None,
        review_at=None,
        overridden=True,
        override_until=until,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """What is missing to the next tier; `percent` 0 to 99."""

    next_tier: str
    percent: int
    missing: Facts


def progress(ladder: Ladder, tier: str, facts: Facts) -> Progress | None:
    """How far a member has come to the next tier; None in the highest."""
    rank = ladder.rank(tier)
    if rank + 1 >= len(ladder.tiers):
        return None
    following = ladder.tiers[rank + 1]
    shares = [
        min(max(value, 0) * 100 // wanted, 100)
        for value, wanted in zip(facts.values, following.thresholds, strict=True)
        if wanted
    ]
    percent = (min(shares) if ladder.match_all else max(shares)) if shares else 0
    missing = Facts(
        *(
            max(wanted - value, 0) if wanted else 0
            for value, wanted in zip(facts.values, following.thresholds, strict=True)
        )
    )
    return Progress(following.name, min(percent, 99), missing)
