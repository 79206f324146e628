"""Runs that book what holds already: by books where several things meet, by one statement where lots just lapse."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, text

from libs import arrays
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.outbox import Fact, emit_all, posting_alike
from libs.pipeline import Query, Step
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.ledger import actions, writing
from services.loyalty.programs import queries as programs_queries

# Accounts with a hold past its time or pending points whose day has come. Who holds one of them settles it.
_DUE = text("""
    select a.account_id, a.program_id from accounts a
    where a.tenant_id = :tenant and a.account_id in (
        (select h.account_id from holds h
         where h.tenant_id = :tenant and h.state = 1 and h.expires_at <= :now
         order by h.expires_at limit :limit)
        union
        (select l.account_id from lots l
         where l.tenant_id = :tenant and l.pending and l.remaining > 0 and l.available_at <= :now
         order by l.available_at limit :limit))
      and a.merged_into is null
    order by a.account_id
    for update of a skip locked
    limit :limit
""")

# Accounts with lots that lapse; whoever holds one of them books its lots. Locked by a statement of its own: only the
# next one sees the lots as the last holder of the account left them.
_LAPSING = Query(
    text("""
    select a.account_id from accounts a
    where a.tenant_id = :tenant and a.account_id in (
        select l.account_id from lots l
        where l.tenant_id = :tenant and l.remaining > 0 and l.expires_at is not null and l.expires_at <= :now
          and l.remaining > l.held and not l.pending and abs(uuid_hash(l.account_id) % :lanes) = :lane
        order by l.expires_at limit :limit)
    order by a.account_id
    for update skip locked
""")
)

# Their lots: one entry for each, each continuing where the one before ended. Points that are held stay until their
# hold ends. Account after account: joins are by key alone here, and two thousand times two thousand rows are too many.
_EXPIRE = Query(
    text("""
    with mine as materialized (
        select a.* from accounts a where a.tenant_id = :tenant and a.account_id = any(:accounts)
    ), lapsed as materialized (
        select l.lot_id, m.account_id, l.business_id, l.points, l.expires_at, m.entries, m.balance, m.pending,
               md5(cast(:salt as text) || l.lot_id) as chance,
               row_number() over w as place, sum(l.points) over w as so_far
        from mine m cross join lateral (
            select x.lot_id, x.business_id, x.remaining - x.held as points, x.expires_at from lots x
            where x.tenant_id = :tenant and x.account_id = m.account_id
              and x.remaining > x.held and not x.pending and x.expires_at <= :now
            offset 0
        ) l
        window w as (partition by m.account_id order by l.expires_at, l.lot_id
                     rows between unbounded preceding and current row)
    ), numbered as materialized (
        select p.*, cast(lpad(to_hex(cast(:millis as bigint)), 12, '0') || '7' || substr(p.chance, 1, 3) || '8'
                         || substr(p.chance, 4, 15) as uuid) as entry_id
        from lapsed p
    ), emptied as (
        update lots l set remaining = l.held from numbered n
        where l.tenant_id = :tenant and l.lot_id = n.lot_id
    ), booked as (
        insert into entries (tenant_id, entry_id, account_id, seq, business_id, kind, points, balance_points,
                             pending_points, opening_balance, opening_pending, booked_at, effective_at, source,
                             expires_at, shortfall, reasons, actor)
        select :tenant, n.entry_id, n.account_id, n.entries + n.place, n.business_id, 3, -n.points, -n.points,
               0, n.balance - (n.so_far - n.points), n.pending, :now, n.expires_at, '',
               n.expires_at, 0, '[]', ''
        from numbered n
    ), moved as (
        insert into allocations (tenant_id, entry_id, lot_id, business_id, points)
        select :tenant, n.entry_id, n.lot_id, n.business_id, -n.points from numbered n
    ), summed as (
        select n.account_id, count(*) as lots, sum(n.points) as points, max(n.expires_at) as expired_at,
               (array_agg(n.entry_id order by n.place desc))[1] as entry_id
        from numbered n group by n.account_id
    )
    update accounts a
    set balance = a.balance - s.points, expired = a.expired + s.points, entries = a.entries + s.lots,
        version = a.version + s.lots
    from summed s join programs p on p.tenant_id = :tenant
    where a.tenant_id = :tenant and a.account_id = s.account_id and p.program_id = a.program_id
    returning a.account_id, a.business_id, a.program_id, a.customer_id, a.balance, a.pending, a.held, a.lifetime,
              a.version, p.is_default, cast(s.points as bigint) as points, s.expired_at, s.entry_id
""").bindparams(bindparam("accounts", type_=ARRAY(Uuid)))
)

# Accounts of members who are there with lots that lapse within the program's notice and were not told yet. Pending and
# held points may still go another way: they are told once they are free.
_TO_NOTICE = Query(
    text("""
    select a.account_id from accounts a
    where a.tenant_id = :tenant and a.account_id in (
        select l.account_id from lots l
        cross join lateral (
            select a.business_id, a.program_id, a.customer_id from accounts a
            where a.tenant_id = :tenant and a.account_id = l.account_id limit 1
        ) a
        cross join lateral (
            select make_interval(days => coalesce(nullif(cast(p.settings ->> 'expiring_notice_days' as int), 0), 30))
                   as ahead
            from programs p where p.tenant_id = :tenant and p.program_id = a.program_id limit 1
        ) p
        cross join lateral (
            select from memberships m
            where m.tenant_id = :tenant and m.business_id = a.business_id and m.customer_id = a.customer_id
              and m.present and not m.deleted limit 1
        ) m
        where l.tenant_id = :tenant and l.remaining > 0 and l.expires_at is not null and l.expires_at > :now
          and l.expires_at <= :now + (
              select max(make_interval(
                  days => coalesce(nullif(cast(p.settings ->> 'expiring_notice_days' as int), 0), 30)))
              from programs p where p.tenant_id = :tenant)
          and l.expires_at <= :now + p.ahead and l.remaining > l.held and not l.pending and not l.noticed
        order by l.expires_at limit :limit)
    order by a.account_id
    for update skip locked
