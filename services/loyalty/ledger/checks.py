"""The proof of the ledger: where accounts, entries, lots, allocations and holds of a business do not agree."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from libs.db import Tx

_FAULTS = text("""
    with account as (
        select * from accounts where tenant_id = :tenant and business_id = :business
    ), entry as (
        select account_id, sum(balance_points) as balance, sum(pending_points) as pending, count(*) as entries,
               max(seq) as last, sum(shortfall) as shortfall,
               coalesce(sum(points) filter (where kind = 1), 0) + sum(lifetime_points) as lifetime,
               coalesce(-sum(points) filter (where kind = 3), 0) as expired,
               coalesce(-sum(points) filter (where kind = 2 or (reverses_id is not null and points > 0)), 0)
                   as redeemed
        from entries where tenant_id = :tenant and business_id = :business group by 1
    ), lot as (
        select account_id, coalesce(sum(remaining) filter (where not pending), 0) as balance,
               coalesce(sum(remaining) filter (where pending), 0) as pending, sum(held) as held
        from lots where tenant_id = :tenant and business_id = :business group by 1
    ), hold as (
        select account_id, sum(points) as held from holds
        where tenant_id = :tenant and business_id = :business and state = 1 group by 1
    ), chain as (
        select account_id, seq, opening_balance, opening_pending,
               lag(opening_balance + balance_points, 1, 0::bigint) over w as balance_before,
               lag(opening_pending + pending_points, 1, 0::bigint) over w as pending_before,
               row_number() over w as place
        from entries where tenant_id = :tenant and business_id = :business
        window w as (partition by account_id order by seq)
    ), moved as (
        select lot_id, sum(points) as points from allocations
        where tenant_id = :tenant and business_id = :business group by 1
    ), held as (
        select l.lot_id, sum(l.points) as points from hold_lots l
        join holds h on h.tenant_id = :tenant and h.hold_id = l.hold_id and h.state = 1
        where l.tenant_id = :tenant and l.business_id = :business group by 1
    ), given as (
        select a.program_id, order_id, sum(points) filter (where kind = 1) as given,
               -sum(points) filter (where kind = 5 and reverses_id is null) as taken,
               sum(e.shortfall) as shortfall
        from entries e join account a using (account_id)
        where e.tenant_id = :tenant and e.business_id = :business and order_id is not null group by 1, 2
    ), award as (
        select program_id, source, sum(points) as points from awards
        where tenant_id = :tenant and business_id = :business group by 1, 2
    )
    select 'account' as what, a.account_id as id, to_jsonb(a) || jsonb_build_object('entries_say', to_jsonb(e),
           'lots_say', to_jsonb(l), 'holds_say', h.held) as facts
    from account a left join entry e using (account_id) left join lot l using (account_id)
    left join hold h using (account_id)
    where (a.balance, a.pending, a.entries, a.entries, a.lifetime, a.expired, a.redeemed, a.shortfall)
          is distinct from (coalesce(e.balance, 0), coalesce(e.pending, 0), coalesce(e.entries, 0),
                            coalesce(e.last, 0), coalesce(e.lifetime, 0), coalesce(e.expired, 0),
                            coalesce(e.redeemed, 0), coalesce(e.shortfall, 0))
       or (a.balance + a.debt, a.pending, a.held)
          is distinct from (coalesce(l.balance, 0), coalesce(l.pending, 0), coalesce(l.held, 0))
       or a.held <> coalesce(h.held, 0)
    union all
    select 'entry', account_id, to_jsonb(c) from chain c
    where seq <> place or opening_balance <> balance_before or opening_pending <> pending_before
    union all
    select 'lot', l.lot_id, to_jsonb(l) from lots l left join moved m using (lot_id) left join held h using (lot_id)
    where l.tenant_id = :tenant and l.business_id = :business
      and (l.remaining <> l.points + coalesce(m.points, 0) or l.held <> coalesce(h.points, 0))
    union all
    select 'order', j.order_id, to_jsonb(j) from judged_orders j
    left join given g on g.program_id = j.program_id and g.order_id = j.order_id
    left join award w on w.program_id = j.program_id and w.source = 'order:' || j.order_id
    where j.tenant_id = :tenant and j.business_id = :business
      and (j.given <> coalesce(g.given, 0) or j.reclaimed - j.shortfall <> coalesce(g.taken, 0)
           or j.shortfall <> coalesce(g.shortfall, 0) or j.given > coalesce(w.points, 0))
    union all
    select 'transfer', e.entry_id, to_jsonb(e) from entries e
    left join entries c on c.tenant_id = :tenant and c.entry_id = e.counterpart_id
    where e.tenant_id = :tenant and e.business_id = :business and e.kind = 6
      and (c.points, c.counterpart_id) is distinct from (-e.points, e.entry_id)
    union all
    select 'pooled', l.lot_id, to_jsonb(l) from lots l
    left join lots o on o.tenant_id = :tenant and o.lot_id = l.origin_lot_id
    where l.tenant_id = :tenant and l.business_id = :business and l.pooled
      and (o.lot_id is null or l.points > o.points)
    limit 100
""")


async def faults(tx: Tx, business_id: UUID) -> list[Row[Any]]:
    """Rows (what, id, facts) of what is wrong: none, ever. At most 100."""
    where = {"tenant": tx.tenant_id, "business": business_id}
    return list((await tx.execute(_FAULTS, where)).all())
