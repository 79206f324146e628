"""What became of rewards, day by day: redeemed, used, cancelled, expired, and what that took and was worth."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Date, Row, TextClause, bindparam, select, text

from libs.db import Tx
from services.loyalty.ledger import writing
from services.loyalty.programs.queries import Program
from services.loyalty.reports import folding
from services.loyalty.rewards.tables import rewards as table

SUBJECT = "rewards"

# From `:since` to before `:until`. A code past its time has expired then, whether or not that is booked. A reward
# without an amount is worth the points that it cost; money that was paid besides is no cost.
_EVENTS = """
    select w.reward_id, w.program_id, w.business_id, cast(x.at at time zone b.time_zone as date) as day,
           x.redeemed, x.used, x.cancelled, x.expired,
           x.redeemed * x.points as spent, x.cancelled * x.points as returned,
           x.used * greatest(coalesce(cast(x.terms #>> '{amount,amount_minor}' as bigint), x.points
               * coalesce(nullif(cast(p.settings ->> 'hundred_points_minor' as bigint), 0), 100) / 100)
               - coalesce(cast(x.terms #>> '{cost_money,amount_minor}' as bigint), 0), 0) as used_minor
    from (
        select d.reward_id, d.terms, d.points, d.issued_at as at, 1 as redeemed, 0 as used, 0 as cancelled, 0 as expired
        from redemptions d where d.tenant_id = :tenant and d.issued_at >= :since and d.issued_at < :until
        union all
        select d.reward_id, d.terms, d.points, d.closed_at, 0, cast(d.state = 2 as int), cast(d.state = 3 as int),
               cast(d.state = 4 as int)
        from redemptions d where d.tenant_id = :tenant and d.closed_at >= :since and d.closed_at < :until
        union all
        select d.reward_id, d.terms, d.points, d.expires_at, 0, 0, 0, 1
        from redemptions d
        where d.tenant_id = :tenant and d.state = 1 and d.expires_at >= :since and d.expires_at < :until
    ) x
    join rewards w on w.tenant_id = :tenant and w.reward_id = x.reward_id
    join programs p on p.tenant_id = :tenant and p.program_id = w.program_id
    join businesses b on b.tenant_id = :tenant and b.business_id = w.business_id
"""
_NAMES = ("redeemed", "used", "cancelled", "expired", "spent", "returned", "used_minor")
_SUMS = ", ".join(f"sum(e.{name}) as {name}" for name in _NAMES)
_CUT = text("""
    select d.issued_at from redemptions d
    where d.tenant_id = :tenant and d.issued_at >= :since and d.issued_at < :settled
    order by d.issued_at offset :some limit 1
""")
_FOLD = text(f"""
    insert into reward_days as r (tenant_id, reward_id, program_id, business_id, day, {", ".join(_NAMES)})
    select :tenant, e.reward_id, e.program_id, e.business_id, e.day, {_SUMS} from ({_EVENTS}) e group by 2, 3, 4, 5
    on conflict on constraint reward_days_pkey do update
    set {", ".join(f"{name} = r.{name} + excluded.{name}" for name in _NAMES)}
""")  # noqa: S608 – all of it stands in this file


def _read(key: str) -> tuple[TextClause, TextClause]:
    """What is folded, with the mark; and what came since. By `key`, an expression of the row `e`."""
    folded = f"""
        with mark as (select m.folded_until from fold_marks m where m.tenant_id = :tenant and m.subject = :subject)
        select (select folded_until from mark) as mark, f.* from (values (1)) as always left join (
            select {key} as key, {_SUMS} from reward_days e
            where e.tenant_id = :tenant and e.program_id = :program and e.day between :first and :last group by 1
        ) f on true
    """  # noqa: S608
    since = f"""
        select {key} as key, {_SUMS} from ({_EVENTS}) e
        where e.program_id = :program and e.day between :first and :last group by 1
    """  # noqa: S608
    days = bindparam("first", type_=Date), bindparam("last", type_=Date)
    return text(folded).bindparams(*days), text(since).bindparams(*days)


_READS = {
    "reward": _read("e.reward_id"),
    "day": _read("e.day"),
    "month": _read("cast(date_trunc('month', e.day) as date)"),
}


@dataclass(frozen=True, slots=True)
class Became:
    """What became of redemptions: how many, points, and minor units."""

    redeemed: int = 0
    used: int = 0
    cancelled: int = 0
    expired: int = 0
    spent: int = 0
    returned: int = 0
    used_minor: int = 0

    def __add__(self, other: "Became") -> "Became":
        return Became(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


async def fold(tx: Tx, settled: datetime, at_once: int) -> bool:
    """Folds what became of redemptions before `settled` into days; True if there is more."""
    return await folding.fold(tx, SUBJECT, settled, at_once, _CUT, _FOLD)


async def became(tx: Tx, program: Program, first: date, last: date, by: str) -> Mapping[UUID | date, Became]:
    """What became of a program's rewards from the first day to the last, by "reward", "day" or "month"."""
    folded, since = _READS[by]
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "program": program.program_id,
        "subject": SUBJECT,
        "first": first,
        "last": last,
    }
    await tx.execute(writing.BY_KEY)
    rows = (await tx.execute(folded, where)).all()
    soon = {"since": rows[0].mark or folding.EVER, "until": tx.now + timedelta(seconds=1)}
    found: dict[UUID | date, Became] = {}
    for row in [*rows, *(await tx.execute(since, {**where, **soon})).all()]:
        if row.key is not None:
            found[row.key] = found.get(row.key, Became()) + _of(row)
    return found


async def names(tx: Tx, reward_ids: Iterable[Any]) -> dict[UUID, str]:
    """The names of these rewards, deleted ones too."""
    wanted = select(table.c.reward_id, table.c.definition["name"].astext.label("name")).where(
        table.c.tenant_id == tx.tenant_id, table.c.reward_id.in_(list(reward_ids))
    )
    return {row.reward_id: row.name for row in await tx.execute(wanted)}


def _of(row: Row[Any]) -> Became:
    return Became(*(int(getattr(row, name)) for name in _NAMES))
