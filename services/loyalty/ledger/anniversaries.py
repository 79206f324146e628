"""Who has been a member for another year, and is given what the rules say, once in each year."""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, text

from libs.db import Tx
from services.loyalty.ledger import bonuses
from services.loyalty.ledger.bonuses import Occasion
from services.loyalty.programs import queries as programs
from services.loyalty.programs import rules
from services.loyalty.programs.queries import Program

# Days that are looked back, for when nobody looked.
DAYS = 7

_MEMBERS = text("""
    select m.customer_id, d.day
    from memberships m
    join unnest(cast(:days as date[]), cast(:months as int[]), cast(:doms as int[])) as d (day, month, dom)
      on extract(month from m.joined_at at time zone :zone) = d.month
     and extract(day from m.joined_at at time zone :zone) = d.dom
     and extract(year from m.joined_at at time zone :zone) < extract(year from d.day)
    where m.tenant_id = :tenant and m.business_id = :business and m.present and m.joined_at is not null
      and m.merged_into is null
      and m.customer_id > :after
      and exists (select from unnest(:programs) as p (program_id)
                  where not exists (
                      select from accounts a join awards w
                        on w.tenant_id = a.tenant_id and w.program_id = a.program_id
                       and w.source = 'anniversary:' || extract(year from d.day) || ':' || a.account_id
                      where a.tenant_id = m.tenant_id and a.program_id = p.program_id
                        and a.customer_id = m.customer_id))
    order by m.customer_id limit :limit
""").bindparams(bindparam("programs", type_=ARRAY(Uuid)))


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
    """Gives up to `limit` members after one what is due; the last of them, or None if there was none.

    Emits PointsEarned.
    """
    today = tx.now.astimezone(program.zone).date()
    due = due_days(program, [today - timedelta(days=n) for n in range(DAYS)])
    where = {
        "tenant": tx.tenant_id,
        "business": program.business_id,
        "programs": [program.program_id],
        "zone": str(program.zone),
        "days": [day for day, _, _ in due],
        "months": [month for _, month, _ in due],
        "doms": [dom for _, _, dom in due],
        "after": after,
        "limit": limit,
    }
    rows = (await tx.execute(_MEMBERS, where)).all()
    occasions = [
        Occasion(
            business_id=program.business_id,
            customer_id=row.customer_id,
            trigger=rules.ANNIVERSARY,
            key=f"anniversary:{row.day.year}",
            at=datetime.combine(row.day, time(12), program.zone),
        )
        for row in rows
    ]
    if not occasions:
        return None
    await bonuses.work_in_occasions(tx, occasions)
    last: UUID = rows[-1].customer_id
    return last
