"""Net revenue of completed orders by day: what orders changed is noted by triggers, and folded."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Date, bindparam, text

from libs.db import Tx
from services.loyalty.ledger import writing

# What is folded is gone, in one transaction: a statement that reads both counts each change once.
_FOLD = text("""
    with gone as (
        delete from revenue_changes c
        where c.tenant_id = :tenant and c.change_id in (
            select x.change_id from revenue_changes x where x.tenant_id = :tenant
            order by x.change_id limit :some for update skip locked)
        returning c.business_id, c.day, c.orders, c.net_minor
    ), kept as (
        insert into revenue_days as d (tenant_id, business_id, day, orders, net_minor)
        select :tenant, g.business_id, g.day, sum(g.orders), sum(g.net_minor) from gone g group by 2, 3 order by 2, 3
        on conflict on constraint revenue_days_pkey do update
        set orders = d.orders + excluded.orders, net_minor = d.net_minor + excluded.net_minor
    )
    select count(*) from gone
""")
_REVENUE = text("""
    select cast(date_trunc(:unit, r.day) as date) as period, sum(r.orders) as orders, sum(r.net_minor) as net_minor
    from (
        select d.day, d.orders, d.net_minor from revenue_days d
        where d.tenant_id = :tenant and d.business_id = :business and d.day between :first and :last
        union all
        select c.day, c.orders, c.net_minor from revenue_changes c
        where c.tenant_id = :tenant and c.business_id = :business and c.day between :first and :last
    ) r group by 1
""").bindparams(bindparam("first", type_=Date), bindparam("last", type_=Date))


async def fold(tx: Tx, settled: datetime, at_once: int) -> bool:
    """Folds what orders changed into days; True if there may be more. It is settled as soon as it is there."""
    await tx.execute(writing.BY_KEY)
    return int(await tx.scalar(_FOLD, {"tenant": tx.tenant_id, "some": at_once})) == at_once


async def revenue(
    tx: Tx, business_id: UUID, first: date, last: date, unit: str
) -> Mapping[date, tuple[int, int]]:
    """Orders and their net revenue in minor units, by the first day of each "day" or "month"."""
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "business": business_id,
        "first": first,
        "last": last,
        "unit": unit,
    }
    return {row.period: (int(row.orders), int(row.net_minor)) for row in await tx.execute(_REVENUE, where)}
