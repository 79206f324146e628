"""Writes about notes."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, insert, update

from libs.crypto import DataKey, TenantKeys
from libs.db import Tx
from libs.problems import EtagMismatch
from regulars.customers.v1 import notes_pb2 as pb
from services.customers.notes.queries import SEALED, NoteView, revision_row_id
from services.customers.profiles.queries import View
from services.customers.tables import note_revisions, notes

_mine = notes.c


async def create_note(tx: Tx, keys: TenantKeys, customer: View, note_id: UUID, kind: int, text: str) -> None:
    """Writes a note of the business that the customer was found at."""
    row = {
        "tenant_id": tx.tenant_id,
        "customer_id": customer.customer_id,
        "note_id": note_id,
        "business_id": customer.business_id,
        "kind": kind or int(pb.NOTE_KIND_INTERNAL),
        "revision": 1,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    await tx.execute(insert(notes).values(row))
    await _write_revision(tx, keys, _key(customer), customer.customer_id, note_id, 1, text)


async def update_note(
    tx: Tx, keys: TenantKeys, customer: View, before: NoteView, text: str, etag: str
) -> None:
    """Gives a locked note a new text; the same text changes nothing. Raises EtagMismatch."""
    if etag and etag != str(before.newest.number):
        raise EtagMismatch
    if text == before.newest.text:
        return
    revision = before.newest.number + 1
    await tx.execute(
        update(notes)
        .where(*_at(tx, customer.customer_id, before.note_id))
        .values(revision=revision, updated_at=tx.now)
    )
    await _write_revision(tx, keys, _key(customer), customer.customer_id, before.note_id, revision, text)


async def delete_note(tx: Tx, customer_id: UUID, note_id: UUID) -> None:
    """Deletes a note; its revisions go with it."""
    await tx.execute(delete(notes).where(*_at(tx, customer_id, note_id)))


async def _write_revision(
    tx: Tx, keys: TenantKeys, key: DataKey, customer_id: UUID, note_id: UUID, revision: int, text: str
) -> None:
    caller = tx.caller
    written = {
        "text": text,
        "author": caller.on_behalf_of or caller.subject,
        "author_name": caller.display_name or "",
    }
    row = {
        "tenant_id": tx.tenant_id,
        "customer_id": customer_id,
        "note_id": note_id,
        "revision": revision,
        "key_id": key.key_id,
        "sealed": keys.seal(key, SEALED, revision_row_id(note_id, revision), orjson.dumps(written)),
        "written_at": tx.now,
    }
    await tx.execute(insert(note_revisions).values(row))


def _at(tx: Tx, customer_id: UUID, note_id: UUID) -> tuple[Any, ...]:
    return _mine.tenant_id == tx.tenant_id, _mine.customer_id == customer_id, _mine.note_id == note_id


def _key(customer: View) -> DataKey:
    assert customer.key is not None, "a note is sealed under a key that was opened"
    return customer.key
