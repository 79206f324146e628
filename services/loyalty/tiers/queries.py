"""Reads about tiers: ladders, standings, what counts of members, and what other tiers would change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Date, DateTime, Row, Select, Uuid, and_, bindparam, or_, select, text

from libs import arrays
from libs.crypto import Column
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.pipeline import Query, Step
from services.loyalty.ledger.reading import FIND_BY_KEY
from services.loyalty.ledger.tables import accounts
from services.loyalty.overrides.tables import tier_bulks
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import beginning
from services.loyalty.tiers import rules
from services.loyalty.tiers.rules import Facts, Ladder, Standing, Tier
from services.loyalty.tiers.tables import standings, tier_changes, tier_configurations

SEALED = Column("tier_changes", "sealed")
_c, _s, _h, _a, _k = tier_configurations.c, standings.c, tier_changes.c, accounts.c, subject_keys.c
_o = tier_bulks.c

# Account after account, by key: `lateral` and `limit` leave the planner no other order on tables that were never
# analysed. What counts of accounts since `start`, and between `last_start` and `start`; null: since ever, and nothing.
# Orders of `but` are left out. What is told late counts earlier than it took effect, and never later: so the index of
# that narrows down what counts.
_FACTS = Query(
    text("""
    select a.account_id, bought.*, given.*
    from unnest(:accounts) as wanted (account_id)
    cross join lateral (
        select a.* from accounts a where a.tenant_id = :tenant and a.account_id = wanted.account_id limit 1
    ) a
    cross join lateral (
        select coalesce(sum(o.total_minor - o.refunded_minor)
                        filter (where :start is null or o.local_day >= :start), 0) as spending_now,
               count(distinct o.local_day) filter (where :start is null or o.local_day >= :start) as visits_now,
               coalesce(sum(o.total_minor - o.refunded_minor) filter (where o.local_day < :start), 0)
                   as spending_before,
               count(distinct o.local_day) filter (where o.local_day < :start) as visits_before
        from orders o
        where o.tenant_id = :tenant and o.business_id = a.business_id and o.customer_id = a.customer_id
          and not o.cancelled and (:last_start is null or o.local_day >= :last_start)
          and o.order_id <> all(:but)
    ) bought
    cross join lateral (
        select coalesce(sum(e.points) filter (where :begin is null or e.at >= :begin), 0) as points_now,
               coalesce(sum(e.points) filter (where e.at < :begin), 0) as points_before
        from (
            select case when e.kind in (1, 5) and e.reverses_id is null then e.points else 0 end
                   + e.lifetime_points as points, coalesce(e.counted_at, e.effective_at) as at
            from entries e
            where e.tenant_id = :tenant and e.account_id = a.account_id
              and (e.kind = 1 or (e.kind = 5 and e.reverses_id is null) or e.lifetime_points <> 0)
              and (:last_begin is null or e.effective_at >= :last_begin)
        ) e
        where :last_begin is null or e.at >= :last_begin
    ) given
""").bindparams(
        bindparam("accounts", type_=ARRAY(Uuid)),
        bindparam("but", type_=ARRAY(Uuid)),
        bindparam("start", type_=Date),
        bindparam("last_start", type_=Date),
        bindparam("begin", type_=DateTime(timezone=True)),
        bindparam("last_begin", type_=DateTime(timezone=True)),
    )
)
_LADDERS = Query(
    text("""
    select distinct on (c.program_id) c.program_id, c.definition from tier_configurations c
    where c.tenant_id = :tenant and c.program_id = any(:programs) order by c.program_id, c.version desc
""")
)
_STANDINGS = Query(
    text("select s.* from standings s where s.tenant_id = :tenant and s.account_id = any(:accounts)")
)

_DUE = text("""
    select s.account_id, s.program_id from standings s
    cross join lateral (
        select a.business_id, a.customer_id from accounts a
        where a.tenant_id = :tenant and a.account_id = s.account_id and a.merged_into is null limit 1
    ) a
    cross join lateral (
        select from memberships m
        where m.tenant_id = :tenant and m.business_id = a.business_id and m.customer_id = a.customer_id
          and m.present and not m.deleted limit 1
    ) m
    where s.tenant_id = :tenant and (s.review_at <= :now or s.override_until <= :now)
    order by s.account_id limit :limit
""")
_ACCOUNTS_AFTER = text("""
    select a.account_id from accounts a
    cross join lateral (
        select from memberships m
        where m.tenant_id = :tenant and m.business_id = a.business_id and m.customer_id = a.customer_id
          and m.present and not m.deleted limit 1
    ) m
    where a.tenant_id = :tenant and a.program_id = :program and a.merged_into is null and a.account_id > :after
    order by a.account_id limit :limit
