"""Who has been a member for another year, and is given what the rules say, once in each year."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Uuid, bindparam, text

from libs.db import Tx
from services.loyalty.ledger import bonuses
from services.loyalty.ledger.bonuses import Occasion
from services.loyalty.programs import queries as programs
from services.loyalty.programs import rules
from services.loyalty.programs.queries import Program

# Days that are looked back, for when nobody looked.
DAYS = 7

# Members who joined on one of these days by UTC, maybe a day before or after it where they live, and were not given
# what is due for it.
_MEMBERS = text("""
    select m.customer_id, m.joined_at, p.time_zone
    from (
        select m.customer_id, m.joined_at, d.day from memberships m
        join unnest(cast(:days as date[]), cast(:months as int[]), cast(:doms as int[])) as d (day, month, dom)
          on extract(month from m.joined_at at time zone 'UTC') = d.month
         and extract(day from m.joined_at at time zone 'UTC') = d.dom
         and extract(year from m.joined_at at time zone 'UTC') <= extract(year from d.day)
        where m.tenant_id = :tenant and m.business_id = :business and m.present and m.joined_at is not null
          and m.merged_into is null and m.customer_id > :after
          and exists (select from unnest(array[d.day - 1, d.day + 1]) as y (day)
                      where not exists (
                          select from accounts a join awards w
                            on w.tenant_id = a.tenant_id and w.program_id = a.program_id
                           and w.source = 'anniversary:' || extract(year from y.day) || ':' || a.account_id
                          where a.tenant_id = m.tenant_id and a.program_id = :program
                            and a.customer_id = m.customer_id))
        order by m.customer_id limit :limit
    ) m
    left join lateral (
        select p.time_zone from people p where p.tenant_id = :tenant and p.customer_id = m.customer_id limit 1
    ) p on true
    order by m.customer_id
""").bindparams(bindparam("program", type_=Uuid))


def due_days(program: Program, days: Iterable[date]) -> list[tuple[date, int, int]]:
    """The months and days of month that fall on these days: (day, month, day of month)."""
    wanted = list(days)
    found = [(day, day.month, day.day) for day in wanted]
    found += [
        (day, 2, 29)
        for day in wanted
        if (day.month, day.day) != (2, 29) and rules.falls_on(day, 2, 29, program.settings.leap_day)
    ]
    return found


async def celebrating(tx: Tx) -> list[Program]:
    """The programs of the tenant that give something for an anniversary."""
    return [
        program
        for program in await programs.all_of_tenant(tx)
        if any(
            rule.terms.get("trigger") == rules.ANNIVERSARY
            for rule in (await programs.rule_book(tx, program.program_id)).now
        )
    ]


async def celebrate(tx: Tx, program: Program, after: UUID, limit: int) -> UUID | None:
    """Looks at up to `limit` members after one, and gives what is due; the last of them, or None if there was none.

    An anniversary begins when the day does where the member lives. Emits PointsEarned.
    """
    last_day = tx.now.astimezone(UTC).date() + timedelta(days=2)
    days = due_days(program, [last_day - timedelta(days=n) for n in range(DAYS + 4)])
    where = {
        "tenant": tx.tenant_id,
        "business": program.business_id,
        "program": program.program_id,
        "days": [day for day, _, _ in days],
        "months": [month for _, month, _ in days],
        "doms": [dom for _, _, dom in days],
        "after": after,
        "limit": limit,
    }
    rows = (await tx.execute(_MEMBERS, where)).all()
    occasions = {
        (row.customer_id, day): Occasion(
            business_id=program.business_id,
            customer_id=row.customer_id,
            trigger=rules.ANNIVERSARY,
            key=f"anniversary:{day.year}",
            at=datetime.combine(day, time(12), program.zone),
        )
        for row in rows
        for day in _anniversaries(program, row.joined_at, zone_of(row.time_zone) or program.zone, tx.now)
    }
    if occasions:
        await bonuses.work_in_occasions(tx, list(occasions.values()))
    last: UUID | None = rows[-1].customer_id if rows else None
    return last


def _anniversaries(program: Program, joined_at: datetime, zone: ZoneInfo, now: datetime) -> list[date]:
    """The days of late on which somebody had been a member for another year, where they live."""
    joined, today = joined_at.astimezone(zone).date(), now.astimezone(zone).date()
    late = [today - timedelta(days=n) for n in range(DAYS)]
    return [
        day
        for day in late
        if day.year > joined.year and rules.falls_on(day, joined.month, joined.day, program.settings.leap_day)
    ]


def zone_of(name: str | None) -> ZoneInfo | None:
    """A member's time zone; None if it is not known."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):  # newer than our list of zones
        return None
