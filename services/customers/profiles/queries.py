"""Reads about customers; `one` and `many` are the only doors to a customer's row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Select, Uuid, any_, bindparam, func, literal, select, text
from sqlalchemy.sql import and_

from libs.audit import Reading
from libs.crypto import Column, DataKey, LiveVersions, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Database, Tx
from libs.pipeline import Query
from services.customers.orders.tables import customer_metrics
from services.customers.problems import CustomerNotFound
from services.customers.profiles.rules import Profile, Source, Standing
from services.customers.tables import customer_identifiers, customers, memberships

PROFILE = Column("customers", "profile")
STANDING = Column("memberships", "sealed")
EXACT_TOTAL = 10_000


@dataclass(frozen=True, slots=True)
class View:
    """A customer as one business sees them. `key` is the person's data key, if sealed fields were opened."""

    customer_id: UUID
    business_id: UUID
    business_ids: frozenset[UUID]
    version: int
    profile: Profile
    standing: Standing
    email_verified: bool
    phone_verified: bool
    created_at: datetime
    updated_at: datetime
    joined_at: datetime
    last_active_at: datetime | None = None
    deleted_at: datetime | None = None
    erase_due_at: datetime | None = None
    key: DataKey | None = None
    lifecycle_stage: int = 0


def membership_row_id(business_id: UUID, customer_id: UUID) -> UUID:
    """The id that a membership's sealed values are bound to."""
    return UUID(int=business_id.int ^ customer_id.int)


_c, _m, _k = customers.c, memberships.c, subject_keys.c
_others = memberships.alias("others")
_business_ids = (
    select(func.array_agg(_others.c.business_id))
    .where(_others.c.tenant_id == _m.tenant_id, _others.c.customer_id == _m.customer_id)
    .scalar_subquery()
)
_t = customer_metrics.c
_lifecycle_stage = (
    select(_t.lifecycle_stage)
    .where(_t.tenant_id == _m.tenant_id, _t.business_id == _m.business_id, _t.customer_id == _m.customer_id)
    .scalar_subquery()
)
_VIEW: Select[Any] = (
    select(
        _c.customer_id,
        _c.version,
        _c.key_id,
        _c.profile,
        _c.email_verified,
        _c.phone_verified,
        _c.created_at,
        _c.updated_at,
        _m.business_id,
        _m.status,
        _m.type,
        _m.tags,
        _m.attributes,
        _m.sealed,
        _m.joined_at,
        _m.last_active_at,
        _m.deleted_at,
        _m.erase_due_at,
        _k.epoch,
        _k.wrapped,
        _business_ids.label("business_ids"),
        _lifecycle_stage.label("lifecycle_stage"),
    )
    .select_from(memberships)
    .join(customers, and_(_c.tenant_id == _m.tenant_id, _c.customer_id == _m.customer_id))
    .join(subject_keys, and_(_k.tenant_id == _c.tenant_id, _k.key_id == _c.key_id))
    .where(_m.tenant_id == bindparam("tenant"))
)
_AT = _VIEW.where(_m.business_id == bindparam("business"))
_ONE = _AT.where(_m.customer_id == bindparam("customer"))
_ONE_AT_ONCE = Query(_ONE)
_MANY = _AT.where(_m.customer_id == any_(bindparam("customers", type_=ARRAY(Uuid))), _m.deleted_at.is_(None))
_MERGED = select(_c.merged_into).where(
    _c.tenant_id == bindparam("tenant"), _c.customer_id == bindparam("customer"), _c.merged_into.is_not(None)
)


async def one(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading | None,
    customer_id: UUID,
    business_id: UUID,
    *,
    deleted: bool = False,
    lock: bool = False,
) -> View:
    """A customer as the business sees them; an id that was merged leads to the survivor.

    Without `reading` what is sealed stays closed. `deleted` finds deleted ones too; `lock` keeps the person's row
    until the transaction ends. Raises CustomerNotFound, also for customers of other businesses.
    """
    if lock:
        await _lock(tx, customer_id)
    where = {"tenant": tx.tenant_id, "business": business_id, "customer": customer_id}
    row = (await tx.execute(_ONE, where)).first()
    if row is None:
        survivor = await tx.scalar(_MERGED, {"tenant": tx.tenant_id, "customer": customer_id})
        if survivor is None:
            raise CustomerNotFound
        return await one(tx, keys, reading, survivor, business_id, deleted=deleted, lock=lock)
    if row.deleted_at and not deleted:
        raise CustomerNotFound
    return view(row, keys, reading)


