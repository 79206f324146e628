"""What a consumer remembers of events: those it handled, those that came too early, those that it gave up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Row,
    Text,
    Uuid,
    any_,
    bindparam,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from libs import clock
from libs.db import Database, Tx
from libs.envelope import Letter, type_of
from libs.pipeline import Query
from libs.plumbing import dead_letters, inbox, parked
from libs.wakeups import bell

# Longer than the stream keeps anything (30 days), so that no replay is handled twice.
KEPT_FOR = timedelta(days=35)
PARKED_FOR = timedelta(hours=24)
CLAIMED_FOR = timedelta(seconds=30)
PARKED_BELL = "parked"
FIRST_RETRY = timedelta(seconds=1)

_PARKED_KEY = tuple_(parked.c.tenant_id, parked.c.consumer, parked.c.event_id)
_ids = func.unnest(bindparam("ids", type_=ARRAY(Uuid))).column_valued("event_id")
_RECEIVE = (
    insert(inbox)
    .from_select(
        ["tenant_id", "consumer", "event_id", "received_at"],
        select(
            bindparam("tenant_id", type_=Uuid),
            bindparam("consumer", type_=Text),
            _ids,
            bindparam("at", type_=DateTime(timezone=True)),
        ),
    )
    .on_conflict_do_nothing()
    .returning(inbox.c.event_id)
)
_ANY_PARKED = Query(
    select(parked.c.event_id)
    .where(parked.c.consumer == bindparam("consumer"), parked.c.due_at <= bindparam("at"))
    .limit(1)
)


class NotYet(Exception):
    """The event came before what it needs. `waits_for` is the key that `unpark` will be called with."""

    def __init__(self, waits_for: str) -> None:
        self.waits_for = waits_for
        super().__init__(waits_for)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a consumer gave up, and why. Reason and detail hold no value of the event."""

    tenant_id: UUID
    consumer: str
    event_id: UUID
    subject: str
    type: str
    attempts: int
    error_reason: str
    error_detail: str
    failed_at: datetime


async def receive(tx: Tx, consumer: str, event_ids: Iterable[UUID]) -> set[UUID]:
    """Notes the events of the caller's tenant as handled by `tx`; gives those that were not handled before.

    Waits for another transaction that handles one of them right now.
    """
    ids = sorted(set(event_ids))  # one order everywhere, so that two consumers do not deadlock
    parameters = {"tenant_id": tx.tenant_id, "consumer": consumer, "ids": ids, "at": tx.now}
    return set((await tx.execute(_RECEIVE, parameters)).scalars())


async def park(
    db: Database, consumer: str, tenant_id: UUID, event_id: UUID, letter: Letter, waits_for: str
) -> None:
    """Keeps an event that came too early; parking it twice changes nothing."""
    async with db.worker() as tx:
        await tx.execute(
            insert(parked)
            .values(
                tenant_id=tenant_id,
                consumer=consumer,
                event_id=event_id,
                waits_for=waits_for,
                subject=letter.subject,
                headers=dict(letter.headers),
                body=letter.body,
                attempts=1,
                parked_at=tx.now,
                due_at=tx.now + FIRST_RETRY,
            )
            .on_conflict_do_nothing()
        )


async def unpark(tx: Tx, *keys: str) -> None:
    """Retries, once `tx` commits, the events of the caller's tenant that wait for one of `keys`."""
    waiting = parked.c.waits_for == any_(bindparam("keys", type_=ARRAY(Text)))
    await tx.execute(
        update(parked).where(parked.c.tenant_id == tx.tenant_id, waiting).values(due_at=tx.now),
        {"keys": list(keys)},
    )
    tx.after_commit(bell(PARKED_BELL).ring)


