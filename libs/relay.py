"""Publishes the outbox: one active relay per service, at least once, whatever dies (decision 19)."""

import asyncio
import logging
from datetime import datetime, timedelta

from nats.aio.client import Client
from nats.errors import ConnectionReconnectingError
from nats.js.errors import NoStreamResponseError
from prometheus_client import Counter, Gauge
from sqlalchemy import ARRAY, Uuid, bindparam, select, text

from libs import clock, outages, stream
from libs.db import Database
from libs.leases import Lease
from libs.outbox import BULK, LIVE
from libs.pipeline import Query
from libs.plumbing import outbox
from libs.publishing import Publisher
from libs.wakeups import bell, rung_within

log = logging.getLogger(__name__)

PUBLISHED = Counter("regulars_events_published", "Events acknowledged by the stream.", ["service"])
OLDEST = Gauge("regulars_outbox_oldest_seconds", "Age of the oldest event not yet published.", ["service"])

_READ = Query(
    select(
        outbox.c.tenant_id,
        outbox.c.id,
        outbox.c.subject,
        outbox.c.headers,
        outbox.c.body,
        outbox.c.created_at,
        outbox.c.lane,
    )
    .where(outbox.c.lane <= bindparam("lane"))
    .order_by(outbox.c.lane, outbox.c.id)
    .limit(bindparam("batch"))
)
_DELETE = text("""
    delete from outbox o using unnest(:tenants, :ids) as sent (tenant_id, id)
    where o.tenant_id = sent.tenant_id and o.id = sent.id
""").bindparams(bindparam("tenants", type_=ARRAY(Uuid)), bindparam("ids", type_=ARRAY(Uuid)))

_NEWEST = Query(
    select(outbox.c.created_at).where(outbox.c.lane == BULK).order_by(outbox.c.id.desc()).limit(1)
)

STANDBY_SECONDS = 1.0
# What this process commits rings a bell. Polls are for the others', and rarer while nobody has anything to tell.
IDLE_AFTER_SECONDS, IDLE_POLLS = 5.0, 3
MAX_BACKOFF_SECONDS = 5.0
# After a batch that came in bulk, how many times as long as it took no other such batch goes out: what happens now
# finds the relay, the stream and its consumers idle at least half of the time, however much an import has to tell.
BULK_REST = 1.0
# While more is still coming in, which is told by the newest of it: an import is sooner done if what hears of it waits.
BULK_REST_BESIDE = 19.0
BULK_GOES_ON = timedelta(seconds=2)
BULK_REST_SECONDS = 5.0  # at most
# But no longer than this: imports that never end must not keep back what they tell.
BULK_WAITS_AT_MOST = timedelta(minutes=10)


class Relay:
    """Takes events from the outbox to the stream.

    Each row is published under its id and deleted after the stream's acknowledgement. It reads the oldest
    rows that are there, those of the first lane first, never from a cursor: rows do not become visible in the
    order of their ids. Whatever dies in between, an event is published again; consumers know it by its id.
    `error` is None while all goes well.
    """

    def __init__(
        self,
        db: Database,
        nc: Client,
        service: str,
        *,
        prefix: str = "",
        batch: int = 500,
        poll_seconds: float = 0.1,
        lease_seconds: float = 5.0,
    ) -> None:
        self.error: str | None = None
        self._db = db
        self._nc = nc
        self._publisher = Publisher(nc, prefix)
        self._service = service
        self._prefix = prefix
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._lease = Lease(db, "relay", lease_seconds)
        self._bulk_at = 0.0  # not before; of the loop's clock

    async def run(self) -> None:
        """Relays until cancelled."""
        failures, sent_at = 0, 0.0
        try:
            with bell(f"outbox.{self._service}").listening() as rung:
                while True:
                    rung.clear()
                    try:
                        if not await self._lease.held():
                            self.error = None
                            await asyncio.sleep(STANDBY_SECONDS)
                            continue
                        sent = await self.drain_once()
                    except Exception as error:  # one of the loops: it outlives every failure
                        failures += 1
                        self._report(error, failures)
                        await asyncio.sleep(outages.delay_seconds(failures, 0.1, MAX_BACKOFF_SECONDS))
                        continue
                    failures, self.error = 0, None
                    now = asyncio.get_running_loop().time()
                    sent_at = now if sent else sent_at
                    if sent < self._batch:
                        idle = now - sent_at > IDLE_AFTER_SECONDS
                        await rung_within(
                            rung, IDLE_POLLS * self._poll_seconds if idle else self._poll_seconds
                        )
        finally:
            await self._lease.let_go()

    async def drain_once(self) -> int:
        """Publishes one batch of the oldest events and deletes what was acknowledged; gives how many.

        Raises Unavailable, or NATS's error, if some could not be published: those stay, the others are gone.
        """
        began = asyncio.get_running_loop().time()
        lane = BULK if began >= self._bulk_at else LIVE
        (rows,) = await self._db.at_once((_READ, {"batch": self._batch, "lane": lane}))
        oldest = (clock.now() - min(row.created_at for row in rows)).total_seconds() if rows else 0
        OLDEST.labels(self._service).set(oldest)
        if not rows:
            return 0
        if not self._nc.is_connected:
            raise ConnectionReconnectingError
        sent, error = await self._publisher.publish(rows)
        if sent:
            async with self._db.worker() as tx:
                tenant_of = {row.id: row.tenant_id for row in rows}
                await tx.execute(_DELETE, {"tenants": [tenant_of[each] for each in sent], "ids": sent})
            PUBLISHED.labels(self._service).inc(len(sent))
        if isinstance(error, NoStreamResponseError):
            await stream.ensure_stream(self._nc.jetstream(), self._prefix)
        if error is not None:
            raise error
        if rows[-1].lane == BULK:
            now = asyncio.get_running_loop().time()
            rest = await self._bulk_rest(rows[-1].created_at) * (now - began)
            self._bulk_at = now + min(rest, BULK_REST_SECONDS)
        return len(sent)

    async def _bulk_rest(self, oldest: datetime) -> float:
        """How long the second lane rests after a batch with an event of `oldest`, as a multiple of its time."""
        (newest,) = await self._db.at_once((_NEWEST, {}))
        now = clock.now()
        if not newest or now - newest[0].created_at > BULK_GOES_ON or now - oldest > BULK_WAITS_AT_MOST:
            return BULK_REST
        return BULK_REST_BESIDE

    def _report(self, error: Exception, failures: int) -> None:
        self.error = type(error).__name__
        if failures == 1 or not outages.is_passing(error):
            log.warning(
                "Events wait in the outbox",
                extra={"service": self._service, "reason": self.error},
                exc_info=not outages.is_passing(error),
            )