def membership_at(tx: Tx, business_id: UUID, customer_id: UUID) -> tuple[Any, ...]:
    """The conditions that name one membership."""
    return _m.tenant_id == tx.tenant_id, _m.business_id == business_id, _m.customer_id == customer_id


async def at_once(
    db: Database,
    keys: TenantKeys,
    reading: Reading | None,
    customer_id: UUID,
    business_id: UUID,
    *,
    deleted: bool = False,
) -> View | None:
    """As `one`, in a transaction of its own and one round trip; None if it takes more to know who is meant."""
    where = {"tenant": keys.tenant_id, "business": business_id, "customer": customer_id}
    (rows,) = await db.fetch((_ONE_AT_ONCE, where))
    if not rows or (rows[0].deleted_at and not deleted):
        return None
    return view(rows[0], keys, reading)


async def anywhere(
    tx: Tx, keys: TenantKeys, reading: Reading | None, customer_id: UUID, *, lock: bool = False
) -> View:
    """A live customer at any one of the caller's businesses, for what belongs to the person. Raises as `one`."""
    wanted = select(_m.business_id).where(
        _m.tenant_id == tx.tenant_id, _m.customer_id == customer_id, _m.deleted_at.is_(None)
    )
    business_id = await tx.scalar(wanted.order_by(_m.business_id).limit(1))
    if business_id is None:
        survivor = await tx.scalar(_MERGED, {"tenant": tx.tenant_id, "customer": customer_id})
        if survivor is None:
            raise CustomerNotFound
        return await anywhere(tx, keys, reading, survivor, lock=lock)
    return await one(tx, keys, reading, customer_id, business_id, lock=lock)


async def seen(tx: Tx, customer_id: UUID) -> None:
    """Raises CustomerNotFound unless the customer is at one of the caller's businesses, deleted or not."""
    wanted = select(_m.business_id).where(_m.tenant_id == tx.tenant_id, _m.customer_id == customer_id)
    if (await tx.execute(wanted.limit(1))).first() is None:
        raise CustomerNotFound


async def many(
    tx: Tx, keys: TenantKeys, reading: Reading | None, customer_ids: Sequence[UUID], business_id: UUID
) -> dict[UUID, View]:
    """The live ones among up to 1,000 customers of the business, by the id that was asked for."""
    where = {"tenant": tx.tenant_id, "business": business_id, "customers": list(customer_ids)}
    found = {row.customer_id: row for row in await tx.execute(_MANY, where)}
    merged = await _survivors(tx, [each for each in customer_ids if each not in found])
    if merged:
        where["customers"] = list(merged.values())
        survivors = {row.customer_id: row for row in await tx.execute(_MANY, where)}
        found |= {old: survivors[new] for old, new in merged.items() if new in survivors}
    return {asked: view(row, keys, reading) for asked, row in found.items()}


