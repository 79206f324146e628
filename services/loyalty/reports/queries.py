"""Reads of reports: folded days and what was booked since, tiers with their members and moves."""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Date, DateTime, Row, bindparam, select, text

from libs.db import Tx
from services.loyalty.ledger import writing
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import beginning
from services.loyalty.reports.tables import report_marks

_EVER = datetime(1, 1, 1, tzinfo=UTC)

# Rows by `unit` (day, month, or "tier": one for each), and one without period for all that was before.
_POINTS = text("""
    with since as materialized (
        select e.booked_at, e.kind, e.points, e.balance_points, e.pending_points, e.reverses_id, e.account_id
        from entries e
        where e.tenant_id = :tenant and e.business_id = :business
          and (cast(:hint as timestamptz) is null or e.booked_at >= :hint) and e.booked_at >= coalesce(
              (select m.folded_until from report_marks m where m.tenant_id = :tenant), '-infinity')
    ), whole as (
        select d.day, d.tier, d.issued, d.redeemed, d.expired, d.reclaimed, d.removed, d.change from report_days d
        where d.tenant_id = :tenant and d.program_id = :program
        union all
        select cast(e.booked_at at time zone :zone as date), coalesce(s.tier, ''),
               coalesce(sum(e.points) filter (where e.kind = 1 or (e.kind = 4 and e.points > 0)), 0),
               coalesce(-sum(e.points) filter (where e.kind = 2
                    or (e.kind = 5 and e.reverses_id is not null and e.points > 0)), 0),
               coalesce(-sum(e.points) filter (where e.kind = 3), 0),
               coalesce(-sum(e.points) filter (where e.kind = 5 and e.reverses_id is null), 0),
               coalesce(-sum(e.points) filter (where e.points < 0
                    and (e.kind = 4 or (e.kind = 5 and e.reverses_id is not null))), 0),
               sum(e.balance_points + e.pending_points)
        from since e
        cross join lateral (
            select from accounts a
            where a.tenant_id = :tenant and a.account_id = e.account_id and a.program_id = :program limit 1
        ) a
        left join lateral (
            select s.tier from standings s where s.tenant_id = :tenant and s.account_id = e.account_id limit 1
        ) s on true
        group by 1, 2
    )
    select case when day >= :first and :unit <> 'tier' then cast(date_trunc(:unit, day) as date) end as period,
           case when :unit = 'tier' and day >= :first then tier end as tier, day < :first as before,
           sum(issued) as issued, sum(redeemed) as redeemed, sum(expired) as expired, sum(reclaimed) as reclaimed,
           sum(removed) as removed, sum(change) as change
    from whole where day <= :last
    group by 1, 2, 3 order by 3 desc, 1, 2
""").bindparams(
    bindparam("first", type_=Date),
    bindparam("last", type_=Date),
    bindparam("hint", type_=DateTime(timezone=True)),
)

# Present members with an account, by tier, and what all accounts have.
_TIERS = text("""
    with gone as (
        select m.customer_id from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and (m.deleted or not m.present)
    )
    select coalesce(s.tier, '') as tier, count(*) filter (where g.customer_id is null) as members,
           sum(a.balance + a.pending) as points
    from accounts a
    left join standings s on s.tenant_id = :tenant and s.program_id = :program and s.account_id = a.account_id
    left join gone g on g.customer_id = a.customer_id
    where a.tenant_id = :tenant and a.program_id = :program and a.merged_into is null
    group by 1
""")
_MOVES = text("""
    select c.from_tier, c.to_tier, count(*) as moves, count(distinct c.account_id) as members
    from tier_changes c join accounts a on a.tenant_id = c.tenant_id and a.account_id = c.account_id
    where c.tenant_id = :tenant and c.business_id = :business and a.program_id = :program
      and c.changed_at >= :begin and c.changed_at < :end and c.from_tier <> c.to_tier
    group by 1, 2
""")
# Masses are hashed in memory, whatever was set before for look-ups by key.
_IN_MASS = text("""
    select set_config('enable_nestloop', 'off', true), set_config('enable_hashjoin', 'on', true),
           set_config('enable_seqscan', 'on', true), set_config('work_mem', '160MB', true)
""")


async def points(tx: Tx, program: Program, first: date, last: date, unit: str) -> list[Row[Any]]:
    """What happened to a program's points from day to day: by "day", "month" or "tier"; first what was before."""
    await tx.execute(writing.BY_KEY)
    # A mark only rises: the planner knows how little there is since, and the statement itself looks again.
    mark = select(report_marks.c.folded_until).where(
        report_marks.c.tenant_id == tx.tenant_id, report_marks.c.folded_until > _EVER
    )
    where = {
        "hint": await tx.scalar(mark),
        "tenant": tx.tenant_id,
        "business": program.business_id,
        "program": program.program_id,
        "zone": str(program.zone),
        "first": first,
        "last": last,
        "unit": unit,
    }
    return list((await tx.execute(_POINTS, where)).all())


async def tiers(tx: Tx, program: Program) -> list[Row[Any]]:
    """Present members with an account, and the points of all, by tier; "" for those who never rose."""
    await tx.execute(_IN_MASS)
    where = {"tenant": tx.tenant_id, "business": program.business_id, "program": program.program_id}
    return list((await tx.execute(_TIERS, where)).all())


async def moves(tx: Tx, program: Program, first: date, last: date) -> list[Row[Any]]:
    """How many went from tier to tier from the first day to before the last."""
    where = {
        "tenant": tx.tenant_id,
        "business": program.business_id,
        "program": program.program_id,
        "begin": beginning(first, program.zone),
        "end": beginning(last, program.zone),
    }
    return list((await tx.execute(_MOVES, where)).all())
