"""Writes for the timeline: what changed about a customer, in the transaction that changes it, and what was heard."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import insert, text

from libs.db import Tx
from libs.ids import new_id
from regulars.customers.v1 import timeline_pb2 as pb
from services.customers.timeline.tables import customer_changes

UPDATED = int(pb.CUSTOMER_CHANGE_KIND_UPDATED)
CREATED = int(pb.CUSTOMER_CHANGE_KIND_CREATED)
JOINED = int(pb.CUSTOMER_CHANGE_KIND_JOINED)
DELETED = int(pb.CUSTOMER_CHANGE_KIND_DELETED)
RESTORED = int(pb.CUSTOMER_CHANGE_KIND_RESTORED)

# Who was merged meanwhile is found under the survivor; who has left the business is not found.
_REPORT = text("""
    insert into customer_reports (tenant_id, business_id, customer_id, reported_at, event_id, event, facts)
    select m.tenant_id, m.business_id, m.customer_id, :at, :event_id, :event, cast(:facts as jsonb)
    from customers c
    join memberships m
      on m.tenant_id = c.tenant_id and m.business_id = :business
     and m.customer_id = coalesce(c.merged_into, c.customer_id)
    where c.tenant_id = :tenant and c.customer_id = :customer
    on conflict do nothing
""")


async def note_change(
    tx: Tx, customer_ids: Iterable[UUID], business_ids: Iterable[UUID], kind: int, fields: Iterable[str] = ()
) -> None:
    """Notes what the caller changed about these customers at these businesses: names of fields, never values."""
    changed = sorted(fields)
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "business_id": business_id,
            "customer_id": customer_id,
            "changed_at": tx.now,
            "change_id": new_id(),
            "kind": kind,
            "fields": changed,
            "actor": actor(tx),
        }
        for customer_id in customer_ids
        for business_id in business_ids
    ]
    if rows:
        await tx.execute(insert(customer_changes), rows)


def actor(tx: Tx) -> str:
    """Who does what this transaction does: the subject of the token, or of whom a service acts for."""
    return tx.caller.on_behalf_of or tx.caller.subject


async def note_report(
    tx: Tx,
    business_id: UUID,
    customer_id: UUID,
    event_id: UUID,
    event: str,
    at: datetime,
    facts: Mapping[str, object],
) -> None:
    """Keeps what an event told of a customer, once."""
    await tx.execute(
        _REPORT,
        {
            "tenant": tx.tenant_id,
            "business": business_id,
            "customer": customer_id,
            "event_id": event_id,
            "event": event,
            "at": at,
            "facts": orjson.dumps(facts).decode(),
        },
    )
