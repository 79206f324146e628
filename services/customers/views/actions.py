"""Writes about saved views."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, func, insert, select, update

from libs.audit import Reading
from libs.crypto import DataKey, TenantKeys, live_versions
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.problems import EtagMismatch, PermissionDenied
from services.customers.problems import TooManyViews, ViewNameTaken
from services.customers.views import queries
from services.customers.views.queries import SEALED, ViewOfList
from services.customers.views.tables import saved_views

MAX_VIEWS = 100
_mine, _keys = saved_views.c, subject_keys.c


async def create_view(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    business_id: UUID,
    view_id: UUID,
    name: str,
    shared: bool,
    search: dict[str, Any],
) -> None:
    """Saves a view of the caller's. Raises ViewNameTaken, TooManyViews, PermissionDenied."""
    if shared:
        tx.caller.require("customers.write")
    owner = queries.principal(tx)
    await _names_free(tx, keys, reading, business_id, owner, name, None)
    row, key = keys.new_subject_key(await live_versions(tx), view_id, tx.now)
    await tx.execute(insert(subject_keys).values(row._asdict()))
    values = {
        "tenant_id": tx.tenant_id,
        "view_id": view_id,
        "business_id": business_id,
        "owner": owner,
        "shared": shared,
        "key_id": key.key_id,
        "sealed": _seal(keys, key, view_id, name, search),
        "version": 1,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    await tx.execute(insert(saved_views).values(values))


async def update_view(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    before: ViewOfList,
    name: str,
    shared: bool,
    search: dict[str, Any],
    etag: str,
) -> None:
    """Changes a locked view. Raises EtagMismatch, ViewNameTaken, PermissionDenied."""
    _may_change(tx, before, etag)
    if (name, shared, search) == (before.name, before.shared, before.search):
        return
    if shared and not before.shared:
        tx.caller.require("customers.write")
    if name != before.name:
        await _names_free(tx, keys, reading, before.business_id, before.owner, name, before.view_id)
    await tx.execute(
        update(saved_views)
        .where(*_at(tx, before.view_id))
        .values(
            shared=shared,
            sealed=_seal(keys, before.key, before.view_id, name, search),
            version=before.version + 1,
            updated_at=tx.now,
        )
    )


async def delete_view(tx: Tx, before: ViewOfList, etag: str) -> None:
    """Deletes a locked view and its key. Raises EtagMismatch, PermissionDenied."""
    _may_change(tx, before, etag)
    await tx.execute(delete(saved_views).where(*_at(tx, before.view_id)))
    await tx.execute(
        delete(subject_keys).where(_keys.tenant_id == tx.tenant_id, _keys.key_id == before.key.key_id)
    )


def _may_change(tx: Tx, before: ViewOfList, etag: str) -> None:
    if before.owner != queries.principal(tx) and not tx.caller.may("businesses.write"):
        raise PermissionDenied("Only who saved the view may change it.", permission="businesses.write")
    if etag and etag != str(before.version):
        raise EtagMismatch


async def _names_free(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    business_id: UUID,
    owner: str,
    name: str,
    but: UUID | None,
) -> None:
    """Holds the owner's views until the transaction ends; names are sealed, so no index can compare them."""
    lock = f"saved_views {tx.tenant_id} {business_id} {owner}"
    await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(lock, 0))))
    there = await queries.owned(tx, keys, reading, business_id, owner)
    if any(view.name.casefold() == name.casefold() and view.view_id != but for view in there):
        raise ViewNameTaken(field="view.name")
    if but is None and len(there) >= MAX_VIEWS:
        raise TooManyViews(limit=MAX_VIEWS)


def _at(tx: Tx, view_id: UUID) -> tuple[Any, ...]:
    return _mine.tenant_id == tx.tenant_id, _mine.view_id == view_id


def _seal(keys: TenantKeys, key: DataKey, view_id: UUID, name: str, search: dict[str, Any]) -> bytes:
    return keys.seal(key, SEALED, view_id, orjson.dumps({"name": name, "search": search}))
