"""The proof of rewards: where redemptions, the ledger, stocks and pools of a business do not agree."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from libs.db import Tx

_FAULTS = text("""
    with redemption as (
        select * from redemptions where tenant_id = :tenant and business_id = :business
    ), back as (
        select e.reverses_id as entry_id, sum(e.points) as points from entries e
        where e.tenant_id = :tenant and e.reverses_id in (select entry_id from redemption) group by 1
    ), taken as (
        select reward_id, count(*) as times from redemption where state <> 3 group by 1
    )
    select 'redemption' as what, d.redemption_id as id,
           to_jsonb(d) - 'sealed' - 'code_hash' || jsonb_build_object('spent', e.points, 'back', b.points) as facts
    from redemption d
    left join entries e on e.tenant_id = :tenant and e.entry_id = d.entry_id
    left join back b on b.entry_id = d.entry_id
    where e.kind is distinct from 2 or e.points is distinct from -d.points
       or coalesce(b.points, 0) <> case when d.state = 3 then d.points else 0 end
    union all
    select 'stock', r.reward_id, to_jsonb(r) || jsonb_build_object('redemptions_say', t.times)
    from rewards r left join taken t using (reward_id)
    where r.tenant_id = :tenant and r.business_id = :business
      and r.taken <> case when r.stock is null then 0 else coalesce(t.times, 0) end
    union all
    select 'pool', d.redemption_id, jsonb_build_object('reward_id', d.reward_id, 'code_id', c.code_id)
    from redemption d
    left join pool_codes c on c.tenant_id = :tenant and c.redemption_id = d.redemption_id
    where (c.code_id is not null) <> (d.terms ? 'code_pool_id') or c.code_hash <> d.code_hash
    limit 100
""")


async def faults(tx: Tx, business_id: UUID) -> list[Row[Any]]:
    """Rows (what, id, facts) of what is wrong: none, ever. At most 100."""
    where = {"tenant": tx.tenant_id, "business": business_id}
    return list((await tx.execute(_FAULTS, where)).all())
