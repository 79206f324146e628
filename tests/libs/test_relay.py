"""The relay under rivals, death and an absent NATS: nothing is lost, and doubles are known by their id."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
from nats.errors import MaxPayloadError
from sqlalchemy import delete, insert, select

from libs import stream
from libs.config import Settings
from libs.leases import Lease
from libs.outbox import BULK, in_bulk
from libs.plumbing import outbox
from libs.publishing import Publisher
from libs.run.stack import servers
from libs.run.stack.home import Home
from libs.run.stack.process import identity, spawn, stop
from regulars.customers.v1.events_pb2 import CustomerCreated
from tests.libs.rooms import Child, Room, becomes, eventually, running


async def relay_process(room: Room) -> None:
    """Another process of the service, relaying."""
    await room.relay(lease_seconds=1).run()


async def test_two_relays_publish_each_event_once(room: Room) -> None:
    first, second = room.relay(batch=20), room.relay(batch=20)
    async with running(first, second):
        for _ in range(10):
            await room.tell(30)
        await becomes(room.waiting, 0)
    assert await room.stored() == 300


async def test_relays_without_a_lease_are_made_good_by_message_ids(room: Room) -> None:
    await room.tell(200)
    await asyncio.gather(*(room.relay(lease_seconds=5).drain_once() for _ in range(3)))
    assert await room.waiting() == 0
    assert await room.stored() == 200


async def test_one_that_the_stream_has_does_not_keep_back_the_others(room: Room) -> None:
    first = await room.tell(1)
    again = await _rows(room)
    await room.relay().drain_once()
    more = await room.tell(20)
    async with room.db.worker() as tx:
        await tx.execute(insert(outbox), [row._asdict() for row in again])
    assert await room.relay().drain_once() == 21
    assert (await room.waiting(), await room.stored()) == (0, 21)
    assert await _customers(room) == first + more


async def test_a_stream_that_takes_no_batches_gets_events_one_by_one(room: Room) -> None:
    await stream.ensure_stream(room.nc.jetstream(), room.prefix)
    await _configure(room, allow_atomic=False)
    publisher = Publisher(room.nc, room.prefix)
    for _ in range(2):
        await room.tell(10)
        sent, error = await publisher.publish(await _rows(room))
        assert (len(sent), error) == (10, None)
        async with room.db.worker() as tx:
            await tx.execute(delete(outbox))
    assert await room.stored() == 20


async def test_large_events_go_in_several_batches_and_one_above_the_limit_keeps_back_no_other(
    room: Room,
) -> None:
    await stream.ensure_stream(room.nc.jetstream(), room.prefix)
    await room.tell(12)
    rows = await _rows(room)
    bodies = [b"x" * 900_000] * 11 + [b"x" * 2_000_000]  # the server's limit is 1 MiB
    large = [
        SimpleNamespace(**row._asdict() | {"body": body}) for row, body in zip(rows, bodies, strict=True)
    ]
    sent, error = await Publisher(room.nc, room.prefix).publish(large)
    assert sent == [row.id for row in rows[:11]]
    assert isinstance(error, MaxPayloadError)
    assert await room.stored() == 11


async def _rows(room: Room) -> Sequence[Any]:
    async with room.db.worker() as tx:
        return (await tx.execute(select(outbox).order_by(outbox.c.id))).all()


async def _configure(room: Room, **changed: Any) -> None:
    js = room.nc.jetstream()
    config = (await js.stream_info(stream.stream_name(room.prefix))).config
    await js.update_stream(config.evolve(**changed))


async def test_a_lease_has_one_holder_and_is_stolen_when_it_runs_out(room: Room) -> None:
    first, second = Lease(room.db, "relay", 0.3), Lease(room.db, "relay", 0.3)
    assert sorted(await asyncio.gather(first.held(), second.held())) == [False, True]
    loser = second if await first.held() else first
    await eventually(loser.held)  # its holder renews no more
    winner = first if loser is second else second
    assert not await winner.held()
    await loser.release()
    assert await winner.held()


async def test_a_relay_that_dies_between_publish_and_delete_doubles_only_on_the_wire(
    rooms: tuple[Room, Room],
) -> None:
    teller, hearer = rooms
    await _configure(teller, duplicate_window=0.1)  # the inbox alone must do
    ids = await teller.tell(5)
    owner = teller.url("owner").replace("postgresql+psycopg://", "postgresql://", 1)
    async with await psycopg.AsyncConnection.connect(owner) as connection:
        await connection.execute("lock table outbox in exclusive mode")  # reads pass, deletes wait
        child = Child(teller, __name__, "relay_process")
        try:
            await becomes(teller.stored, 5, 30)
        finally:
            child.kill()
    assert await teller.waiting() == 5
    async with running(teller.relay(), hearer.consumer()):
        await becomes(teller.waiting, 0)
        assert await teller.stored() == 10
        await becomes(hearer.heard, dict.fromkeys(ids, (1, 1)))
        await _all_acknowledged(hearer)
    assert await hearer.heard() == dict.fromkeys(ids, (1, 1))


async def _all_acknowledged(room: Room) -> None:
    async def done() -> bool:
        info = await room.nc.jetstream().consumer_info(
            stream.stream_name(room.prefix), f"{room.prefix}{room.name}"
        )
        return bool(info.num_pending == 0 and info.num_ack_pending == 0)

    await eventually(done)


async def test_nats_away_and_back(room: Room, tmp_path: Path) -> None:
    home = Home(tmp_path)
    prepared = await servers.prepare(
        Settings(home=tmp_path, postgres_url=room.machine.settings.postgres_url), home
    )
    program = next(p for p in prepared.programs if p.name == "nats")
    process = (await servers.start((program,)))[0]
    nc = await stream.connect(prepared.nats_url, "test")
    room.nc, mine = nc, room.nc
    relay = room.relay()
    try:
        async with running(relay):
            first = await room.tell(10)  # the stream is not there yet: the relay makes it
            await becomes(room.waiting, 0)
            process.signal(signal.SIGKILL)
            more = await room.tell(10)
            await eventually(lambda: _true(relay.error is not None))
            assert await room.waiting() == 10
            spawned = await spawn(program)
            process = identity(spawned.pid)
            await becomes(room.waiting, 0, 30)
            assert relay.error is None
            assert await room.stored() == 20
            assert await _customers(room) == first + more
    finally:
        room.nc = mine
        await nc.close()
        await stop(process, signal.SIGINT, 10)


async def _true(value: bool) -> bool:
    return value


async def _customers(room: Room) -> list[UUID]:
    js = room.nc.jetstream()
    name = stream.stream_name(room.prefix)
    found = []
    for sequence in range(1, await room.stored() + 1):
        msg = await js.get_msg(name, sequence)
        found.append(UUID(CustomerCreated.FromString(msg.data or b"").customer_id))
    return found


async def test_what_comes_in_bulk_waits_for_what_happens_now(room: Room) -> None:
    with in_bulk():
        await room.tell(12)
    await room.tell(3)
    relay = room.relay(batch=3)
    assert await relay.drain_once() == 3
    async with room.db.worker() as tx:
        lanes = list((await tx.execute(select(outbox.c.lane))).scalars())
    assert lanes == [BULK] * 12
    assert await relay.drain_once() == 3  # of the bulk, and then none for a while
    assert await relay.drain_once() == 0
    await room.tell(1)
    assert await relay.drain_once() == 1
    async with running(relay):
        await becomes(room.waiting, 0)
