"""Reads about addresses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Uuid, any_, func, literal, select
from sqlalchemy.sql import and_

from libs.audit import Reading
from libs.crypto import Column, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from services.customers.addresses.rules import Place
from services.customers.problems import AddressNotFound
from services.customers.tables import addresses

SEALED = Column("addresses", "sealed")


@dataclass(frozen=True, slots=True)
class AddressView:
    """An address, opened. `type` is a number of AddressType."""

    address_id: UUID
    type: int
    is_default: bool
    place: Place
    created_at: datetime
    updated_at: datetime


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
    wanted = _VIEW.where(
        _a.tenant_id == tx.tenant_id,
        _a.customer_id == any_(literal(list(customer_ids), ARRAY(Uuid))),
        _a.is_default,
    )
    return {row.customer_id: _view(row, keys, reading).place for row in await tx.execute(wanted)}


async def count(tx: Tx, customer_id: UUID) -> int:
    """How many addresses a customer has."""
    wanted = select(func.count()).where(_a.tenant_id == tx.tenant_id, _a.customer_id == customer_id)
    return int(await tx.scalar(wanted))


def _view(row: Row[Any], keys: TenantKeys, reading: Reading) -> AddressView:
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    opened = keys.open(reading, row.customer_id, key, SEALED, row.address_id, row.sealed)
    return AddressView(
        row.address_id,
        row.type,
        row.is_default,
        Place.of(orjson.loads(opened)),
        row.created_at,
        row.updated_at,
    )
