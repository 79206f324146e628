"""A request that comes twice is done once: a row in the transaction that does it (decision 23)."""

import hashlib
import hmac
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from google.protobuf.message import Message
from sqlalchemy import bindparam, case, delete, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.caller import Caller
from libs.db import Database, Tx
from libs.ids import new_id
from libs.pipeline import Query
from libs.plumbing import idempotency_keys
from libs.problems import InvalidArgument, RequestIdReused

KEPT_FOR = timedelta(hours=24)
MAX_REQUEST_ID = 128
# What may differ between two sendings of one request.
_VOLATILE = ("request_id", "etag")


def _claiming() -> Query:
    """Inserts the claim, or takes over one that is too old; answers whichever holds."""
    statement, kept = insert(idempotency_keys), idempotency_keys.c
    forgotten = kept.created_at < bindparam("forgotten_at")  # a row that nobody has cleaned away yet
    values = {
        name: case((forgotten, statement.excluded[name]), else_=kept[name])
        for name in ("request_hash", "resource_id", "claim_id", "created_at")
    }
    upsert = statement.on_conflict_do_update(constraint="idempotency_keys_pkey", set_=values)
    return Query(upsert.returning(kept.request_hash, kept.resource_id, kept.claim_id))


_CLAIM = _claiming()
_key_sources: WeakKeyDictionary[AsyncEngine, Callable[[UUID], bytes]] = WeakKeyDictionary()


def use_keys(db: Database, key_of: Callable[[UUID], bytes]) -> None:
    """Tells which key hashes the requests of a tenant in this database, before the service serves."""
    _key_sources[db._app] = key_of


async def claim(tx: Tx, request: Message, resource_id: UUID, *, request_id: str | None = None) -> UUID | None:
    """None if the caller's request is new: `tx` then does it, and its commit makes the claim last 24 h.

    Otherwise the resource id of the first time: nothing is left to do but to read that resource. The request
    id is `request_id`, else the request's own field, else the metadata's; without any, every request is new.
    A call that comes while the first one still runs waits for its end. Raises RequestIdReused if the same
    caller and method used the id with another request, InvalidArgument if the id is longer than 128
    characters.
    """
    key = _key(tx.caller, request, request_id, _hash_key(tx))
    if key is None:
        return None
    mine = new_id()
    found = _canonical_hash(request, _hash_key(tx))
    values = {"request_hash": found, "resource_id": resource_id, "claim_id": mine, "created_at": tx.now}
    ((row,),) = await tx.together((_CLAIM, {**key, **values, "forgotten_at": tx.now - KEPT_FOR}))
    if row.claim_id == mine:
        return None
    if not hmac.compare_digest(row.request_hash, found):
        raise RequestIdReused
    first: UUID = row.resource_id
    return first


async def point(tx: Tx, request: Message, resource_id: UUID, *, request_id: str | None = None) -> None:
    """Names another resource for the claim that `tx` holds: one that turned out to exist already."""
    key = _key(tx.caller, request, request_id, _hash_key(tx))
    if key is not None:
        same = [idempotency_keys.c[name] == value for name, value in key.items()]
        await tx.execute(update(idempotency_keys).where(*same).values(resource_id=resource_id))


async def clean(db: Database, limit: int = 10_000) -> int:
    """Forgets requests of more than 24 h ago; gives how many."""
    key = tuple_(*idempotency_keys.primary_key.columns)
    async with db.worker() as tx:
        old = (
            idempotency_keys.select()
            .with_only_columns(*idempotency_keys.primary_key.columns)
            .where(idempotency_keys.c.created_at < tx.now - KEPT_FOR)
            .limit(limit)
        )
        return (await tx.execute(delete(idempotency_keys).where(key.in_(old)))).rowcount


def _hash_key(tx: Tx) -> bytes:
    source = _key_sources.get(tx.connection.engine)
    if source is None:
        raise RuntimeError("idempotency.use_keys was not called for this database")
    return source(tx.tenant_id)


def _key(caller: Caller, request: Message, given: str | None, key: bytes) -> dict[str, Any] | None:
    """The row's primary key, or None without a request id. The principal is hashed: it may be an address."""
    own = str(getattr(request, "request_id", ""))
    request_id = given or own or caller.request_id
    if not request_id:
        return None
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidArgument.of("request_id", f"At most {MAX_REQUEST_ID} characters.", "TOO_LONG")
    principal = f"{caller.kind}\0{caller.service or ''}\0{caller.subject}".encode()
    return {
        "tenant_id": caller.tenant(),
        "principal": hashlib.blake2b(principal, key=key, digest_size=16).digest(),
        "method": caller.method,
        "request_id": request_id,
    }


def _canonical_hash(request: Message, key: bytes) -> bytes:
    plain = type(request)()
    plain.CopyFrom(request)
    _clear_volatile(plain)
    name = request.DESCRIPTOR.full_name.encode()
    body = plain.SerializeToString(deterministic=True)
    return hashlib.blake2b(name + b"\0" + body, key=key, digest_size=32).digest()


def _clear_volatile(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name in _VOLATILE:
            message.ClearField(field.name)
        elif field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        elif field.is_repeated:
            for item in value:
                _clear_volatile(item)
        else:
            _clear_volatile(value)
