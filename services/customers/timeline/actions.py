"""Writes for the timeline: what changed about a customer, in the transaction that changes it, and what was heard."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import insert, text

from libs import arrays
from libs.db import Tx
from libs.ids import new_id
from libs.pipeline import Query
from regulars.customers.v1 import timeline_pb2 as pb
from services.customers.timeline.tables import customer_changes

UPDATED = int(pb.CUSTOMER_CHANGE_KIND_UPDATED)
CREATED = int(pb.CUSTOMER_CHANGE_KIND_CREATED)
JOINED = int(pb.CUSTOMER_CHANGE_KIND_JOINED)
DELETED = int(pb.CUSTOMER_CHANGE_KIND_DELETED)
RESTORED = int(pb.CUSTOMER_CHANGE_KIND_RESTORED)

# Who was merged meanwhile is found under the survivor; who has left the business is not found.
_REPORTS = Query(
    text("""
    insert into customer_reports (tenant_id, business_id, customer_id, reported_at, event_id, event, facts)
    select :tenant, m.business_id, m.customer_id, n.at, n.event_id, n.event, cast(n.facts as jsonb)
    from unnest(:businesses, :customers, :instants, :ids, :events, :facts)
        as n (business_id, customer_id, at, event_id, event, facts)
    cross join lateral (
        select coalesce(c.merged_into, c.customer_id) as customer_id from customers c
        where c.tenant_id = :tenant and c.customer_id = n.customer_id limit 1
    ) c
    cross join lateral (
        select m.business_id, m.customer_id from memberships m
        where m.tenant_id = :tenant and m.business_id = n.business_id and m.customer_id = c.customer_id limit 1
    ) m
    on conflict do nothing
""")
)


@dataclass(frozen=True, slots=True)
class Report:
    """What an event told of a customer at a business. `facts` are texts and numbers, never personal data."""

    business_id: UUID
    customer_id: UUID
    event_id: UUID
    event: str
    at: datetime
    facts: Mapping[str, object]


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


async def note_reports(tx: Tx, reports: Sequence[Report]) -> None:
    """Keeps what events told of customers, once each."""
    # In one order for everyone: a row locks what it refers to.
    reports = sorted(reports, key=lambda each: each.customer_id)
    await tx.together(
        (
            _REPORTS,
            {
                "tenant": tx.tenant_id,
                "businesses": arrays.uuids([each.business_id for each in reports]),
                "customers": arrays.uuids([each.customer_id for each in reports]),
                "instants": [each.at for each in reports],
                "ids": arrays.uuids([each.event_id for each in reports]),
                "events": arrays.texts([each.event for each in reports]),
                "facts": arrays.texts([orjson.dumps(each.facts).decode() for each in reports]),
            },
        )
    )
