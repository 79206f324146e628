"""What was found for reports, as their rows."""

from collections.abc import Mapping
from datetime import date
from uuid import UUID

from regulars.loyalty.v1 import reports_pb2 as pb
from services.loyalty.programs.queries import Program
from services.loyalty.reports.cohorts import Cohort, Month
from services.loyalty.reports.rewards import Became


def percent(part: int, whole: int) -> float:
    """Of 100, to two places. 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0


def popularity(into: pb.Report, found: Mapping[UUID | date, Became], names: Mapping[UUID, str]) -> None:
    """A row for each reward, the most wanted first."""
    for key, became in sorted(found.items(), key=lambda each: (-each[1].redeemed, str(each[0]))):
        assert isinstance(key, UUID)
        figures = into.rows.add().reward
        figures.reward_id, figures.name = str(key), names[key]
        _became(figures, became)
    _became(into.total.reward, sum(found.values(), Became()))


def _became(figures: pb.RewardFigures, became: Became) -> None:
    figures.redeemed, figures.used = became.redeemed, became.used
    figures.cancelled, figures.expired = became.cancelled, became.expired
    figures.spent_points = became.spent - became.returned
    figures.used_minor = became.used_minor


def costs(
    into: pb.Report,
    program: Program,
    issued: Mapping[date, int],
    used: Mapping[UUID | date, Became],
    revenue: Mapping[date, tuple[int, int]],
) -> None:
    """A row for each day or month in which something was issued, used or bought."""
    hundred = program.settings.hundred_points_minor
    for day in sorted({*issued, *revenue, *(day for day in used if isinstance(day, date))}):
        figures = into.rows.add(day=day.isoformat()).costs
        figures.issued_minor = issued.get(day, 0) * hundred // 100
        figures.rewards_minor = used.get(day, Became()).used_minor
        figures.orders, figures.revenue_minor = revenue.get(day, (0, 0))
    total = into.total.costs
    total.issued_minor = sum(issued.values()) * hundred // 100
    for row in into.rows:
        total.rewards_minor += row.costs.rewards_minor
        total.revenue_minor += row.costs.revenue_minor
        total.orders += row.costs.orders
    for figures in (total, *(row.costs for row in into.rows)):
        figures.issued_percent = percent(figures.issued_minor, figures.revenue_minor)
        figures.rewards_percent = percent(figures.rewards_minor, figures.revenue_minor)


def cohorts(into: pb.Report, found: Mapping[date, Cohort]) -> None:
    """A row for each month in which somebody joined."""
    for joined, cohort in sorted(found.items()):
        figures = into.rows.add(day=joined.isoformat()).cohort
        figures.members = cohort.members
        into.total.cohort.members += cohort.members
        for month, did in sorted(cohort.months.items()):
            _month(figures, joined, month, did)


def _month(figures: pb.CohortFigures, joined: date, month: date, did: Month) -> None:
    figures.months.add(
        number=(month.year - joined.year) * 12 + month.month - joined.month,
        active=did.active,
        active_percent=percent(did.active, figures.members),
        issued_points=did.issued,
        redeemed_points=did.redeemed,
    )
