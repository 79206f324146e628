"""Reads about saved views."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, and_, or_, select

from libs.audit import Reading
from libs.crypto import Column, DataKey, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from services.customers.problems import ViewNotFound
from services.customers.views.tables import saved_views

SEALED = Column("saved_views", "sealed")


@dataclass(frozen=True, slots=True)
class ViewOfList:
    """A saved view, opened. `search` is the search's JSON form."""

    view_id: UUID
    business_id: UUID
    owner: str
    shared: bool
    version: int
    name: str
    search: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    key: DataKey


_v, _k = saved_views.c, subject_keys.c
_VIEW = select(saved_views, _k.epoch, _k.wrapped).join(
    subject_keys, and_(_k.tenant_id == _v.tenant_id, _k.key_id == _v.key_id)
)


def principal(tx: Tx) -> str:
    """Whose views the caller's are."""
    return tx.caller.on_behalf_of or tx.caller.subject


async def one(tx: Tx, keys: TenantKeys, reading: Reading, view_id: UUID, *, lock: bool = False) -> ViewOfList:
    """A view that the caller sees. Raises ViewNotFound."""
    wanted = _VIEW.where(
        _v.tenant_id == tx.tenant_id, _v.view_id == view_id, or_(_v.shared, _v.owner == principal(tx))
    )
    row = (await tx.execute(wanted.with_for_update(of=saved_views) if lock else wanted)).first()
    if row is None or not tx.caller.sees(row.business_id):
        raise ViewNotFound
    return _view(row, keys, reading)


async def page(
    tx: Tx, keys: TenantKeys, reading: Reading, business_id: UUID, size: int, before: UUID | None
) -> list[ViewOfList]:
    """Up to `size` views of a business that the caller sees, newest first, those older than `before`."""
    wanted = _VIEW.where(
        _v.tenant_id == tx.tenant_id,
        _v.business_id == business_id,
        or_(_v.shared, _v.owner == principal(tx)),
    )
    if before:
        wanted = wanted.where(_v.view_id < before)
    rows = await tx.execute(wanted.order_by(_v.view_id.desc()).limit(size))
    return [_view(row, keys, reading) for row in rows]


async def owned(
    tx: Tx, keys: TenantKeys, reading: Reading, business_id: UUID, owner: str
) -> list[ViewOfList]:
    """All views that somebody saved at a business."""
    wanted = _VIEW.where(_v.tenant_id == tx.tenant_id, _v.business_id == business_id, _v.owner == owner)
    return [_view(row, keys, reading) for row in await tx.execute(wanted)]


def _view(row: Row[Any], keys: TenantKeys, reading: Reading) -> ViewOfList:
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    opened = orjson.loads(keys.open(reading, row.view_id, key, SEALED, row.view_id, row.sealed))
    return ViewOfList(
        view_id=row.view_id,
        business_id=row.business_id,
        owner=row.owner,
        shared=row.shared,
        version=row.version,
        name=opened["name"],
        search=opened["search"],
        created_at=row.created_at,
        updated_at=row.updated_at,
        key=key,
    )
