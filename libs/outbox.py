"""Events leave in the transaction that made them true: `emit` writes a row, the relay publishes it.

There are two lanes: what happens now, and what comes in bulk (imports), which waits for the other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.message import Message
from psycopg.types.json import Jsonb
from sqlalchemy import insert, text

from libs import arrays, envelope
from libs.caller import Caller
from libs.db import Tx
from libs.ids import new_id
from libs.pipeline import Query, Step
from libs.plumbing import outbox
from libs.wakeups import bell

LIVE, BULK = 0, 1
_lane: ContextVar[int] = ContextVar("outbox_lane", default=LIVE)

# NATS refuses messages above 1 MiB, and the relay could never get rid of one.
MAX_BODY = 900_000
_POST = Query(insert(outbox))


# One value holds all rows: a value for each column of each row costs twice as much with a thousand of them.
_POST_ALL = Query(
    text("""
    insert into outbox (tenant_id, id, subject, headers, body, created_at, lane)
    select told.tenant_id, told.id, told.subject, told.headers, decode(told.body, 'hex'), told.created_at, told.lane
    from json_to_recordset(cast(:told as json))
        as told (tenant_id uuid, id uuid, subject text, headers jsonb, body text, created_at timestamptz, lane smallint)
""")
)
# Events of one type that differ by their aggregates alone: what they share is told once.
_POST_ALIKE = Query(
    text("""
    insert into outbox (tenant_id, id, subject, headers, body, created_at, lane)
    select :tenant, told.id, :subject,
           cast(:headers as jsonb) || jsonb_build_object(
               'ce-id', told.id, 'ce-subject', told.aggregate_id, 'aggregateversion', told.version::text
           ),
           told.body, :now, :lane
    from unnest(:ids, :aggregates, :versions, :bodies) as told (id, aggregate_id, version, body)
    where told.aggregate_id <> all (:without)
""")
)


@contextmanager
def in_bulk() -> Iterator[None]:
    """Puts what is emitted in the block on the second lane: it goes out when no other event waits."""
    token = _lane.set(BULK)
    try:
        yield
    finally:
        _lane.reset(token)


@dataclass(frozen=True, slots=True)
class Fact:
    """An event to be: see `emit`."""

    message: Message
    aggregate_id: UUID
    version: int
    business_id: UUID | None = None
    cause: UUID | str | None = None


async def emit(
    tx: Tx,
    message: Message,
    *,
    aggregate_id: UUID,
    version: int,
    business_id: UUID | None = None,
    cause: UUID | str | None = None,
) -> UUID:
    """Publishes `message` once `tx` commits, under the caller's tenant; gives the event's id.

    `version` is the aggregate's after the change: consumers apply what is newer. `cause` is the id of the
    event or request that led to it (default: the caller's request id). The message holds ids and facts, never
    personal data. Raises ContractError if it is no event type, ValueError if it is above 900,000 bytes.
    """
    (event_id,) = await emit_all(tx, [Fact(message, aggregate_id, version, business_id, cause)])
    return event_id


async def emit_all(tx: Tx, facts: Sequence[Fact]) -> list[UUID]:
    """Publishes several messages as `emit` does one, in one statement; gives their ids."""
    if not facts:
        return []
    ids, post = posting(tx, facts)
    await tx.together(post)
    return ids


def posting(tx: Tx, facts: Sequence[Fact]) -> tuple[list[UUID], Step]:
    """As `emit_all`, for who sends the statement together with others of `tx`: the events' ids, and the statement."""
    caller = tx.caller
    rows = [_row(tx, fact, caller) for fact in facts]
    for source in {envelope.source_of(fact.message, caller) for fact in facts}:
        tx.after_commit(bell(f"outbox.{source}").ring)
    ids = [row["id"] for row in rows]
    if len(rows) == 1:
        return ids, (_POST, rows[0] | {"headers": Jsonb(rows[0]["headers"])})
    return ids, (_POST_ALL, {"told": orjson.dumps(rows, default=bytes.hex).decode()})


def posting_alike(
    tx: Tx,
    like: Message,
    aggregates: Sequence[UUID],
    bodies: Sequence[bytes],
    versions: Sequence[int] | None = None,
    *,
    business_id: UUID | None = None,
    without: Sequence[UUID] = (),
) -> Step:
    """The statement that publishes many events of the type of `like`, each about an aggregate of its own.

    `bodies` are the messages as they are sent; `versions` are 1 if they are left out. Aggregates in `without` are
    passed over.
    """
    caller, some = tx.caller, UUID(int=0)
    letter = envelope.write(
        like,
        event_id=some,
        at=tx.now,
        caller=caller,
        aggregate_id=some,
        version=1,
        business_id=business_id,
        cause=caller.request_id or None,
    )
    tx.after_commit(bell(f"outbox.{envelope.source_of(like, caller)}").ring)
    return _POST_ALIKE, {
        "tenant": caller.tenant(),
        "subject": letter.subject,
        "headers": orjson.dumps(letter.headers).decode(),
        "now": tx.now,
        "lane": _lane.get(),
        "ids": arrays.uuids([new_id() for _ in aggregates]),
        "aggregates": arrays.uuids(aggregates),
        "versions": arrays.longs(versions if versions is not None else [1] * len(aggregates)),
        "bodies": arrays.octets(bodies),
        "without": arrays.uuids(without),
    }


def _row(tx: Tx, fact: Fact, caller: Caller) -> dict[str, Any]:
    event_id = new_id()
    letter = envelope.write(
        fact.message,
        event_id=event_id,
        at=tx.now,
        caller=caller,
        aggregate_id=fact.aggregate_id,
        version=fact.version,
        business_id=fact.business_id,
        cause=str(fact.cause) if fact.cause else caller.request_id or None,
    )
    if len(letter.body) > MAX_BODY:
        raise ValueError(
            f"{fact.message.DESCRIPTOR.full_name} of {len(letter.body)} bytes is too large for an event"
        )
    return {
        "tenant_id": caller.tenant(),
        "id": event_id,
        "subject": letter.subject,
        "headers": dict(letter.headers),
        "body": letter.body,
        "created_at": tx.now,
        "lane": _lane.get(),
    }
