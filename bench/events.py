"""Events from outbox to inbox, and the same bytes on bare JetStream; a process of its own with its own schema.

Answers orders by lines of JSON: {"kind": "ours" | "bare", "events": n}. The bench's schema is that of a service
in a database of its own, so that the relay and the consumer here have no rivals.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import nats
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

from libs import clock, config, dsn, envelope, stream
from libs.caller import Caller, acting_as
from libs.consumer import Consumer
from libs.db import Database, Tx
from libs.deliveries import Handler
from libs.envelope import Event
from libs.ids import new_id
from libs.outbox import emit
from libs.relay import Relay
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_ACTIVE, CUSTOMER_TYPE_REGISTERED
from regulars.customers.v1.events_pb2 import CustomerUpdated

SERVICE = "customers"
PREFIX = "bench_"
BARE = "bench_bare"
PER_TRANSACTION = 50
IN_FLIGHT = 500
BATCH = 200


def message(customer_id: UUID, business_id: UUID) -> CustomerUpdated:
    """An event of usual size."""
    return CustomerUpdated(
        customer_id=str(customer_id),
        business_id=str(business_id),
        changed_fields=["email", "tags"],
        status=CUSTOMER_STATUS_ACTIVE,
        type=CUSTOMER_TYPE_REGISTERED,
    )


@dataclass
class Heard:
    """Counts events that were handled."""

    count: int = 0
    wanted: int = 0
    all: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, tx: Tx, rt: Any, events: Sequence[Event[CustomerUpdated]]) -> None:
        """Does nothing else: the inbox's own work is what is measured."""
        self.count += len(events)
        if self.count >= self.wanted:
            self.all.set()


class Ours:
    """The product's relay and consumer."""

    def __init__(self, settings: config.Settings, nc: Any) -> None:
        place = (settings.postgres_url, settings.home, settings.database, SERVICE)
        app, worker = (
            dsn.role_url(*place, role).replace("postgresql://", "postgresql+psycopg://", 1)
            for role in ("app", "worker")
        )
        self.db = Database(app, worker, 8)
        self.heard = Heard()
        self.tenant_id, self.business_id = new_id(), new_id()
        self.relay = Relay(self.db, nc, SERVICE, prefix=PREFIX)
        handlers = [Handler(CustomerUpdated, self.heard.handle)]
        self.consumer = Consumer(self.db, nc, SERVICE, handlers, None, prefix=PREFIX)

    async def emit(self, count: int) -> float:
        """Writes events to the outbox; gives the seconds."""
        began = time.perf_counter()
        caller = Caller(tenant_id=self.tenant_id, subject="bench", service=SERVICE)
        with acting_as(caller):
            for _ in range(count // PER_TRANSACTION):
                async with self.db.tx() as tx:
                    for _ in range(PER_TRANSACTION):
                        customer = new_id()
                        event = message(customer, self.business_id)
                        await emit(tx, event, aggregate_id=customer, version=1, business_id=self.business_id)
        return time.perf_counter() - began

    async def run(self, count: int) -> dict[str, Any]:
        """Fills the outbox first; then the time until all were relayed, heard and noted in the inbox."""
        written = await self.emit(count)
        wanted = self.heard.count + count
        began = time.perf_counter()
        self.heard.wanted = wanted
        self.heard.all.clear()
        relay = asyncio.create_task(self.relay.run())
        consume = asyncio.create_task(self.consumer.run())
        await self.heard.all.wait()
        seconds = time.perf_counter() - began
        for task in (relay, consume):
            task.cancel()
        await asyncio.gather(relay, consume, return_exceptions=True)
        return {
            "calls": count,
            "seconds": seconds,
            "work_seconds": seconds,
            "emit_per_second": count / written,
        }


class Bare:
    """The client library and nothing else: many publishes in flight, one puller, an ack for each message."""

    def __init__(self, nc: Any) -> None:
        self.js = nc.jetstream()
        self.puller: Any = None
        self.tenant_id, self.business_id = new_id(), new_id()

    async def prepare(self) -> None:
        """Makes the stream and the durable consumer."""
        await self.js.add_stream(StreamConfig(name=BARE, subjects=[f"{BARE}.*"], storage=StorageType.FILE))
        settings = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2000)
        self.puller = await self.js.pull_subscribe(f"{BARE}.>", durable=BARE, stream=BARE, config=settings)

    async def run(self, count: int) -> dict[str, Any]:
        """The same messages, written beforehand: publish and pull at the same time."""
        caller = Caller(tenant_id=self.tenant_id, subject="bench", service=SERVICE)
        letters = [
            envelope.write(
                message(new_id(), self.business_id),
                event_id=new_id(),
                at=clock.now(),
                caller=caller,
                aggregate_id=new_id(),
                version=1,
                business_id=self.business_id,
                cause=None,
            )
            for _ in range(count)
        ]
        began = time.perf_counter()

        async def publish() -> None:
            waiting: set[Any] = set()
            for letter in letters:
                headers = {**letter.headers, "Nats-Msg-Id": letter.headers["ce-id"]}
                waiting.add(await self.js.publish_async(f"{BARE}.x", letter.body, headers=headers))
                if len(waiting) >= IN_FLIGHT:
                    await asyncio.wait(waiting)
                    waiting.clear()
            if waiting:
                await asyncio.wait(waiting)

        async def pull() -> None:
            got = 0
            while got < count:
                for msg in await self.puller.fetch(min(BATCH, count - got), timeout=5):
                    await msg.ack()
                    got += 1

        await asyncio.gather(publish(), pull())
        seconds = time.perf_counter() - began
        return {"calls": count, "seconds": seconds, "work_seconds": seconds}


async def main() -> None:
    """Answers orders until its input ends."""
    settings = config.load(config.Settings, None)
    nc = await nats.connect(settings.nats_url)
    ours, bare = Ours(settings, nc), Bare(nc)
    await stream.ensure_stream(nc.jetstream(), PREFIX)
    await ours.consumer.ensure()
    await bare.prepare()
    _say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        _say(await (ours.run if order["kind"] == "ours" else bare.run)(order["events"]))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