async def _survivors(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    if not customer_ids:
        return {}
    wanted = select(_c.customer_id, _c.merged_into).where(
        _c.tenant_id == tx.tenant_id, _c.customer_id.in_(customer_ids), _c.merged_into.is_not(None)
    )
    return {row.customer_id: row.merged_into for row in await tx.execute(wanted)}


async def _lock(tx: Tx, customer_id: UUID) -> None:
    mine = select(_c.customer_id).where(_c.tenant_id == tx.tenant_id, _c.customer_id == customer_id)
    await tx.execute(mine.with_for_update())


def view(row: Row[Any], keys: TenantKeys, reading: Reading | None) -> View:
    """The view of a row of _VIEW."""
    profile, key = Profile(), None
    personal: dict[str, object] = {}
    sources: tuple[Source, ...] = ()
    if reading is not None:
        key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
        profile = Profile.of(
            orjson.loads(keys.open(reading, row.customer_id, key, PROFILE, row.customer_id, row.profile))
        )
        if row.sealed is not None:
            at = membership_row_id(row.business_id, row.customer_id)
            sealed = orjson.loads(keys.open(reading, row.customer_id, key, STANDING, at, row.sealed))
            personal = sealed.get("attributes", {})
            sources = tuple(Source(*source) for source in sealed.get("sources", ()))
    return View(
        customer_id=row.customer_id,
        business_id=row.business_id,
        business_ids=frozenset(row.business_ids),
        version=row.version,
        profile=profile,
        standing=Standing(row.status, row.type, tuple(row.tags), row.attributes, personal, sources),
        email_verified=row.email_verified,
        phone_verified=row.phone_verified,
        created_at=row.created_at,
        updated_at=row.updated_at,
        joined_at=row.joined_at,
        last_active_at=row.last_active_at,
        deleted_at=row.deleted_at,
        erase_due_at=row.erase_due_at,
        key=key,
        lifecycle_stage=row.lifecycle_stage or 0,
    )


async def holder(tx: Tx, keys: TenantKeys, live: LiveVersions, kind: str, value: str) -> UUID | None:
    """The customer whom a normalised identifier finds, whatever their business, or None."""
    index = keys.blind_index(live, kind, value)
    mine = customer_identifiers.c
    wanted = select(mine.customer_id).where(
        mine.tenant_id == tx.tenant_id,
        mine.kind == kind,
        mine.key_version == index.key_version,
        mine.bidx == index.digest,
    )
    found: UUID | None = await tx.scalar(wanted)
    return found


async def page(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading | None,
    business_id: UUID,
    *,
    size: int,
    after: UUID | None,
    ascending: bool,
    deleted: bool,
    created_after: datetime | None,
    created_before: datetime | None,
) -> list[View]:
    """Up to `size` customers of the business in the order of their ids, which is that of their creation."""
    wanted = _AT.where(_m.deleted_at.is_not(None) if deleted else _m.deleted_at.is_(None))
    if after:
        wanted = wanted.where(_m.customer_id > after if ascending else _m.customer_id < after)
    # Ids bear the millisecond of creation: they bound the index scan, created_at decides.
    if created_after:
        wanted = wanted.where(_c.created_at >= created_after, _m.customer_id >= first_id_at(created_after))
    if created_before:
        wanted = wanted.where(
            _c.created_at < created_before, _m.customer_id <= first_id_at(created_before, last=True)
        )
    order = _m.customer_id.asc() if ascending else _m.customer_id.desc()
    rows = await tx.execute(
        wanted.order_by(order).limit(size), {"tenant": tx.tenant_id, "business": business_id}
    )
    return [view(row, keys, reading) for row in rows]


def first_id_at(instant: datetime, *, last: bool = False) -> UUID:
    """The first (or last) id that could have been made in the millisecond of `instant`, a second of slack given."""
    millis = max(0, int(instant.timestamp() * 1000) + (1000 if last else -1000))
    return UUID(int=millis << 80 | ((1 << 80) - 1 if last else 0))


_COUNT = text("""
    select count(*) from (
        select from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and (m.deleted_at is not null) = :deleted
        limit :most
    ) counted
""")
_ESTIMATE = text("""
    select greatest(
        (select reltuples from pg_catalog.pg_class where oid = 'memberships'::regclass)
        / greatest((select count(*) from businesses where tenant_id = :tenant), 1), :least)::bigint
""")


async def total(tx: Tx, business_id: UUID, *, deleted: bool) -> tuple[int, bool]:
    """How many customers the business has, and whether that is an estimate (it is beyond 10,000)."""
    where = {"tenant": tx.tenant_id, "business": business_id, "deleted": deleted, "most": EXACT_TOTAL + 1}
    counted = int(await tx.scalar(_COUNT, where))
    if counted <= EXACT_TOTAL:
        return counted, False
    return int(await tx.scalar(_ESTIMATE, {"tenant": tx.tenant_id, "least": counted})), True


_PASS = text("""
    select customer_id from customers
    where tenant_id = :tenant and customer_id > :after and deleted_at is null and merged_into is null
    order by customer_id limit :size
""")


async def next_pass(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading | None,
    after: UUID,
    size: int,
    business_id: UUID | None,
) -> tuple[UUID | None, list[View]]:
    """The next `size` people of the tenant after an id: the last id, and their views at the caller's businesses."""
    where = {"tenant": tx.tenant_id, "after": after, "size": size}
    ids = list((await tx.execute(_PASS, where)).scalars())
    if not ids:
        return None, []
    wanted = _VIEW.where(_m.customer_id == any_(literal(ids, ARRAY(Uuid))), _m.deleted_at.is_(None))
    if business_id:
        wanted = wanted.where(_m.business_id == business_id)
    rows = await tx.execute(wanted.order_by(_m.customer_id, _m.business_id), {"tenant": tx.tenant_id})
    return ids[-1], [view(row, keys, reading) for row in rows]


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """A person's profile as of a version, and whether an address is known."""

    customer_id: UUID
    version: int
    profile: Profile
    has_address: bool


_FACTS = text("""
    select c.customer_id, c.version, c.key_id, c.profile, k.epoch, k.wrapped,
           exists (select from addresses a
                   where a.tenant_id = c.tenant_id and a.customer_id = c.customer_id) as has_address
    from customers c join subject_keys k on k.tenant_id = c.tenant_id and k.key_id = c.key_id
    where c.tenant_id = :tenant and c.customer_id = any(:customers) and c.merged_into is null
      and c.erasing_at is null and k.wrapped is not null
      and exists (select from memberships m where m.tenant_id = c.tenant_id and m.customer_id = c.customer_id)
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))


async def facts(tx: Tx, keys: TenantKeys, reading: Reading, customer_ids: Sequence[UUID]) -> list[KnownFacts]:
    """What is known of people at the caller's businesses, those who were merged or erased left out."""
    found = []
    for row in await tx.execute(_FACTS, {"tenant": tx.tenant_id, "customers": list(customer_ids)}):
        key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
        opened = keys.open(reading, row.customer_id, key, PROFILE, row.customer_id, row.profile)
        found.append(
            KnownFacts(row.customer_id, row.version, Profile.of(orjson.loads(opened)), row.has_address)
        )
    return found


_TAGS = text("""
    select (array_agg(tag order by tag))[1] as tag, count(*) as customers
    from memberships m cross join unnest(m.tags) as tag
    where m.tenant_id = :tenant and m.business_id = :business and m.deleted_at is null
    group by lower(tag) order by count(*) desc, 1 limit 1000
""")


async def tags(tx: Tx, business_id: UUID) -> Sequence[Row[Any]]:
    """(tag, customers) of a business, most used first."""
    return (await tx.execute(_TAGS, {"tenant": tx.tenant_id, "business": business_id})).all()


_STATS = text("""
    select status, type, deleted_at is not null as deleted, joined_at >= :since as fresh, count(*) as customers
    from memberships
    where tenant_id = :tenant and business_id = :business
    group by 1, 2, 3, 4
""")


async def stats(tx: Tx, business_id: UUID, since: datetime) -> Sequence[Row[Any]]:
    """Counts of a business by (status, type, deleted, fresh: joined at or after `since`)."""
    where = {"tenant": tx.tenant_id, "business": business_id, "since": since}
    return (await tx.execute(_STATS, where)).all()


async def everywhere(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_ids: Sequence[UUID]
) -> Mapping[UUID, list[View]]:
    """All memberships that the transaction sees of these customers, deleted ones too, by customer."""
    wanted = _VIEW.where(_m.customer_id == any_(literal(list(customer_ids), ARRAY(Uuid))))
    found: dict[UUID, list[View]] = {}
    for row in await tx.execute(wanted, {"tenant": tx.tenant_id}):
        found.setdefault(row.customer_id, []).append(view(row, keys, reading))
    return found