""")
)

# By member and day of the business; locked by a statement of its own, as above.
_NOTICE = Query(
    text("""
    with due as materialized (
        select l.lot_id, a.account_id, l.remaining - l.held as points, l.expires_at,
               cast(l.expires_at at time zone b.time_zone as date) as day
        from accounts a
        join programs p on p.tenant_id = :tenant and p.program_id = a.program_id
        join businesses b on b.tenant_id = :tenant and b.business_id = a.business_id
        cross join lateral (
            select x.lot_id, x.remaining, x.held, x.expires_at from lots x
            where x.tenant_id = :tenant and x.account_id = a.account_id and x.remaining > x.held and not x.pending
              and not x.noticed and x.expires_at > :now
              and x.expires_at <= :now + make_interval(
                  days => coalesce(nullif(cast(p.settings ->> 'expiring_notice_days' as int), 0), 30))
            offset 0
        ) l
        where a.tenant_id = :tenant and a.account_id = any(:accounts)
    ), told as (
        update lots l set noticed = true from due d where l.tenant_id = :tenant and l.lot_id = d.lot_id
    ), summed as (
        select account_id, sum(points) as points, min(expires_at) as expires_at from due group by account_id, day
    )
    select a.account_id, a.business_id, a.program_id, a.customer_id, a.balance, a.pending, a.held, a.lifetime,
           a.version, p.is_default, s.points, s.expires_at
    from summed s join accounts a on a.tenant_id = :tenant and a.account_id = s.account_id
    join programs p on p.tenant_id = :tenant and p.program_id = a.program_id
    order by a.account_id, s.expires_at
""").bindparams(bindparam("accounts", type_=ARRAY(Uuid)))
)


async def settle_due(tx: Tx, limit: int) -> int:
    """Settles accounts in which a hold or pending points are due; gives how many changed. Emits their events."""
    where: dict[str, Any] = {"tenant": tx.tenant_id, "now": tx.now, "limit": limit}
    rows = (await tx.execute(_DUE, where)).all()
    if not rows:
        return 0
    programs = {
        program_id: programs_queries.program_of(await programs_queries.row(tx, program_id))
        for program_id in {row.program_id for row in rows}
    }
    await tx.execute(writing.BY_KEY)
    return await actions.settle(tx, [row.account_id for row in rows], programs)


async def expire_lots(tx: Tx, limit: int, lane: int = 0, lanes: int = 1) -> int:
    """Books lots past their expiry in one statement; gives how many accounts had some. Emits PointsExpired.

    Several at once do not meet if each has a lane of its own.
    """
    due: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "now": tx.now,
        "limit": limit,
        "lane": lane,
        "lanes": lanes,
    }
    _, locked = await tx.together((writing.FIND_BY_KEY, {}), (_LAPSING, due))
    if not locked:
        return 0
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "now": tx.now,
        "accounts": arrays.uuids([row.account_id for row in locked]),
        "millis": int(tx.now.timestamp() * 1000),
        "salt": new_id().hex,
    }
    (rows,) = await tx.together((_EXPIRE, where))
    by_business: dict[UUID, list[Any]] = {}
    for row in rows:
        by_business.setdefault(row.business_id, []).append(row)
    await tx.together(
        *(_expired(tx, business_id, theirs) for business_id, theirs in sorted(by_business.items()))
    )
    return len(rows)


def _expired(tx: Tx, business_id: UUID, rows: Sequence[Any]) -> Step:
    """The statement that tells of accounts of a business whose points lapsed."""
    instants = {each: stamp(each) for each in {row.expired_at for row in rows}}
    bodies = [
        events.PointsExpired(
            account=_state(row),
            transaction_id=str(row.entry_id),
            points=-row.points,
            expired_at=instants[row.expired_at],
        ).SerializeToString()
        for row in rows
    ]
    return posting_alike(
        tx,
        events.PointsExpired(),
        [row.account_id for row in rows],
        bodies,
        [row.version for row in rows],
        business_id=business_id,
    )


async def notice(tx: Tx, limit: int) -> int:
    """Tells members of points that will lapse soon, each lot once and each day by itself; gives how many members.

    Emits PointsExpiring.
    """
    where: dict[str, Any] = {"tenant": tx.tenant_id, "now": tx.now}
    _, locked = await tx.together((writing.FIND_BY_KEY, {}), (_TO_NOTICE, {**where, "limit": limit}))
    if not locked:
        return 0
    mine = arrays.uuids([row.account_id for row in locked])
    (rows,) = await tx.together((_NOTICE, {**where, "accounts": mine}))
    facts = [
        Fact(
            events.PointsExpiring(
                account=_state(row), points=int(row.points), expires_at=stamp(row.expires_at)
            ),
            row.account_id,
            row.version,
            row.business_id,
        )
        for row in rows
    ]
    await emit_all(tx, facts)
    return len(locked)


def _state(row: Any) -> events.AccountState:
    return events.AccountState(
        customer_id=str(row.customer_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        default_program=row.is_default,
        balance=row.balance,
        pending=row.pending,
        held=row.held,
        lifetime=row.lifetime,
    )
