"""Writes what is counted of customers' orders, in the transaction that changes the orders."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from libs.db import Tx
from services.customers.activities.actions import move_last_active
from services.customers.orders.rules import CANCELLED, Tally

_DAYS = text("""
    insert into customer_daily (tenant_id, business_id, customer_id, day, orders, spent_minor)
    select :tenant, :business, d.customer_id, d.day, d.orders, d.spent_minor
    from jsonb_to_recordset(cast(:rows as jsonb)) as d (customer_id uuid, day date, orders int, spent_minor bigint)
    on conflict on constraint customer_daily_pkey do update
    set orders = customer_daily.orders + excluded.orders,
        spent_minor = customer_daily.spent_minor + excluded.spent_minor
""")
_DROP_DAYS = text("""
    delete from customer_daily
    where tenant_id = :tenant and business_id = :business and orders = 0
      and (customer_id, day) in (
          select d.customer_id, d.day
          from jsonb_to_recordset(cast(:rows as jsonb)) as d (customer_id uuid, day date))
""")
_FAVOURITES = text("""
    insert into customer_favourites (tenant_id, business_id, customer_id, kind, name, quantity, spent_minor)
    select :tenant, :business, f.customer_id, f.kind, f.name, f.quantity, f.spent_minor
    from jsonb_to_recordset(cast(:rows as jsonb))
         as f (customer_id uuid, kind text, name text, quantity bigint, spent_minor bigint)
    on conflict on constraint customer_favourites_pkey do update
    set quantity = customer_favourites.quantity + excluded.quantity,
        spent_minor = customer_favourites.spent_minor + excluded.spent_minor
""")
_DROP_FAVOURITES = text("""
    delete from customer_favourites
    where tenant_id = :tenant and business_id = :business and quantity = 0
      and (customer_id, kind, name) in (
          select f.customer_id, f.kind, f.name
          from jsonb_to_recordset(cast(:rows as jsonb)) as f (customer_id uuid, kind text, name text))
""")

# The stage is that of `rules.lifecycle_stage`, in whole numbers.
_METRICS = text("""
    with gain as (
        select * from jsonb_to_recordset(cast(:rows as jsonb))
            as g (customer_id uuid, recorded int, completed int, cancelled int, refunded int,
                  spent_minor bigint, refunded_minor bigint, items bigint,
                  first timestamptz, last timestamptz, moved boolean)
    ), sums as (
        select g.customer_id,
               coalesce(m.orders_recorded, 0) + g.recorded as recorded,
               coalesce(m.orders_completed, 0) + g.completed as completed,
               coalesce(m.orders_cancelled, 0) + g.cancelled as cancelled,
               coalesce(m.orders_refunded, 0) + g.refunded as refunded,
               coalesce(m.total_spent_minor, 0) + g.spent_minor as spent_minor,
               coalesce(m.refunded_minor, 0) + g.refunded_minor as refunded_minor,
               coalesce(m.items, 0) + g.items as items,
               case when g.moved then span.first else least(m.first_order_at, g.first) end as first,
               case when g.moved then span.last else greatest(m.last_order_at, g.last) end as last
        from gain g left join customer_metrics m
          on m.tenant_id = :tenant and m.business_id = :business and m.customer_id = g.customer_id
        cross join lateral (
            select min(o.placed_at) as first, max(o.placed_at) as last from orders o
            where g.moved and o.tenant_id = :tenant and o.customer_id = g.customer_id and o.status <> 0
              and o.business_id is not distinct from :business  -- no index but the customer's fits
              and o.completed_at is not null and o.status <> :cancelled
        ) span
    )
    insert into customer_metrics (
        tenant_id, business_id, customer_id, orders_recorded, orders_completed, orders_cancelled, orders_refunded,
        total_spent_minor, refunded_minor, net_minor, average_order_minor, first_order_at, last_order_at,
        items, visits, favourite_category, favourite_brand, lifecycle_stage, updated_at)
    select :tenant, :business, s.customer_id, s.recorded, s.completed, s.cancelled, s.refunded,
           s.spent_minor, s.refunded_minor, s.spent_minor - s.refunded_minor,
           coalesce(s.spent_minor / nullif(s.completed, 0), 0),
           s.first, s.last,
           s.items, days.visits,
           (select f.name from customer_favourites f
            where f.tenant_id = :tenant and f.business_id = :business and f.customer_id = s.customer_id
              and f.kind = 'category'
            order by f.quantity desc, f.spent_minor desc, f.name limit 1),
           (select f.name from customer_favourites f
            where f.tenant_id = :tenant and f.business_id = :business and f.customer_id = s.customer_id
              and f.kind = 'brand'
            order by f.quantity desc, f.spent_minor desc, f.name limit 1),
           case when s.completed >= 3 and days.visits >= 3 and days.steady then 3 else least(s.completed, 2) end,
           :now
    from sums s cross join lateral (
        select count(*) as visits,
               4 * (count(gap) * sum(gap * gap) - sum(gap) * sum(gap)) <= sum(gap) * sum(gap) as steady
        from (
            select (d.day - lag(d.day) over (order by d.day))::bigint as gap
            from customer_daily d
            where d.tenant_id = :tenant and d.business_id = :business and d.customer_id = s.customer_id
        ) gaps
    ) days
    on conflict on constraint customer_metrics_pkey do update
    set orders_recorded = excluded.orders_recorded, orders_completed = excluded.orders_completed,
        orders_cancelled = excluded.orders_cancelled, orders_refunded = excluded.orders_refunded,
        total_spent_minor = excluded.total_spent_minor, refunded_minor = excluded.refunded_minor,
        net_minor = excluded.net_minor, average_order_minor = excluded.average_order_minor,
        first_order_at = excluded.first_order_at, last_order_at = excluded.last_order_at,
        items = excluded.items, visits = excluded.visits, favourite_category = excluded.favourite_category,
        favourite_brand = excluded.favourite_brand, lifecycle_stage = excluded.lifecycle_stage,
        updated_at = excluded.updated_at
