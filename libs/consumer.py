"""Hears events: one durable consumer per service, any number of processes, nothing lost (decision 20)."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from typing import Any
from uuid import UUID, uuid5

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from prometheus_client import Gauge

from libs import envelope, inbox, loops, outages, stream
from libs.contracts import event_subject
from libs.db import Database
from libs.deliveries import Attempts, Delivery, Handler
from libs.envelope import BadEnvelope, Letter
from libs.plumbing import NO_TENANT
from libs.pull import ConsumerGone, Puller, ensure_durable
from libs.wakeups import bell, rung_within

__all__ = ["Consumer", "Handler"]

log = logging.getLogger(__name__)

LAG = Gauge("regulars_consumer_lag", "Events on the stream that the consumer still has to get.", ["service"])

TENANTS_AT_ONCE = 4
PARKED_POLL_SECONDS = 1.0
DRAIN_SECONDS = 6.0


class Consumer:
    """The durable consumer of a service, shared by its processes. `error` is None while all goes well."""

    def __init__(
        self,
        db: Database,
        nc: Client,
        service: str,
        handlers: Sequence[Handler],
        rt: Any,
        *,
        prefix: str = "",
        batch: int = 400,
        backoff_seconds: float = 0.5,
    ) -> None:
        self.error: str | None = None
        self._db = db
        self._nc = nc
        self._js = nc.jetstream()
        self._service = service
        self._prefix = prefix
        self._batch = batch
        self._handlers = {str(h.message.DESCRIPTOR.full_name): h for h in handlers}
        if len(self._handlers) < len(handlers):
            raise ValueError(f"{service} has two handlers of one event")
        self._attempts = Attempts(db, service, self._handlers, rt, backoff_seconds=backoff_seconds)
        self._stream = stream.stream_name(prefix)
        self._durable = f"{prefix}{service}"
        self._subjects = [f"{prefix}{event_subject(h.message.DESCRIPTOR)}.*" for h in self._handlers.values()]

    async def ensure(self) -> None:
        """Makes the stream and the durable. A new read model does this before it pages through its source."""
        await stream.ensure_stream(self._js, self._prefix)
        await ensure_durable(self._js, self._stream, self._durable, self._subjects)

    async def run(self) -> None:
        """Consumes until cancelled; the batch in hand is finished first."""
        tasks = [asyncio.create_task(self._retry_parked())]
        if self._handlers:
            tasks.append(asyncio.create_task(self._consume()))
        try:
            await asyncio.gather(*tasks)
        finally:
            await loops.end(*tasks)

    # ------------------------------------------------------------------ from the stream

    async def _consume(self) -> None:
        failures = 0
        while True:
            puller = Puller(self._nc, self._stream, self._durable, self._batch)
            try:
                await self.ensure()
                await puller.start()
                while True:
                    batch = await puller.take()
                    failures, self.error = 0, None
                    if batch:
                        await _finish(self._take_in(batch))
            except Exception as error:  # one of the loops: it outlives every failure
                failures += 1
                self.error = type(error).__name__
                if failures == 1:
                    expected = outages.is_passing(error) or isinstance(error, ConsumerGone | NotFoundError)
                    log.warning(
                        "The consumer starts over",
                        extra={"service": self._service, "reason": self.error},
                        exc_info=not expected,
                    )
                await asyncio.sleep(outages.delay_seconds(failures, 0.1, 5.0))
            finally:
                with contextlib.suppress(nats.errors.Error):
                    for msg in await puller.stop():
                        await msg.nak()

    async def _take_in(self, batch: list[Msg]) -> None:
        by_tenant: dict[UUID, list[Delivery]] = {}
        for msg in batch:
            letter = Letter(_plain_subject(msg.subject, self._prefix), msg.headers or {}, msg.data)
            meta = msg.metadata
            try:
                tenant_id, event_id = envelope.owner_of(letter)
            except BadEnvelope as fault:
                tenant_id, event_id = NO_TENANT, uuid5(NO_TENANT, f"{meta.stream}:{meta.sequence.stream}")
                delivery = Delivery(tenant_id, event_id, letter, meta.num_delivered, msg)
                await self._attempts.settle(delivery, fault)
                continue
            delivery = Delivery(tenant_id, event_id, letter, meta.num_delivered, msg)
            by_tenant.setdefault(tenant_id, []).append(delivery)
        LAG.labels(self._service).set(batch[-1].metadata.num_pending)
        gate = asyncio.Semaphore(TENANTS_AT_ONCE)

        async def one_tenant(deliveries: list[Delivery]) -> bool:
            async with gate:
                return await self._attempts.attempt(deliveries)

        up = await asyncio.gather(*(one_tenant(group) for group in by_tenant.values()))
        if not all(up):
            await self._until_up()

    async def _until_up(self) -> None:
        """Waits for the database, so that an outage does not use up the events' deliveries."""
        failures = 0
        while True:
            try:
                await self._db.ping()
            except Exception as error:  # one of the loops
                failures += 1
                self.error = type(error).__name__
                await asyncio.sleep(outages.delay_seconds(failures, 0.2, 5.0))
            else:
                return

    # ------------------------------------------------------------------ from the park

    async def _retry_parked(self) -> None:
        with bell(inbox.PARKED_BELL).listening() as rung:
            while True:
                rung.clear()
                try:
                    await _finish(self.retry_parked_once())
                except Exception as error:  # one of the loops
                    self.error = type(error).__name__
                    log.warning(
                        "Parked events wait",
                        extra={"service": self._service, "reason": self.error},
                        exc_info=not outages.is_passing(error),
                    )
                    await asyncio.sleep(PARKED_POLL_SECONDS)
                await rung_within(rung, PARKED_POLL_SECONDS)

    async def retry_parked_once(self) -> int:
        """Tries the parked events that are due, each alone; gives how many there were."""
        rows = await inbox.claim_parked(self._db, self._service)
        for row in rows:
            letter = Letter(row.subject, row.headers, row.body)
            await self._attempts.attempt(
                [Delivery(row.tenant_id, row.event_id, letter, row.attempts + 1, row=row)]
            )
        return len(rows)


async def _finish(work: Awaitable[Any]) -> None:
    """Awaits `work`; if cancelled meanwhile, lets it end first (for at most 6 s)."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=DRAIN_SECONDS)
        task.cancel()
        raise


def _plain_subject(subject: str, prefix: str) -> str:
    """The first three tokens, without prefix and tenant."""
    return subject.removeprefix(prefix).rpartition(".")[0]