async def claim_parked(db: Database, consumer: str, limit: int = 100) -> Sequence[Row[Any]]:
    """Takes due parked events for this process; whoever dies with them leaves them to the next after 30 s."""
    (waiting,) = await db.at_once((_ANY_PARKED, {"consumer": consumer, "at": clock.now()}))
    if not waiting:
        return []
    async with db.worker() as tx:
        due = (
            select(parked.c.tenant_id, parked.c.consumer, parked.c.event_id)
            .where(parked.c.consumer == consumer, parked.c.due_at <= tx.now)
            .order_by(parked.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claimed = await tx.execute(
            update(parked)
            .where(_PARKED_KEY.in_(due))
            .values(due_at=tx.now + CLAIMED_FOR)
            .returning(*parked.c)
        )
        return claimed.all()


async def retry_later(db: Database, row: Row[Any], waits_for: str, after: timedelta) -> None:
    """Puts a claimed event back. If it was unparked meanwhile, it stays due at once."""
    async with db.worker() as tx:
        await tx.execute(
            update(parked)
            .where(*_is_parked(row.tenant_id, row.consumer, row.event_id), parked.c.due_at == row.due_at)
            .values(due_at=tx.now + after)
        )
        await tx.execute(
            update(parked)
            .where(*_is_parked(row.tenant_id, row.consumer, row.event_id))
            .values(waits_for=waits_for, attempts=parked.c.attempts + 1)
        )


async def leave_park(tx: Tx, consumer: str, event_id: UUID) -> None:
    """The event is handled by `tx` and waits no more."""
    await tx.execute(delete(parked).where(*_is_parked(tx.tenant_id, consumer, event_id)))


async def bury(
    db: Database,
    consumer: str,
    tenant_id: UUID,
    event_id: UUID,
    letter: Letter,
    *,
    attempts: int,
    reason: str,
    detail: str,
) -> None:
    """Gives an event up: from now on it is a dead letter, and parked no more."""
    async with db.worker() as tx:
        values = {
            "subject": letter.subject,
            "headers": dict(letter.headers),
            "body": letter.body,
            "attempts": attempts,
            "error_reason": reason,
            "error_detail": detail[:500],
            "failed_at": tx.now,
        }
        await tx.execute(
            insert(dead_letters)
            .values(tenant_id=tenant_id, consumer=consumer, event_id=event_id, **values)
            .on_conflict_do_update(
                index_elements=[dead_letters.c.tenant_id, dead_letters.c.consumer, dead_letters.c.event_id],
                set_=values,
            )
        )
        await tx.execute(delete(parked).where(*_is_parked(tenant_id, consumer, event_id)))


async def list_dead_letters(
    db: Database, *, tenant_id: UUID | None = None, limit: int = 100
) -> list[DeadLetter]:
    """The newest dead letters of the service, of one tenant or of all."""
    async with db.worker() as tx:
        statement = select(dead_letters).order_by(dead_letters.c.failed_at.desc()).limit(limit)
        if tenant_id is not None:
            statement = statement.where(dead_letters.c.tenant_id == tenant_id)
        rows = (await tx.execute(statement)).all()
    return [
        DeadLetter(
            tenant_id=row.tenant_id,
            consumer=row.consumer,
            event_id=row.event_id,
            subject=row.subject,
            type=type_of(Letter(row.subject, row.headers, row.body)),
            attempts=row.attempts,
            error_reason=row.error_reason,
            error_detail=row.error_detail,
            failed_at=row.failed_at,
        )
        for row in rows
    ]


async def replay_dead_letters(
    db: Database, *, tenant_id: UUID | None = None, event_ids: Sequence[UUID] | None = None, limit: int = 1000
) -> int:
    """Hands the oldest dead letters (of one tenant, or these events; default all) to the consumer again.

    Gives how many. They come marked as a replay, and as always only if they were not handled yet.
    """
    async with db.worker() as tx:
        chosen = select(dead_letters).order_by(dead_letters.c.failed_at).limit(limit)
        if tenant_id is not None:
            chosen = chosen.where(dead_letters.c.tenant_id == tenant_id)
        if event_ids is not None:
            wanted = bindparam("event_ids", list(event_ids), type_=ARRAY(Uuid))
            chosen = chosen.where(dead_letters.c.event_id == any_(wanted))
        rows = (await tx.execute(chosen.with_for_update(skip_locked=True))).all()
        for row in rows:
            await tx.execute(
                insert(parked)
                .values(
                    tenant_id=row.tenant_id,
                    consumer=row.consumer,
                    event_id=row.event_id,
                    waits_for="replay",
                    subject=row.subject,
                    headers={**row.headers, "replay": "true"},
                    body=row.body,
                    attempts=0,
                    parked_at=tx.now,
                    due_at=tx.now,
                )
                .on_conflict_do_nothing()
            )
            await tx.execute(
                delete(dead_letters).where(
                    dead_letters.c.tenant_id == row.tenant_id,
                    dead_letters.c.consumer == row.consumer,
                    dead_letters.c.event_id == row.event_id,
                )
            )
        tx.after_commit(bell(PARKED_BELL).ring)
    return len(rows)


async def clean(db: Database, limit: int = 10_000) -> int:
    """Forgets events that were handled 35 days ago; gives how many."""
    async with db.worker() as tx:
        old = (
            select(inbox.c.tenant_id, inbox.c.consumer, inbox.c.event_id)
            .where(inbox.c.received_at < tx.now - KEPT_FOR)
            .limit(limit)
        )
        key = tuple_(inbox.c.tenant_id, inbox.c.consumer, inbox.c.event_id)
        return (await tx.execute(delete(inbox).where(key.in_(old)))).rowcount


def _is_parked(tenant_id: UUID, consumer: str, event_id: UUID) -> tuple[Any, ...]:
    return (
        parked.c.tenant_id == tenant_id,
        parked.c.consumer == consumer,
        parked.c.event_id == event_id,
    )
