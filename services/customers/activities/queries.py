"""Reads about activities, and whom a batch of them names."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, DateTime, LargeBinary, Row, Text, Uuid, bindparam, select, text

from libs.audit import Reading
from libs.crypto import Column, DataKey, TenantKeys, live_versions
from libs.db import Tx
from services.customers.activities.tables import activity_ids
from services.customers.problems import ActivityIdTaken

SEALED = Column("activities", "sealed")
SEALED_IP = Column("activities", "sealed_ip")


@dataclass(frozen=True, slots=True)
class ActivityView:
    """An activity, opened: `row` has what is in clear, `sealed` the rest."""

    row: Row[Any]
    sealed: Mapping[str, Any]
    ip: str


@dataclass(frozen=True, slots=True)
class Person:
    """A live customer of a business, and what opens their data key."""

    customer_id: UUID
    key_id: UUID
    epoch: int
    wrapped: bytes

    def key(self, keys: TenantKeys) -> DataKey:
        """The data key that new values are sealed under."""
        return keys.unwrap(self.key_id, self.epoch, self.wrapped)


_FOUND = text("""
    select i.kind, i.bidx, i.customer_id
    from unnest(:kinds, :digests) as asked (kind, bidx)
    join customer_identifiers i
      on i.tenant_id = :tenant and i.kind = asked.kind and i.key_version = :version and i.bidx = asked.bidx
""").bindparams(bindparam("kinds", type_=ARRAY(Text)), bindparam("digests", type_=ARRAY(LargeBinary)))

# Keeps the tenant's memberships until the activities are written: see migration 0004.
_KEEP = text("select pg_advisory_xact_lock_shared(activities_lock())")

_PEOPLE = text("""
    select m.customer_id, c.key_id, k.epoch, k.wrapped
    from memberships m
    join customers c on c.tenant_id = m.tenant_id and c.customer_id = m.customer_id
    join subject_keys k on k.tenant_id = c.tenant_id and k.key_id = c.key_id
    where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = any (:customers)
      and m.deleted_at is null
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))

_SURVIVORS = text("""
    select customer_id, merged_into from customers
    where tenant_id = :tenant and customer_id = any (:customers) and merged_into is not null
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))


async def named(tx: Tx, keys: TenantKeys, asked: Collection[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """The customers of the tenant whom normalised identifiers find, by (kind, value)."""
    if not asked:
        return {}
    live = await live_versions(tx)
    indexes = {(kind, value): keys.blind_index(live, kind, value) for kind, value in asked}
    version = next(iter(indexes.values())).key_version
    rows = await tx.execute(
        _FOUND,
        {
            "tenant": tx.tenant_id,
            "version": version,
            "kinds": [kind for kind, _ in indexes],
            "digests": [index.digest for index in indexes.values()],
        },
    )
    found = {(row.kind, bytes(row.bidx)): row.customer_id for row in rows}
    return {
        key: found[key[0], index.digest] for key, index in indexes.items() if (key[0], index.digest) in found
    }


async def people(tx: Tx, business_id: UUID, customer_ids: Collection[UUID]) -> dict[UUID, Person]:
    """The live customers of the business among these, by the id that was asked for; none of them leaves meanwhile.

    An id that was merged leads to the survivor.
    """
    await tx.execute(_KEEP)
    found = await _people(tx, business_id, customer_ids)
    missing = [each for each in customer_ids if each not in found]
    if missing:
        rows = await tx.execute(_SURVIVORS, {"tenant": tx.tenant_id, "customers": missing})
        merged = {row.customer_id: row.merged_into for row in rows}
        survivors = await _people(tx, business_id, set(merged.values())) if merged else {}
        found |= {old: survivors[new] for old, new in merged.items() if new in survivors}
    return found


async def _people(tx: Tx, business_id: UUID, customer_ids: Iterable[UUID]) -> dict[UUID, Person]:
    where = {"tenant": tx.tenant_id, "business": business_id, "customers": list(customer_ids)}
    return {
        row.customer_id: Person(row.customer_id, row.key_id, row.epoch, row.wrapped)
        for row in await tx.execute(_PEOPLE, where)
    }


# The range is what the index finds. A list of (instant, id) would be planned as a condition for each, in each month,
# and a join with the list reads all that the customer ever did.
_THESE = text("""
    select a.*, k.epoch, k.wrapped
    from activities a
    left join subject_keys k on k.tenant_id = a.tenant_id and k.key_id = a.key_id
    where a.tenant_id = :tenant and a.business_id = :business and a.customer_id = :customer
      and a.occurred_at between :first and :last and a.activity_id = any (:ids)
""").bindparams(
    bindparam("first", type_=DateTime(timezone=True)),
    bindparam("last", type_=DateTime(timezone=True)),
    bindparam("ids", type_=ARRAY(Uuid)),
)


async def one(
    tx: Tx, keys: TenantKeys, reading: Reading, business_id: UUID, customer_id: UUID, activity_id: UUID
) -> ActivityView:
    """The activity of a customer with an id that the business has recorded. Raises ActivityIdTaken."""
    mine = activity_ids.c
    at: datetime = await tx.scalar(
        select(mine.occurred_at).where(
            mine.tenant_id == tx.tenant_id, mine.business_id == business_id, mine.activity_id == activity_id
        )
    )
    found = await these(tx, keys, reading, business_id, customer_id, [(at, activity_id)])
    if activity_id not in found:
        raise ActivityIdTaken
    return found[activity_id]


async def these(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    business_id: UUID,
    customer_id: UUID,
    at: Sequence[tuple[datetime, UUID]],
) -> dict[UUID, ActivityView]:
    """The activities of a customer at these (instant, id), opened, by id."""
    where = {"tenant": tx.tenant_id, "business": business_id, "customer": customer_id}
    places = {"first": min(at)[0], "last": max(at)[0], "ids": [id_ for _, id_ in at]}
    rows = await tx.execute(_THESE, {**where, **places})
    return {row.activity_id: view(row, keys, reading) for row in rows}


def view(row: Row[Any], keys: TenantKeys, reading: Reading) -> ActivityView:
    """The view of a row of an activity with its key."""
    sealed: Mapping[str, Any] = {}
    ip = ""
    if row.key_id is not None:
        key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
        if row.sealed is not None:
            sealed = orjson.loads(
                keys.open(reading, row.customer_id, key, SEALED, row.activity_id, row.sealed)
            )
        if row.sealed_ip is not None:
            ip = keys.open(reading, row.customer_id, key, SEALED_IP, row.activity_id, row.sealed_ip).decode()
    return ActivityView(row, sealed, ip)
