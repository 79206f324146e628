"""One try of one or more events of one tenant, and what becomes of them: done, too early, dead, or again."""

import contextlib
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import nats.errors
from google.protobuf.message import Message
from nats.aio.msg import Msg
from opentelemetry import trace
from prometheus_client import Counter
from sqlalchemy import Row

from libs import clock, envelope, inbox, outages
from libs.caller import Caller, acting_as
from libs.db import Database
from libs.envelope import BadEnvelope, Event, Letter
from libs.inbox import NotYet
from libs.problems import Problem

log = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

HANDLED = Counter("regulars_events_handled", "Events that a consumer is done with.", ["service", "outcome"])

ATTEMPTS = 5  # tries of an event that meets a bug
DELIVERIES = 100  # then it must have killed every process that touched it

Handle = Callable[..., Awaitable[None]]
Ask = Callable[[Any, Sequence[Event[Any]]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """Hears one event message.

    `handle(tx, rt, events)` gets events of one tenant, sorted by aggregate id and version, that were not
    handled before, and does all its work in `tx`; the caller is the service itself, for that tenant. It
    raises NotYet for an event that came too early, a Problem for one that it refuses for good. After a
    failure it is called again with each event alone. Handlers that share one `handle` get their events
    together, in one call: so it can take its locks in one order for all of them.

    `before(rt, events)` asks peers what `handle` needs of them, while no transaction is open; `handle` gets what
    it gives as a fourth argument. It may be asked of events that turn out to be handled already.
    """

    message: type[Message]
    handle: Handle
    before: Ask | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try of one event: from the stream (`msg`) or from the park (`row`)."""

    tenant_id: UUID
    event_id: UUID
    letter: Letter
    attempts: int
    msg: Msg | None = None
    row: Row[Any] | None = None


class Attempts:
    """Tries events with a service's handlers and settles each of them."""

    def __init__(
        self, db: Database, service: str, handlers: Mapping[str, Handler], rt: Any, *, backoff_seconds: float
    ) -> None:
        self._db = db
        self._service = service
        self._handlers = handlers
        self._rt = rt
        self._backoff_seconds = backoff_seconds

    async def attempt(self, deliveries: list[Delivery]) -> bool:
        """Handles events of one tenant, and settles each. False if the database or a peer is away."""
        killers = [d for d in deliveries if d.attempts > DELIVERIES]
        for delivery in killers:
            await self.settle(delivery, RuntimeError("delivered too often"))
        deliveries = [d for d in deliveries if d.attempts <= DELIVERIES]
        try:
            if deliveries:
                await self._handle(deliveries)
        except Exception as error:  # one of the loops: each failure is told apart below
            if len(deliveries) == 1:
                return await self.settle(deliveries[0], error)
            if outages.is_passing(error) and not outages.is_conflict(error):
                return all([await self.settle(delivery, error) for delivery in deliveries])
            return all([await self.attempt([delivery]) for delivery in deliveries])
        for delivery in deliveries:
            await self._acknowledge(delivery)
        HANDLED.labels(self._service, "done").inc(len(deliveries))
        return True

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        """One transaction: inbox, handlers, and out of the park. Raises what the handlers raise."""
        events: dict[str, dict[UUID, Event[Any]]] = {name: {} for name in self._handlers}
        for delivery in deliveries:
            handler = self._handlers.get(envelope.type_of(delivery.letter))
            if handler is None:
                raise LookupError("no handler for this event in this version of the service")
            event = envelope.read(delivery.letter, handler.message)
            events[event.type][event.id] = event
        with self._span(deliveries), acting_as(self._caller(deliveries)):
            answers: dict[Handle, tuple[Any]] = {}
            for name, handler in self._handlers.items():
                if handler.before is not None and events[name]:
                    answers[handler.handle] = (await handler.before(self._rt, list(events[name].values())),)
            async with self._db.tx() as tx:
                fresh = await inbox.receive(tx, self._service, [d.event_id for d in deliveries])
                together: dict[Handle, list[Event[Any]]] = {}
                for name, handler in self._handlers.items():
                    mine = [event for event in events[name].values() if event.id in fresh]
                    if mine:
                        together.setdefault(handler.handle, []).extend(mine)
                for handle, theirs in together.items():
                    theirs.sort(key=lambda event: (event.aggregate_id, event.version))
                    await handle(tx, self._rt, theirs, *answers.get(handle, ()))
                for delivery in deliveries:
                    if delivery.row is not None:
                        await inbox.leave_park(tx, self._service, delivery.event_id)

    def _caller(self, deliveries: Sequence[Delivery]) -> Caller:
        actors = {delivery.letter.headers.get("actor") for delivery in deliveries}
        return Caller(
            tenant_id=deliveries[0].tenant_id,
            subject=self._service,
            kind="service",
            service=self._service,
            on_behalf_of=actors.pop() if len(actors) == 1 else None,
            method=f"consume/{self._service}",
        )

    def _span(self, deliveries: Sequence[Delivery]) -> AbstractContextManager[trace.Span]:
        """A single event goes on in its own trace; a batch is linked to the traces of its events."""
        contexts = [envelope.trace_of(delivery.letter) for delivery in deliveries]
        links = [trace.Link(trace.get_current_span(context).get_span_context()) for context in contexts]
        return tracer.start_as_current_span(
            f"consume {deliveries[0].letter.subject}" if len(deliveries) == 1 else "consume batch",
            context=contexts[0] if len(contexts) == 1 else None,
            kind=trace.SpanKind.CONSUMER,
            links=links if len(links) > 1 else None,
            attributes={
                "messaging.system": "nats",
                "messaging.consumer.group.name": self._service,
                "messaging.batch.message_count": len(deliveries),
            },
        )

    # ------------------------------------------------------------------ outcomes

    async def settle(self, delivery: Delivery, error: Exception) -> bool:
        """What becomes of an event that could not be handled. False if something that it needs is away."""
        try:
            return await self._outcome(delivery, error)
        except Exception as second:  # one of the loops: unsettled, it comes again
            log.warning(
                "An event could not be settled",
                extra={
                    "service": self._service,
                    "event": str(delivery.event_id),
                    "reason": type(second).__name__,
                },
                exc_info=not outages.is_passing(second),
            )
            await self._again(delivery)
            return False

    async def _outcome(self, delivery: Delivery, error: Exception) -> bool:
        if isinstance(error, NotYet):
            await self._park(delivery, error.waits_for)
        elif outages.is_conflict(error):
            await self._again(delivery)
        elif outages.is_passing(error):
            await self._again(delivery)
            return False
        elif isinstance(error, Problem):
            await self._bury(delivery, error.reason, error.message)
        elif isinstance(error, BadEnvelope):
            await self._bury(delivery, "BAD_ENVELOPE", str(error))
        elif delivery.attempts >= ATTEMPTS:
            await self._bury(delivery, type(error).__name__, place_of(error))
        else:
            self._log_bug(delivery, error)
            await self._again(delivery)
        return True

    async def _park(self, delivery: Delivery, waits_for: str) -> None:
        row = delivery.row
        if row is None:
            await inbox.park(
                self._db, self._service, delivery.tenant_id, delivery.event_id, delivery.letter, waits_for
            )
            HANDLED.labels(self._service, "parked").inc()
            await self._acknowledge(delivery)
        elif clock.now() - row.parked_at >= inbox.PARKED_FOR:
            await self._bury(delivery, "NOT_YET", f"waited for {waits_for}")
        else:
            seconds = outages.delay_seconds(delivery.attempts, 2.0, 300.0)
            await inbox.retry_later(self._db, row, waits_for, timedelta(seconds=seconds))

    async def _again(self, delivery: Delivery) -> None:
        seconds = outages.delay_seconds(delivery.attempts, self._backoff_seconds)
        if delivery.msg is not None:
            with contextlib.suppress(nats.errors.Error):  # not told: it comes again after the ack wait
                await delivery.msg.nak(delay=seconds)
        elif delivery.row is not None:
            with contextlib.suppress(Exception):  # not put back: it comes again when the claim runs out
                await inbox.retry_later(
                    self._db, delivery.row, delivery.row.waits_for, timedelta(seconds=seconds)
                )

    async def _bury(self, delivery: Delivery, reason: str, detail: str) -> None:
        await inbox.bury(
            self._db,
            self._service,
            delivery.tenant_id,
            delivery.event_id,
            delivery.letter,
            attempts=delivery.attempts,
            reason=reason,
            detail=detail,
        )
        HANDLED.labels(self._service, "dead").inc()
        log.error(
            "An event is given up: see the dead letters",
            extra={"service": self._service, "event": str(delivery.event_id), "reason": reason},
        )
        if delivery.msg is not None:
            with contextlib.suppress(nats.errors.Error):
                await delivery.msg.term()

    async def _acknowledge(self, delivery: Delivery) -> None:
        if delivery.msg is not None:
            with contextlib.suppress(nats.errors.Error):  # not told: it comes again, and the inbox knows it
                await delivery.msg.ack()

    def _log_bug(self, delivery: Delivery, error: Exception) -> None:
        log.error(
            "An event was not handled",
            extra={
                "service": self._service,
                "event": str(delivery.event_id),
                "subject": delivery.letter.subject,
                "attempt": delivery.attempts,
            },
            exc_info=error,
        )


def place_of(error: BaseException) -> str:
    """Where it was raised. The text of a foreign exception may show values, so it is not kept."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
