"""RPCs about reports."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from libs.db import Tx
from libs.instants import stamp
from libs.problems import InvalidArgument
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import reports_pb2 as pb
from regulars.loyalty.v1.referrals_pb2 import GetReferralReportRequest
from regulars.loyalty.v1.reports_pb2_grpc import ReportsServiceServicer
from services.loyalty.problems import ReportNotFound
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import months_later
from services.loyalty.reports import cohorts, queries, revenue, rewards, wire
from services.loyalty.tiers import queries as tiers
from services.loyalty.tiers.rules import Ladder

NAMES = {"points", "tiers", "rewards", "costs", "cohorts"}
DEFAULT_DAYS, MOST_DAYS = 30, 3_660
_UNITS = {pb.REPORT_GROUPING_MONTH: "month", pb.REPORT_GROUPING_TIER: "tier"}


class ReportsService(ReportsServiceServicer):
    """See reports.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.Report:
        name = request.report or "points"
        if name not in NAMES:
            raise ReportNotFound
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            first, last = days(request, tx.now.astimezone(program.zone).date(), name)
            of = await tiers.ladder(tx, program.program_id)
            found = pb.Report(
                report=name,
                program_id=str(program.program_id),
                first_day=first.isoformat(),
                last_day=last.isoformat(),
                currency=program.currency,
                as_of=stamp(tx.now),
            )
            unit = _UNITS.get(request.by, "day")
            if name == "tiers":
                await _tiers(tx, program, of, first, last, found)
            elif name == "rewards":
                became = await rewards.became(tx, program, first, last, "reward")
                wire.popularity(found, became, await rewards.names(tx, became))
            elif name == "costs":
                await _costs(tx, program, first, last, unit, found)
            elif name == "cohorts":
                wire.cohorts(found, await cohorts.cohorts(tx, program, first, last))
            else:
                await _points(tx, program, of, first, last, unit, found)
        return found


def days(
    request: pb.GetReportRequest | GetReferralReportRequest, today: date, name: str = ""
) -> tuple[date, date]:
    """First and last day that a report is about. Raises InvalidArgument."""
    last = _day(request.last_day, "last_day") or today
    usual = months_later(last, -12) if name == "cohorts" else last - timedelta(days=DEFAULT_DAYS - 1)
    first = _day(request.first_day, "first_day") or usual
    if name == "cohorts":
        first = first.replace(day=1)
    if first > last:
        raise InvalidArgument.of("first_day", "must not be after the last day", "OUT_OF_RANGE")
    if (last - first).days > MOST_DAYS:
        raise InvalidArgument.of("first_day", "at most 3,660 days before the last one", "OUT_OF_RANGE")
    return first, last


def _day(text: str, field: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidArgument.of(field, "must be a day, YYYY-MM-DD", "MALFORMED") from None


async def _points(
    tx: Tx, program: Program, of: Ladder, first: date, last: date, unit: str, into: pb.Report
) -> None:
    rows = await queries.points(tx, program, first, last, unit)
    outstanding = sum(int(row.change) for row in rows if row.before)
    during = [row for row in rows if not row.before]
    into.total.points.outstanding_points = outstanding + sum(int(row.change) for row in during)
    if unit == "tier":
        by_tier: dict[str, Any] = {}
        for row in during:
            into_row = by_tier.setdefault(of.tier(row.tier).name, pb.PointsFigures())
            _add(into_row, row)
        for row in await queries.tiers(tx, program):
            figures = by_tier.setdefault(of.tier(row.tier).name, pb.PointsFigures())
            figures.outstanding_points += int(row.points)
        for tier in of.tiers:
            if tier.name in by_tier:
                into.rows.add(tier=tier.name, points=by_tier[tier.name])
    else:
        for row in during:
            outstanding += int(row.change)
            figures = into.rows.add(day=row.period.isoformat()).points
            _add(figures, row)
            figures.outstanding_points = outstanding
    for row in during:
        _add(into.total.points, row)
    for figures in (into.total.points, *(row.points for row in into.rows)):
        _value(figures, program)


def _add(figures: pb.PointsFigures, row: Any) -> None:
    figures.issued_points += int(row.issued)
    figures.redeemed_points += int(row.redeemed)
    figures.expired_points += int(row.expired)
    figures.reclaimed_points += int(row.reclaimed)
    figures.removed_points += int(row.removed)


def _value(figures: pb.PointsFigures, program: Program) -> None:
    """Points in money, and how many lapsed."""
    hundred = program.settings.hundred_points_minor
    figures.outstanding_minor = figures.outstanding_points * hundred // 100
    figures.redeemed_minor = figures.redeemed_points * hundred // 100
    if figures.issued_points:
        figures.breakage_percent = round(100 * figures.expired_points / figures.issued_points, 2)


async def _costs(tx: Tx, program: Program, first: date, last: date, unit: str, into: pb.Report) -> None:
    if unit == "tier":
        raise InvalidArgument.of("by", "costs are by day or month", "INVALID")
    issued = {
        row.period: int(row.issued)
        for row in await queries.points(tx, program, first, last, unit)
        if not row.before
    }
    used = await rewards.became(tx, program, first, last, unit)
    earned = await revenue.revenue(tx, program.business_id, first, last, unit)
    wire.costs(into, program, issued, used, earned)


async def _tiers(tx: Tx, program: Program, of: Ladder, first: date, last: date, into: pb.Report) -> None:
    rows = {tier.name: into.rows.add(tier=tier.name) for tier in of.tiers}
    for found in await queries.tiers(tx, program):
        row = rows[of.tier(found.tier).name]
        row.members += found.members
        row.points.outstanding_points += int(found.points)
    there = await tiers.count_members(tx, program.business_id)
    rows[of.tiers[0].name].members += max(there - sum(row.members for row in rows.values()), 0)
    rose = 0
    for move in await queries.moves(tx, program, first, last + timedelta(days=1)):
        up = of.rank(move.to_tier) > of.rank(move.from_tier)
        rose += move.members if up else 0
        row = rows[of.tier(move.to_tier).name]
        row.upgrades += move.moves if up else 0
        row.downgrades += 0 if up else move.moves
    for row in rows.values():
        _value(row.points, program)
        row.upgrade_percent = wire.percent(row.upgrades, row.members)
    _sum(into.total, rows.values())
    if into.total.members:
        into.upgrade_percent = round(100 * rose / into.total.members, 2)


def _sum(total: pb.ReportRow, rows: Iterable[pb.ReportRow]) -> None:
    for row in rows:
        total.members += row.members
        total.upgrades += row.upgrades
        total.downgrades += row.downgrades
        total.points.outstanding_points += row.points.outstanding_points
        total.points.outstanding_minor += row.points.outstanding_minor