""")


async def write(tx: Tx, business_id: UUID, tally: Tally) -> None:
    """Adds a tally to the metrics of its customers, whose rows the transaction holds; moves their last activity."""
    days: list[dict[str, Any]] = [
        {"customer_id": customer_id, "day": day, "orders": orders, "spent_minor": minor}
        for (customer_id, day), (orders, minor) in sorted(tally.days.items())
        if orders or minor
    ]
    favourites: list[dict[str, Any]] = [
        {"customer_id": customer_id, "kind": kind, "name": name, "quantity": pieces, "spent_minor": minor}
        for (customer_id, kind, name), (pieces, minor) in sorted(tally.favourites.items())
        if pieces or minor
    ]
    gains: list[dict[str, Any]] = [
        {"customer_id": each, **sums} for each, sums in sorted(tally.customers.items())
    ]
    where: dict[str, Any] = {"tenant": tx.tenant_id, "business": business_id}

    async def run(statement: Any, rows: list[dict[str, Any]], **more: object) -> None:
        if rows:
            await tx.execute(statement, {**where, **more, "rows": orjson.dumps(rows).decode()})

    await run(_DAYS, days)
    await run(_DROP_DAYS, [row for row in days if row["orders"] < 0])
    await run(_FAVOURITES, favourites)
    await run(_DROP_FAVOURITES, [row for row in favourites if row["quantity"] < 0])
    await run(_METRICS, gains, now=tx.now, cancelled=CANCELLED)
    await move_last_active(tx, business_id, tally.seen)


# What the three tables must hold, counted anew from the orders; rows of either side that the other has not.
_COUNTED = """
    counted as (
        select o.*, o.completed_at is not null and o.status <> :cancelled as counts
        from orders o
        where o.tenant_id = :tenant and o.business_id = :business and o.customer_id is not null
    ), lines as (
        select o.customer_id, l.*
        from counted o cross join lateral jsonb_to_recordset(o.items)
             as l (category text, brand text, quantity bigint, amount_minor bigint)
        where o.counts
    ), day as (
        select customer_id, local_day as day, count(*)::int as orders, sum(total_minor)::bigint as spent_minor
        from counted where counts group by 1, 2
    ), favourite as (
        select customer_id, kind, name, sum(quantity)::bigint as quantity, sum(amount_minor)::bigint as spent_minor
        from lines cross join lateral (values ('category', category), ('brand', brand)) as v (kind, name)
        where name is not null group by 1, 2, 3
    ), best as (
        select distinct on (customer_id, kind) customer_id, kind, name
        from favourite order by customer_id, kind, quantity desc, spent_minor desc, name
    ), gap as (
        select customer_id, (day - lag(day) over (partition by customer_id order by day))::bigint as gap from day
    ), rhythm as (
        select customer_id, count(*)::int as visits,
               4 * (count(gap) * sum(gap * gap) - sum(gap) * sum(gap)) <= sum(gap) * sum(gap) as steady
        from gap group by 1
    ), summed as (
        select customer_id,
               count(*)::int as orders_recorded,
               (count(*) filter (where counts))::int as orders_completed,
               (count(*) filter (where status = :cancelled))::int as orders_cancelled,
               (count(*) filter (where counts and refunded_minor > 0))::int as orders_refunded,
               coalesce(sum(total_minor) filter (where counts), 0)::bigint as total_spent_minor,
               coalesce(sum(refunded_minor) filter (where counts), 0)::bigint as refunded_minor,
               min(placed_at) filter (where counts) as first_order_at,
               max(placed_at) filter (where counts) as last_order_at,
               coalesce(sum(quantity) filter (where counts), 0)::bigint as items
        from counted group by 1
    ), metric as (
        select s.customer_id, s.orders_recorded, s.orders_completed, s.orders_cancelled, s.orders_refunded,
               s.total_spent_minor, s.refunded_minor, s.total_spent_minor - s.refunded_minor as net_minor,
               coalesce(s.total_spent_minor / nullif(s.orders_completed, 0), 0) as average_order_minor,
               s.first_order_at, s.last_order_at, s.items, coalesce(r.visits, 0) as visits,
               (select name from best b where b.customer_id = s.customer_id and kind = 'category')
                   as favourite_category,
               (select name from best b where b.customer_id = s.customer_id and kind = 'brand') as favourite_brand,
               case when s.orders_completed >= 3 and r.visits >= 3 and r.steady then 3
                    else least(s.orders_completed, 2) end::smallint as lifecycle_stage
        from summed s left join rhythm r using (customer_id)
    )
