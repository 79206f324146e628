"""Members by the month in which they joined, and what they did in each month since."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Date, DateTime, bindparam, text

from libs.db import Tx
from services.loyalty.ledger import writing
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import beginning
from services.loyalty.reports import folding

SUBJECT = "cohorts"

# Entries from `:since` to before `:until` by member and month. A member is active in a month in which they earned or
# spent something, and `fresh` if nobody counted that yet. Who has no date of joining joined with the first entry.
_EVENTS = """
    months as materialized (
        select e.account_id, cast(date_trunc('month', e.booked_at at time zone b.time_zone) as date) as month,
               coalesce(sum(e.points) filter (where e.kind = 1 or (e.kind = 4 and e.points > 0)), 0) as issued,
               coalesce(-sum(e.points) filter (where e.kind = 2
                        or (e.kind = 5 and e.reverses_id is not null and e.points > 0)), 0)
                   as redeemed,
               bool_or(e.kind in (1, 2)) as active
        from entries e join businesses b on b.tenant_id = e.tenant_id and b.business_id = e.business_id
        where e.tenant_id = :tenant and e.booked_at >= :since and e.booked_at < :until
        group by 1, 2
    ), whole as materialized (
        select a.program_id, a.business_id, a.account_id, s.month, s.issued, s.redeemed,
               coalesce(k.joined, cast(date_trunc('month', m.joined_at at time zone b.time_zone) as date), s.month)
                   as joined,
               s.active and (k.month is null or s.month > k.month) as fresh
        from months s
        join accounts a on a.tenant_id = :tenant and a.account_id = s.account_id
        join businesses b on b.tenant_id = :tenant and b.business_id = a.business_id
        left join memberships m on m.tenant_id = :tenant and m.business_id = a.business_id
            and m.customer_id = a.customer_id
        left join report_members k on k.tenant_id = :tenant and k.account_id = a.account_id
    )
"""
_CUT = text("""
    select e.booked_at from entries e
    where e.tenant_id = :tenant and e.booked_at >= :since and e.booked_at < :settled
    order by e.booked_at offset :some limit 1
""")
_FOLD = text(f"""
    with {_EVENTS}, noted as (
        insert into report_members as k (tenant_id, account_id, business_id, joined, month)
        select :tenant, w.account_id, w.business_id, w.joined, max(w.month) from whole w where w.fresh group by 2, 3, 4
        on conflict on constraint report_members_pkey do update set month = excluded.month
    )
    insert into cohort_months as c (tenant_id, program_id, joined, month, business_id, active, issued, redeemed)
    select :tenant, w.program_id, w.joined, w.month, w.business_id, count(*) filter (where w.fresh), sum(w.issued),
           sum(w.redeemed)
    from whole w group by 2, 3, 4, 5
    on conflict on constraint cohort_months_pkey do update
    set active = c.active + excluded.active, issued = c.issued + excluded.issued,
        redeemed = c.redeemed + excluded.redeemed
""")  # noqa: S608 – all of it stands in this file
_FOLDED = text("""
    with mark as (select m.folded_until from fold_marks m where m.tenant_id = :tenant and m.subject = :subject)
    select (select folded_until from mark) as mark, c.joined, c.month, c.active, c.issued, c.redeemed
    from (values (1)) as always left join cohort_months c
        on c.tenant_id = :tenant and c.program_id = :program and c.joined between :first and :last
""").bindparams(bindparam("first", type_=Date), bindparam("last", type_=Date))
_SINCE = text(f"""
    with {_EVENTS}
    select w.joined, w.month, count(*) filter (where w.fresh) as active, sum(w.issued) as issued,
           sum(w.redeemed) as redeemed
    from whole w where w.program_id = :program and w.joined between :first and :last group by 1, 2
""").bindparams(bindparam("first", type_=Date), bindparam("last", type_=Date))  # noqa: S608
_JOINED = text("""
    select cast(date_trunc('month', m.joined_at at time zone :zone) as date) as joined, count(*) as members
    from memberships m
    where m.tenant_id = :tenant and m.business_id = :business and m.joined_at >= :begin and m.joined_at < :end
      and m.present and not m.deleted and m.merged_into is null
    group by 1
""").bindparams(
    bindparam("begin", type_=DateTime(timezone=True)), bindparam("end", type_=DateTime(timezone=True))
)


@dataclass(slots=True)
class Month:
    """What a cohort did in a month: active members, points."""

    active: int = 0
    issued: int = 0
    redeemed: int = 0


@dataclass(slots=True)
class Cohort:
    """Who joined in one month: how many are still members, and what they did by month."""

    members: int = 0
    months: dict[date, Month] = field(default_factory=dict)


async def fold(tx: Tx, settled: datetime, at_once: int) -> bool:
    """Folds entries that were booked before `settled` into the months of cohorts; True if there are more."""
    return await folding.fold(tx, SUBJECT, settled, at_once, _CUT, _FOLD)


async def cohorts(tx: Tx, program: Program, first: date, last: date) -> Mapping[date, Cohort]:
    """The cohorts of the months from the first (its first day) to the last, by month of joining."""
    following = (last.replace(day=1) + timedelta(days=32)).replace(day=1)
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "program": program.program_id,
        "business": program.business_id,
        "zone": str(program.zone),
        "subject": SUBJECT,
        "first": first,
        "last": last,
        "begin": beginning(first, program.zone),
        "end": beginning(following, program.zone),
    }
    await tx.execute(writing.BY_KEY)
    found: dict[date, Cohort] = {
        row.joined: Cohort(members=int(row.members)) for row in await tx.execute(_JOINED, where)
    }
    rows = (await tx.execute(_FOLDED, where)).all()
    soon = {"since": rows[0].mark or folding.EVER, "until": tx.now + timedelta(seconds=1)}
    for row in [*rows, *(await tx.execute(_SINCE, {**where, **soon})).all()]:
        if row.joined is None:
            continue
        month = found.setdefault(row.joined, Cohort()).months.setdefault(row.month, Month())
        month.active += int(row.active)
        month.issued += int(row.issued)
        month.redeemed += int(row.redeemed)
    return found