""")

_COUNT_MEMBERS = text("""
    select count(*) from memberships m
    where m.tenant_id = :tenant and m.business_id = :business and m.present and not m.deleted
      and m.joined_at is not null and m.merged_into is null
""")

# All members of a program by the tier that they have and what counts of them; one pass over orders and entries.
# `days` are orders, or the days of each customer where visits count; `rank` is `_rank`'s, `here` `_here`'s. Sums
# of bigint would be numeric, which cost three times as much; doubles are exact up to 2^53 of the smallest coin.
_PREVIEW = """
    with gone as (
        select m.customer_id from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and (m.deleted or not m.present)
    ), days as ({days}), bought as (
        select o.customer_id,
               sum(o.net) filter (where :start is null or o.local_day >= :start) as spending_now,
               count(*) filter (where :start is null or o.local_day >= :start) as visits_now,
               sum(o.net) filter (where o.local_day < :start) as spending_before,
               count(*) filter (where o.local_day < :start) as visits_before
        from days o
        group by 1
    ), given as (
        select e.account_id,
               sum(e.points) filter (where :begin is null or e.at >= :begin) as points_now,
               sum(e.points) filter (where e.at < :begin) as points_before
        from (
            select e.account_id, cast(case when e.kind in (1, 5) and e.reverses_id is null then e.points else 0 end
                   + e.lifetime_points as double precision) as points, coalesce(e.counted_at, e.effective_at) as at
            from entries e
            where :points and e.tenant_id = :tenant and e.business_id = :business
              and (e.kind = 1 or (e.kind = 5 and e.reverses_id is null) or e.lifetime_points <> 0)
              and (:last_begin is null or e.effective_at >= :last_begin)
        ) e
        where :last_begin is null or e.at >= :last_begin
        group by 1
    ), judged as (
        select a.customer_id, coalesce(s.tier, '') as tier, s.overridden and (s.override_until is null
                   or s.override_until > :now) as overridden, s.grace_until > :now as spared,
               coalesce(b.spending_now, 0) as s0, coalesce(b.visits_now, 0) as v0, coalesce(g.points_now, 0) as p0,
               coalesce(b.spending_before, 0) as s1, coalesce(b.visits_before, 0) as v1,
               coalesce(g.points_before, 0) as p1
        from accounts a
        left join standings s on s.tenant_id = a.tenant_id and s.account_id = a.account_id
        left join bought b on b.customer_id = a.customer_id
        left join given g on g.account_id = a.account_id
        where a.tenant_id = :tenant and a.program_id = :program and a.merged_into is null
          and not exists (select from gone x where x.customer_id = a.customer_id)
    ), ranked as (
        select j.customer_id, j.tier, case when j.overridden then -1
               when j.spared and {rank} < {here} then -1 else {rank} end as rank
        from judged j
    )
    select tier, rank, count(*) as members, (array_agg(customer_id))[1:10] as sample
    from ranked group by 1, 2
"""
_ORDERS = """
    select o.customer_id, o.local_day, cast(o.total_minor - o.refunded_minor as double precision) as net from orders o
    where o.tenant_id = :tenant and o.business_id = :business
      and not o.cancelled and (:last_start is null or o.local_day >= :last_start)
"""
_ORDER_DAYS = f"select x.customer_id, x.local_day, sum(x.net) as net from ({_ORDERS}) x group by 1, 2"  # noqa: S608
_WINDOWS = (
    bindparam("start", type_=Date),
    bindparam("last_start", type_=Date),
    bindparam("begin", type_=DateTime(timezone=True)),
    bindparam("last_begin", type_=DateTime(timezone=True)),
)


# Masses are hashed, whatever the planner thinks of tables that were never analysed. By one process: each of several
# would add up all orders for itself.
_IN_MASS = text("""
    select set_config('enable_nestloop', 'off', true), set_config('work_mem', '160MB', true),
           set_config('max_parallel_workers_per_gather', '0', true)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A version of a program's tiers. `definition`: as it is stored."""

    program_id: UUID
    version: int
    definition: Mapping[str, Any]
    changed_at: datetime


async def configuration(tx: Tx, program_id: UUID, at: datetime | None = None) -> Configuration:
    """The tiers of a program that hold, or held at an instant. A program has some from the start, and before it."""
    wanted = (
        select(tier_configurations)
        .where(_c.tenant_id == tx.tenant_id, _c.program_id == program_id)
        .order_by(_c.version.desc())
        .limit(1)
    )
    if at is not None:
        wanted = wanted.where(or_(_c.changed_at <= at, _c.version == 1))
    row = (await tx.execute(wanted)).one()
    return Configuration(
        program_id=program_id, version=row.version, definition=row.definition, changed_at=row.changed_at
    )