"""


def _compare(table: str, counted: str, columns: str) -> str:
    here = f"select {columns} from {table} where tenant_id = :tenant and business_id = :business"  # noqa: S608
    there = f"select {columns} from {counted}"  # noqa: S608
    return (  # names of ours
        f"select '{table}' as kept_in, 'kept' as side, customer_id, to_jsonb(d) as row"  # noqa: S608
        f" from (({here}) except ({there})) d"
        f" union all select '{table}', 'counted', customer_id, to_jsonb(d) from (({there}) except ({here})) d"
    )


_DIFFERENCES = text(
    f"with {_COUNTED} "
    + " union all ".join(
        [
            _compare("customer_daily", "day", "customer_id, day, orders, spent_minor"),
            _compare("customer_favourites", "favourite", "customer_id, kind, name, quantity, spent_minor"),
            _compare(
                "customer_metrics",
                "metric",
                "customer_id, orders_recorded, orders_completed, orders_cancelled, orders_refunded,"
                " total_spent_minor, refunded_minor, net_minor, average_order_minor, first_order_at, last_order_at,"
                " items, visits, favourite_category, favourite_brand, lifecycle_stage",
            ),
        ]
    )
    + " order by customer_id, kept_in, side limit 1000"
)


async def differences(tx: Tx, business_id: UUID) -> list[Row[Any]]:
    """Where the metrics of a business are not what a recount of its orders gives: none, ever.

    Rows (kept_in, side, customer_id, row), `side` being "kept" or "counted"; at most 1,000.
    """
    where = {"tenant": tx.tenant_id, "business": business_id, "cancelled": CANCELLED}
    return list((await tx.execute(_DIFFERENCES, where)).all())
