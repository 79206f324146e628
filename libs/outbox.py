"""Events leave in the transaction that made them true: `emit` writes a row, the relay publishes it."""

from uuid import UUID

from google.protobuf.message import Message
from sqlalchemy import insert

from libs import envelope
from libs.db import Tx
from libs.ids import new_id
from libs.plumbing import outbox
from libs.wakeups import bell

# NATS refuses messages above 1 MiB, and the relay could never get rid of one.
MAX_BODY = 900_000


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
    caller = tx.caller
    event_id = new_id()
    letter = envelope.write(
        message,
        event_id=event_id,
        at=tx.now,
        caller=caller,
        aggregate_id=aggregate_id,
        version=version,
        business_id=business_id,
        cause=str(cause) if cause else caller.request_id or None,
    )
    if len(letter.body) > MAX_BODY:
        raise ValueError(
            f"{message.DESCRIPTOR.full_name} of {len(letter.body)} bytes is too large for an event"
        )
    await tx.execute(
        insert(outbox),
        {
            "tenant_id": caller.tenant(),
            "id": event_id,
            "subject": letter.subject,
            "headers": dict(letter.headers),
            "body": letter.body,
            "created_at": tx.now,
        },
    )
    tx.after_commit(bell(f"outbox.{envelope.source_of(message, caller)}").ring)
    return event_id
