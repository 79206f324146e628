"""Writes about activities."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from libs.crypto import DataKey, TenantKeys
from libs.db import Tx
from libs.instants import stamp
from libs.outbox import Fact, emit_all
from regulars.customers.v1.events_pb2 import ActivityRecorded
from services.customers.activities import rules
from services.customers.activities.queries import SEALED, SEALED_IP, Person
from services.customers.activities.rules import Written

# Ids are claimed in their order, so that two batches that share some never wait for each other in a circle.
_RECORD = text("""
    with given as materialized (
        select * from json_to_recordset(cast(:rows as json)) as row (
            activity_id uuid, customer_id uuid, occurred_at timestamptz, kind smallint, name text, session text,
            utm_source text, utm_medium text, utm_campaign text, utm_term text, utm_content text, referrer text,
            device smallint, country text, sku text, product_name text, product_category text, brand text,
            quantity integer, value_minor bigint, currency text, key_id uuid, sealed bytea, sealed_ip bytea)
    ), claimed as (
        insert into activity_ids (tenant_id, business_id, activity_id, occurred_at)
        select :tenant, :business, activity_id, occurred_at from given order by activity_id
        on conflict do nothing
        returning activity_id
    ), written as (
        insert into activities (
            tenant_id, business_id, customer_id, occurred_at, activity_id, kind, name, session,
            utm_source, utm_medium, utm_campaign, utm_term, utm_content, referrer, device, country, sku,
            product_name, product_category, brand, quantity, value_minor, currency, key_id, sealed, sealed_ip,
            recorded_at)
        select :tenant, :business, customer_id, occurred_at, activity_id, kind, name, session,
            utm_source, utm_medium, utm_campaign, utm_term, utm_content, referrer, device, country, sku,
            product_name, product_category, brand, quantity, value_minor, currency, key_id, sealed, sealed_ip, :now
        from given join claimed using (activity_id)
    )
    select activity_id from claimed
""")

# Rows are held by one statement and written by the next. One that did both would look for the rows to write in a
# snapshot from before it waited, and could wait for a version that another one holds while that waits for this.
_HOLD_STALE = text("""
    select m.customer_id
    from json_to_recordset(cast(:seen as json)) as seen (customer_id uuid, at timestamptz)
    join memberships m
      on m.tenant_id = :tenant and m.business_id = :business and m.customer_id = seen.customer_id
    where m.last_active_at is null or m.last_active_at < seen.at
    order by m.customer_id
    for no key update of m
""")
_MOVE = text("""
    update memberships m set last_active_at = seen.at
    from json_to_recordset(cast(:seen as json)) as seen (customer_id uuid, at timestamptz)
    where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = seen.customer_id
      and (m.last_active_at is null or m.last_active_at < seen.at)
""")

_FORGET_IPS = text("""
    with old as (
        select occurred_at, activity_id, customer_id, business_id from activities
        where tenant_id = :tenant and recorded_at < :before and sealed_ip is not null
        limit :most
    )
    update activities a
    set sealed_ip = null, key_id = case when a.sealed is null then null else a.key_id end
    from old
    where a.tenant_id = :tenant and a.business_id = old.business_id and a.customer_id = old.customer_id
      and a.occurred_at = old.occurred_at and a.activity_id = old.activity_id
""")

_MAKE_MONTH = text("select make_activity_month(:month)")


async def record_activities(
    tx: Tx, keys: TenantKeys, business_id: UUID, items: Sequence[tuple[Person, Written]]
) -> set[UUID]:
    """Records activities of people whose memberships `queries.people` keeps; gives the ids that are new.

    Each id occurs once. Emits ActivityRecorded for each new one, and moves the people's last activity forward.
    """
    data_keys: dict[UUID, DataKey] = {}
    rows = [_row(keys, data_keys, person, written) for person, written in items]
    where = {"tenant": tx.tenant_id, "business": business_id}
    claimed = await tx.execute(_RECORD, {**where, "now": tx.now, "rows": orjson.dumps(rows).decode()})
    new = set(claimed.scalars())
    if not new:
        return new
    recorded = [(person, written) for person, written in items if written.activity_id in new]
    seen: dict[UUID, datetime] = {}
    for person, written in recorded:
        if written.kind in rules.OWN_KINDS:
            at, who = written.occurred_at, person.customer_id
            seen[who] = max(at, seen.get(who, at))
    await move_last_active(tx, business_id, seen)
    await emit_all(tx, [_fact(business_id, person, written) for person, written in recorded])
    return new


async def move_last_active(tx: Tx, business_id: UUID, seen: Mapping[UUID, datetime]) -> None:
    """Moves the last activity of customers forward to when they were seen: never back, and never past now."""
    gone_by = [{"customer_id": str(who), "at": min(at, tx.now)} for who, at in seen.items()]
    where = {"tenant": tx.tenant_id, "business": business_id, "seen": orjson.dumps(gone_by).decode()}
    if gone_by and (await tx.execute(_HOLD_STALE, where)).first():
        await tx.execute(_MOVE, where)


async def forget_ips(tx: Tx, most: int) -> int:
    """Forgets up to `most` of the tenant's IP addresses that were kept for 30 days; gives how many."""
    before = tx.now - rules.IP_KEPT_FOR
    return (await tx.execute(_FORGET_IPS, {"tenant": tx.tenant_id, "before": before, "most": most})).rowcount


async def make_month(tx: Tx, month: date) -> bool:
    """Makes the partition of a month; False if it is there."""
    return bool(await tx.scalar(_MAKE_MONTH, {"month": month}))


def _row(
    keys: TenantKeys, data_keys: dict[UUID, DataKey], person: Person, written: Written
) -> dict[str, Any]:
    row = {
        "activity_id": str(written.activity_id),
        "customer_id": str(person.customer_id),
        "occurred_at": written.occurred_at,
        "kind": written.kind,
        **written.facts,
    }
    if written.sealed or written.ip:
        key = data_keys.get(person.customer_id)
        if key is None:
            key = data_keys[person.customer_id] = person.key(keys)
        row["key_id"] = str(key.key_id)
        if written.sealed:
            content = orjson.dumps(written.sealed)
            row["sealed"] = "\\x" + keys.seal(key, SEALED, written.activity_id, content).hex()
        if written.ip:
            sealed = keys.seal(key, SEALED_IP, written.activity_id, written.ip.encode())
            row["sealed_ip"] = "\\x" + sealed.hex()
    return row


def _fact(business_id: UUID, person: Person, written: Written) -> Fact:
    facts: Any = written.facts
    event = ActivityRecorded(
        activity_id=str(written.activity_id),
        customer_id=str(person.customer_id),
        business_id=str(business_id),
        kind=written.kind,  # type: ignore[arg-type]  # the number of the enum
        name=facts.get("name", ""),
        occurred_at=stamp(written.occurred_at),
        sku=facts.get("sku", ""),
        product_category=facts.get("product_category", ""),
        utm_campaign=facts.get("utm_campaign", ""),
        value_minor=facts.get("value_minor"),
        currency=facts.get("currency", ""),
    )
    return Fact(event, written.activity_id, 1, business_id)
