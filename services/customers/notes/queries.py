"""Reads about notes."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, Select, select
from sqlalchemy.sql import and_

from libs.audit import Reading
from libs.crypto import Column, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from services.customers.problems import NoteNotFound
from services.customers.tables import note_revisions, notes

SEALED = Column("note_revisions", "sealed")
MAX_REVISIONS = 100


@dataclass(frozen=True, slots=True)
class Revision:
    """One text that a note had. `author` is the subject of a token, `author_name` what it was called then."""

    number: int
    text: str
    author: str
    author_name: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class NoteView:
    """A note with its newest text. `kind` is a number of NoteKind."""

    note_id: UUID
    business_id: UUID
    kind: int
    created_at: datetime
    updated_at: datetime
    newest: Revision


_n, _r, _k = notes.c, note_revisions.c, subject_keys.c
_VIEW: Select[Any] = (
    select(notes, _r.sealed, _r.written_at, _k.key_id, _k.epoch, _k.wrapped)
    .join(
        note_revisions,
        and_(
            _r.tenant_id == _n.tenant_id,
            _r.customer_id == _n.customer_id,
            _r.note_id == _n.note_id,
            _r.revision == _n.revision,
        ),
    )
    .join(subject_keys, and_(_k.tenant_id == _r.tenant_id, _k.key_id == _r.key_id))
)


def revision_row_id(note_id: UUID, revision: int) -> UUID:
    """The id that the text of one revision is bound to."""
    return UUID(int=note_id.int ^ revision)


async def one(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID, note_id: UUID, *, lock: bool = False
) -> NoteView:
    """One note of the caller's businesses on a customer. Raises NoteNotFound."""
    wanted = _VIEW.where(_n.tenant_id == tx.tenant_id, _n.customer_id == customer_id, _n.note_id == note_id)
    row = (await tx.execute(wanted.with_for_update(of=notes) if lock else wanted)).first()
    if row is None or not tx.caller.sees(row.business_id):
        raise NoteNotFound
    return _view(row, keys, reading)


async def page(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    customer_id: UUID,
    business_id: UUID,
    size: int,
    before: UUID | None,
) -> list[NoteView]:
    """Up to `size` notes of a business on a customer, newest first, those older than `before`."""
    wanted = _VIEW.where(
        _n.tenant_id == tx.tenant_id, _n.business_id == business_id, _n.customer_id == customer_id
    )
    if before:
        wanted = wanted.where(_n.note_id < before)
    rows = await tx.execute(wanted.order_by(_n.note_id.desc()).limit(size))
    return [_view(row, keys, reading) for row in rows]


async def these(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID, note_ids: Collection[UUID]
) -> dict[UUID, NoteView]:
    """Those of these notes on a customer that the caller's businesses keep, by id."""
    wanted = _VIEW.where(
        _n.tenant_id == tx.tenant_id, _n.customer_id == customer_id, _n.note_id.in_(note_ids)
    )
    return {row.note_id: _view(row, keys, reading) for row in await tx.execute(wanted)}


async def revisions(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID, note_id: UUID
) -> list[Revision]:
    """The last texts of a note that the caller was let to see, newest first."""
    wanted = (
        select(note_revisions, _k.epoch, _k.wrapped)
        .join(subject_keys, and_(_k.tenant_id == _r.tenant_id, _k.key_id == _r.key_id))
        .where(_r.tenant_id == tx.tenant_id, _r.customer_id == customer_id, _r.note_id == note_id)
        .order_by(_r.revision.desc())
        .limit(MAX_REVISIONS)
    )
    return [_revision(row, keys, reading) for row in await tx.execute(wanted)]


def _view(row: Row[Any], keys: TenantKeys, reading: Reading) -> NoteView:
    return NoteView(
        row.note_id,
        row.business_id,
        row.kind,
        row.created_at,
        row.updated_at,
        _revision(row, keys, reading),
    )


def _revision(row: Row[Any], keys: TenantKeys, reading: Reading) -> Revision:
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    at = revision_row_id(row.note_id, row.revision)
    sealed = orjson.loads(keys.open(reading, row.customer_id, key, SEALED, at, row.sealed))
    return Revision(row.revision, sealed["text"], sealed["author"], sealed["author_name"], row.written_at)
