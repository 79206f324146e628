"""What travels with an event's body: CloudEvents attributes, tenant, version, trace (decision 17)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from urllib.parse import quote, unquote
from uuid import UUID

from google.protobuf.message import DecodeError, Message
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from libs.caller import Caller
from libs.contracts import event_subject
from libs.ids import parse_id

MessageT_co = TypeVar("MessageT_co", bound=Message, covariant=True)

# CloudEvents HTTP binding §3.1.3.2: printable ASCII stays, but for space, quote and percent.
_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_trace = TraceContextTextMapPropagator()


class BadEnvelope(ValueError):
    """A message on the stream that cannot be read as an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[MessageT_co]):
    """One event as a handler gets it.

    `version` is the aggregate's: apply the event if it is newer than what is known (decision 16). `subject`
    is its first three tokens. `cause` is the request or event that led to it. `replay` is True if an operator
    plays it again: then nobody is notified.
    """

    id: UUID
    type: str
    source: str
    subject: str
    tenant_id: UUID
    business_id: UUID | None
    aggregate_id: UUID
    version: int
    time: datetime
    actor: str
    cause: str | None
    replay: bool
    message: MessageT_co


@dataclass(frozen=True, slots=True)
class Letter:
    """An event as it is stored and sent: nothing is parsed yet."""

    subject: str
    headers: Mapping[str, str]
    body: bytes


def write(
    message: Message,
    *,
    event_id: UUID,
    at: datetime,
    caller: Caller,
    aggregate_id: UUID,
    version: int,
    business_id: UUID | None,
    cause: str | None,
) -> Letter:
    """The event of `message`, with the trace of the running span. Raises ContractError if it is no event."""
    descriptor = message.DESCRIPTOR
    headers = {
        "ce-specversion": "1.0",
        "ce-id": str(event_id),
        "ce-type": descriptor.full_name,
        "ce-source": f"regulars/{source_of(message, caller)}",
        "ce-time": at.isoformat(),
        "ce-subject": str(aggregate_id),
        "content-type": "application/protobuf",
        "tenant": str(caller.tenant()),
        "aggregateversion": str(version),
        "actor": _text(actor_of(caller)),
    }
    if business_id is not None:
        headers["business"] = str(business_id)
    if cause:
        headers["cause"] = _text(cause)
    _trace.inject(headers)
    return Letter(event_subject(descriptor), headers, message.SerializeToString())


def read(letter: Letter, kind: type[MessageT_co]) -> Event[MessageT_co]:
    """The event, its body parsed as `kind`. Raises BadEnvelope."""
    headers = letter.headers
    version = headers.get("aggregateversion", "")
    try:
        at = datetime.fromisoformat(headers.get("ce-time", ""))
        message = kind.FromString(letter.body)
    except (ValueError, DecodeError) as fault:
        raise BadEnvelope(type(fault).__name__) from fault
    if not version.isascii() or not version.isdigit() or at.tzinfo is None:
        raise BadEnvelope("ce-time or aggregateversion")
    business = headers.get("business")
    return Event(
        id=_id(headers, "ce-id"),
        type=type_of(letter),
        source=headers.get("ce-source", ""),
        subject=letter.subject,
        tenant_id=_id(headers, "tenant"),
        business_id=_id(headers, "business") if business else None,
        aggregate_id=_id(headers, "ce-subject"),
        version=int(version),
        time=at,
        actor=unquote(headers.get("actor", "")),
        cause=unquote(headers["cause"]) if "cause" in headers else None,
        replay=headers.get("replay") == "true",
        message=message,
    )


def type_of(letter: Letter) -> str:
    """Full name of the message in the body."""
    return letter.headers.get("ce-type", "")


def owner_of(letter: Letter) -> tuple[UUID, UUID]:
    """(tenant id, event id). Raises BadEnvelope."""
    return _id(letter.headers, "tenant"), _id(letter.headers, "ce-id")


def trace_of(letter: Letter) -> Context:
    """The trace that the event came from."""
    return _trace.extract(letter.headers)


def actor_of(caller: Caller) -> str:
    """Who did it, as `kind:subject`."""
    return f"{caller.kind}:{caller.subject}"


def source_of(message: Message, caller: Caller) -> str:
    """The service that emits: the message's package names it; for a shared type it is the caller."""
    owner = str(message.DESCRIPTOR.file.package).split(".")[-2]
    return caller.service or owner if owner == "type" else owner


def _id(headers: Mapping[str, str], name: str) -> UUID:
    found = parse_id(headers.get(name, ""))
    if found is None:
        raise BadEnvelope(name)
    return found


def _text(value: str) -> str:
    return quote(value[:200], safe=_PLAIN)
