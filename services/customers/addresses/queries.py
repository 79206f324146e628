"""Reads about addresses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Uuid, any_, func, literal, literal_column, select, text, tuple_
from sqlalchemy.sql import and_

from libs.audit import Reading
from libs.crypto import Column, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from services.customers.addresses.rules import PENDING, Place, Verification
from services.customers.problems import AddressNotFound
from services.customers.tables import addresses, customers, memberships

SEALED = Column("addresses", "sealed")
VERIFICATION = Column("addresses", "verification_sealed")


@dataclass(frozen=True, slots=True)
class AddressView:
    """An address, opened. `type` is a number of AddressType."""

    address_id: UUID
    customer_id: UUID
    type: int
    is_default: bool
    place: Place
    created_at: datetime
    updated_at: datetime
    verification: Verification


_a, _k = addresses.c, subject_keys.c
_VIEW = select(addresses, _k.epoch, _k.wrapped).join(
    subject_keys, and_(_k.tenant_id == _a.tenant_id, _k.key_id == _a.key_id)
)


async def all_of(tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID) -> list[AddressView]:
    """The addresses of a customer that the caller was let to see: the default first, then the newest."""
    wanted = _VIEW.where(_a.tenant_id == tx.tenant_id, _a.customer_id == customer_id)
    rows = await tx.execute(wanted.order_by(_a.is_default.desc(), _a.address_id.desc()))
    return [_view(row, keys, reading) for row in rows]


async def one(tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID, address_id: UUID) -> AddressView:
    """One address of a customer that the caller was let to see. Raises AddressNotFound."""
    wanted = _VIEW.where(
        _a.tenant_id == tx.tenant_id, _a.customer_id == customer_id, _a.address_id == address_id
    )
    row = (await tx.execute(wanted)).first()
    if row is None:
        raise AddressNotFound
    return _view(row, keys, reading)


async def defaults(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_ids: Sequence[UUID]
) -> dict[UUID, Place]:
    """The default addresses of these customers, of those who have one."""
    found = await default_views(tx, keys, reading, customer_ids)
    return {customer_id: view.place for customer_id, view in found.items()}


async def default_views(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_ids: Sequence[UUID]
) -> dict[UUID, AddressView]:
    """The default addresses of these customers with all that is known of them, of those who have one."""
    wanted = _VIEW.where(
        _a.tenant_id == tx.tenant_id,
        _a.customer_id == any_(literal(list(customer_ids), ARRAY(Uuid))),
        _a.is_default,
    )
    return {row.customer_id: _view(row, keys, reading) for row in await tx.execute(wanted)}


async def pending(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    business_id: UUID,
    size: int,
    after: tuple[datetime, UUID] | None,
) -> list[tuple[AddressView, int]]:
    """Up to `size` addresses of a business's live customers that wait, the longest first, each with its etag's number.

    `after` are instant and id of the last one seen.
    """
    m, c = memberships.c, customers.c
    theirs = select(m.customer_id).where(
        m.tenant_id == _a.tenant_id,
        m.business_id == business_id,
        m.customer_id == _a.customer_id,
        m.deleted_at.is_(None),
    )
    wanted = (
        _VIEW.add_columns(c.version)
        .join(customers, and_(c.tenant_id == _a.tenant_id, c.customer_id == _a.customer_id))
        .where(_a.tenant_id == tx.tenant_id, _a.verification == literal_column(str(PENDING)), theirs.exists())
    )
    if after:
        wanted = wanted.where(tuple_(_a.verification_at, _a.address_id) > tuple_(*after))
    rows = await tx.execute(wanted.order_by(_a.verification_at, _a.address_id).limit(size))
    return [(_view(row, keys, reading), row.version) for row in rows]


_STATS = text("""
    select a.verification, count(*) as addresses, min(a.verification_at) as oldest
    from addresses a
    join memberships m
      on m.tenant_id = a.tenant_id and m.business_id = :business and m.customer_id = a.customer_id
     and m.deleted_at is null
    where a.tenant_id = :tenant
    group by a.verification
""")


async def stats(tx: Tx, business_id: UUID) -> Sequence[Row[Any]]:
    """(verification, addresses, oldest) of a business's live customers; `oldest` is the first `verification_at`."""
    return (await tx.execute(_STATS, {"tenant": tx.tenant_id, "business": business_id})).all()


async def count(tx: Tx, customer_id: UUID) -> int:
    """How many addresses a customer has."""
    wanted = select(func.count()).where(_a.tenant_id == tx.tenant_id, _a.customer_id == customer_id)
    return int(await tx.scalar(wanted))


def _view(row: Row[Any], keys: TenantKeys, reading: Reading) -> AddressView:
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    opened = keys.open(reading, row.customer_id, key, SEALED, row.address_id, row.sealed)
    noted: dict[str, str] = {}
    if row.verification_sealed is not None:
        sealed = row.verification_sealed
        noted = orjson.loads(keys.open(reading, row.customer_id, key, VERIFICATION, row.address_id, sealed))
    return AddressView(
        row.address_id,
        row.customer_id,
        row.type,
        row.is_default,
        Place.of(orjson.loads(opened)),
        row.created_at,
        row.updated_at,
        Verification(row.verification, row.verification_at, **noted),
    )