async def ladder(tx: Tx, program_id: UUID, at: datetime | None = None) -> Ladder:
    """The same, as the rules know it."""
    return rules.ladder_of((await configuration(tx, program_id, at)).definition)


async def configurations(tx: Tx, program_id: UUID, size: int, before: int | None) -> list[Row[Any]]:
    """Up to `size` versions of a program's tiers, newest first, those before a version."""
    wanted = select(tier_configurations).where(_c.tenant_id == tx.tenant_id, _c.program_id == program_id)
    if before is not None:
        wanted = wanted.where(_c.version < before)
    return list((await tx.execute(wanted.order_by(_c.version.desc()).limit(size))).all())


def _windows(program: Program, of: Ladder, now: datetime) -> dict[str, date | datetime | None]:
    found = rules.periods(of, now.astimezone(program.zone).date())
    last = found.last_start if found.last_start is not None else found.start
    return {
        "start": found.start,
        "last_start": last,
        "begin": beginning(found.start, program.zone) if found.start else None,
        "last_begin": beginning(last, program.zone) if last else None,
    }


def asked_facts(
    tx: Tx,
    program: Program,
    of: Ladder,
    account_ids: Sequence[UUID],
    now: datetime,
    but: Sequence[UUID] = (),
) -> Step:
    """What gives the rows of `facts_in`, without these orders."""
    where: dict[str, Any] = {"accounts": arrays.uuids(account_ids), "but": arrays.uuids(but)}
    return _FACTS, {"tenant": tx.tenant_id, **where, **_windows(program, of, now)}


def facts_in(rows: Iterable[Any]) -> dict[UUID, tuple[Facts, Facts]]:
    """What counts of accounts of one program in the period so far, and in the one before."""
    return {
        row.account_id: (
            Facts(int(row.spending_now), int(row.visits_now), int(row.points_now)),
            Facts(int(row.spending_before), int(row.visits_before), int(row.points_before)),
        )
        for row in rows
    }


async def facts(
    tx: Tx, program: Program, of: Ladder, account_ids: Sequence[UUID], now: datetime
) -> dict[UUID, tuple[Facts, Facts]]:
    """The same, at once."""
    return facts_in((await tx.together(asked_facts(tx, program, of, account_ids, now)))[0])


@dataclass(frozen=True, slots=True)
class Move:
    """How many members would go from a tier ("": the lowest) to the one of this rank, and some of them.

    Rank -1: they stay where they are, by an override or in their grace.
    """

    tier: str
    rank: int
    members: int
    sample: Sequence[UUID]


async def preview(tx: Tx, program: Program, of: Ladder) -> list[Move]:
    """All present members of a program; those who have no account yet are in no sample."""
    above = of.tiers[1:]
    visits = any(tier.visits for tier in above)
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "business": program.business_id,
        "program": program.program_id,
        "now": tx.now,
        "points": any(tier.points for tier in above),
        **{name: value for i, tier in enumerate(above, 1) for name, value in _thresholds(i, tier).items()},
        **{f"n{i}": tier.name.casefold() for i, tier in enumerate(above, 1)},
        **_windows(program, of, tx.now),
    }
    await tx.execute(_IN_MASS)
    statement = _PREVIEW.format(days=_ORDER_DAYS if visits else _ORDERS, rank=_rank(of), here=_here(of))
    rows = (await tx.execute(text(statement).bindparams(*_WINDOWS), where)).all()
    found = {(row.tier, row.rank): Move(row.tier, row.rank, row.members, row.sample) for row in rows}
    others = await count_members(tx, program.business_id) - sum(move.members for move in found.values())
    if others > 0:
        low = found.get(("", 0), Move("", 0, 0, ()))
        found["", 0] = replace(low, members=low.members + others)
    return list(found.values())


async def count_members(tx: Tx, business_id: UUID) -> int:
    """How many members a business has who are there, whether anything happened to their points or not."""
    where = {"tenant": tx.tenant_id, "business": business_id}
    return int(await tx.scalar(_COUNT_MEMBERS, where))


def _thresholds(rank: int, tier: Tier) -> dict[str, int]:
    """What a tier asks for: s(pending), v(isits) and p(oints), by the names of the preview's parameters."""
    return {f"{of}{rank}": value for of, value in zip("svp", tier.thresholds, strict=True) if value}


def _rank(of: Ladder) -> str:
    """The place of the highest tier that a row `j` reaches, in the period so far (0) or in the one before (1)."""
    whens = []
    for rank, tier in reversed(list(enumerate(of.tiers))[1:]):
        names = _thresholds(rank, tier)
        join = " and " if of.match_all else " or "
        reached = [join.join(f"j.{name[0]}{period} >= :{name}" for name in names) for period in (0, 1)]
        whens.append(f"when ({reached[0]}) or ({reached[1]}) then {rank}")
    return f"case {' '.join(whens)} else 0 end" if whens else "0"


def _here(of: Ladder) -> str:
    """The place of the tier that a row `j` has; 0 for one that is there no more."""
    whens = [f"when :n{rank} then {rank}" for rank in range(1, len(of.tiers))]
    return f"case lower(j.tier) {' '.join(whens)} else 0 end" if whens else "0"


def asked_ladders(tx: Tx, program_ids: Sequence[UUID]) -> Step:
    """What gives the tiers of programs: rows (program_id, definition)."""
    return _LADDERS, {"tenant": tx.tenant_id, "programs": arrays.uuids(program_ids)}


def asked_standings(tx: Tx, account_ids: Sequence[UUID]) -> Step:
    """What gives the rows of `standings_in`."""
    return _STANDINGS, {"tenant": tx.tenant_id, "accounts": arrays.uuids(account_ids)}


def standings_in(rows: Iterable[Any]) -> dict[UUID, Standing]:
    """Where accounts stand; those that never rose are left out."""
    return {
        row.account_id: Standing(
            tier=row.tier,
            since=row.since,
            grace_until=row.grace_until,
            review_at=row.review_at,
            overridden=row.overridden,
            override_until=row.override_until,
            version=row.version,
        )
        for row in rows
    }


async def standings_of(tx: Tx, account_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """The same, at once."""
    _, rows = await tx.together((FIND_BY_KEY, {}), asked_standings(tx, account_ids))
    return standings_in(rows)


async def past(
    tx: Tx, program: Program, of: Ladder, known: Mapping[UUID, Standing], but: Sequence[UUID] = ()
) -> dict[UUID, Standing]:
    """Those of these accounts of a program that are to be judged by now, as they stand then, without these orders."""
    ids = [account_id for account_id, standing in known.items() if rules.is_past(standing, tx.now)]
    if not ids:
        return {}
    (rows,) = await tx.together(asked_facts(tx, program, of, ids, tx.now, but))
    return {
        account_id: rules.as_of(of, known[account_id], now, before, tx.now, program.zone)
        for account_id, (now, before) in facts_in(rows).items()
    }


async def tier_of(tx: Tx, program: Program, account_id: UUID | None) -> Tier:
    """The tier that an account has by now; None: no account, so the lowest."""
    of = await ladder(tx, program.program_id)
    known = await standings_of(tx, [account_id]) if account_id else {}
    here = next(iter((known | await past(tx, program, of, known)).values()), None)
    return of.tier(here.tier) if here else of.tiers[0]


async def due(tx: Tx, limit: int) -> list[Row[Any]]:
    """Accounts whose tier is to be judged, or whose override has ended: rows (account_id, program_id).

    Who is gone is left alone: whoever comes back is due at once.
    """
    where = {"tenant": tx.tenant_id, "now": tx.now, "limit": limit}
    return list((await tx.execute(_DUE, where)).all())


async def accounts_after(tx: Tx, program_id: UUID, after: UUID | None, limit: int) -> list[UUID]:
    """Up to `limit` accounts of a program's present members, in the order of their ids, those after one."""
    where = {"tenant": tx.tenant_id, "program": program_id, "after": after or UUID(int=0), "limit": limit}
    return list((await tx.execute(_ACCOUNTS_AFTER, where)).scalars())


_CHANGE: Select[Any] = (
    select(tier_changes, _a.customer_id, _k.epoch, _k.wrapped, _o.reason.label("bulk_reason"))
    .join(accounts, and_(_a.tenant_id == _h.tenant_id, _a.account_id == _h.account_id))
    .outerjoin(subject_keys, and_(_k.tenant_id == _h.tenant_id, _k.key_id == _h.key_id))
    .outerjoin(tier_bulks, and_(_o.tenant_id == _h.tenant_id, _o.bulk_id == _h.bulk_id))
)


async def changes(tx: Tx, line: Sequence[UUID], size: int, before: UUID | None) -> list[Row[Any]]:
    """Up to `size` changes of the tiers of these accounts, newest first, those before one."""
    wanted = _CHANGE.where(_h.tenant_id == tx.tenant_id, _h.account_id.in_(line))
    if before is not None:
        wanted = wanted.where(_h.change_id < before)
    return list((await tx.execute(wanted.order_by(_h.change_id.desc()).limit(size))).all())


def last_day(program: Program, of: Ladder, now: datetime) -> date | None:
    """The last day of the period that counts now; None if it has no end."""
    today = now.astimezone(program.zone).date()
    found = rules.periods(of, today)
    return found.end
