"""The consumer under duplicates, disorder, failures, rivals and death: each event has its effect once."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
from nats.js.errors import NotFoundError
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import func, select, text

from libs import clock, envelope, inbox, stream
from libs.caller import acting_as, current
from libs.consumer import Handler
from libs.db import Tx
from libs.envelope import Event
from libs.ids import new_id
from libs.inbox import NotYet, list_dead_letters, replay_dead_letters, unpark
from libs.plumbing import dead_letters, outbox, parked
from libs.plumbing import inbox as inbox_table
from libs.problems import InvalidArgument, Unavailable
from regulars.customers.v1.events_pb2 import CustomerCreated, TenantCreated
from tests.libs.rooms import Child, Room, becomes, eventually, hear, opened, running

Rooms = tuple[Room, Room]
Created = Sequence[Event[CustomerCreated]]


async def settled(room: Room) -> bool:
    """True if the durable has nothing left to give, and nothing is out."""
    js = room.nc.jetstream()
    try:
        info = await js.consumer_info(stream.stream_name(room.prefix), f"{room.prefix}{room.name}")
    except NotFoundError:
        return False
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)


async def dead(room: Room) -> list[str]:
    """Reasons of the dead letters."""
    return [letter.error_reason for letter in await list_dead_letters(room.db)]


async def park_size(room: Room) -> int:
    async with room.db.worker() as tx:
        return int(await tx.scalar(select(func.count()).select_from(parked)))


async def test_events_of_a_batch_are_handled_in_one_transaction(rooms: Rooms) -> None:
    teller, hearer = rooms
    batches: list[list[Event[CustomerCreated]]] = []

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        batches.append(list(events))
        assert current().kind == "service"
        assert current().service == hearer.name
        assert tx.tenant_id == hearer.tenant_id
        await hear(tx, rt, events)

    ids = await teller.tell(50)
    await teller.relay().drain_once()
    async with running(hearer.consumer(Handler(CustomerCreated, handle))):
        await becomes(hearer.heard, dict.fromkeys(ids, (1, 1)))
        await eventually(lambda: settled(hearer))
    assert [len(batch) for batch in batches] == [50]
    aggregates = [event.aggregate_id for event in batches[0]]
    assert aggregates == sorted(aggregates)
    first = batches[0][0]
    assert (first.tenant_id, first.version, first.replay) == (teller.tenant_id, 1, False)
    assert first.message.customer_id == str(first.aggregate_id)
    assert first.actor == "user:tester"
    assert first.cause == "r-1"


async def test_an_event_that_comes_again_is_skipped(rooms: Rooms) -> None:
    teller, hearer = rooms
    ids = await teller.tell(3)
    async with teller.db.worker() as tx:
        rows = (await tx.execute(select(outbox))).all()
    await teller.relay().drain_once()
    js = teller.nc.jetstream()
    for row in [*rows, *rows]:  # without message id: the stream takes them as new
        subject = stream.subject_of(row.subject, row.tenant_id, teller.prefix)
        await js.publish(subject, row.body, headers=row.headers)
    assert await teller.stored() == 9
    async with running(hearer.consumer()):
        await becomes(hearer.heard, dict.fromkeys(ids, (1, 1)))
        await eventually(lambda: settled(hearer))
    assert await hearer.heard() == dict.fromkeys(ids, (1, 1))


async def test_two_consumers_share_the_work_and_handle_each_event_once(rooms: Rooms) -> None:
    teller, hearer = rooms
    async with opened(hearer.machine, hearer.name, hearer.prefix, hearer.tenant_id) as other:
        customers = await teller.tell(40)
        for version in range(2, 6):
            for customer in customers:
                await teller.tell(1, version=version, customer_id=customer)
        async with running(teller.relay(), hearer.consumer(batch=7), other.consumer(batch=7)):
            await becomes(hearer.heard, dict.fromkeys(customers, (5, 5)), 30)
            await eventually(lambda: settled(hearer))
    assert await hearer.heard() == dict.fromkeys(customers, (5, 5))


async def test_a_bad_event_does_not_hold_up_its_neighbours(rooms: Rooms) -> None:
    teller, hearer = rooms
    ids = await teller.tell(10)

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        await hear(tx, rt, events)
        if any(event.aggregate_id == ids[4] for event in events):
            raise InvalidArgument("No.")

    await teller.relay().drain_once()
    async with running(hearer.consumer(Handler(CustomerCreated, handle))):
        await becomes(lambda: dead(hearer), ["INVALID_FIELDS"])
        await eventually(lambda: settled(hearer))
    assert await hearer.heard() == {i: (1, 1) for i in ids if i != ids[4]}
    letter = (await list_dead_letters(hearer.db, tenant_id=hearer.tenant_id))[0]
    assert (letter.type, letter.attempts) == ("regulars.customers.v1.CustomerCreated", 1)


async def test_a_bug_is_tried_five_times_then_dead_and_heard_when_replayed(rooms: Rooms) -> None:
    teller, hearer = rooms
    tries, fixed = 0, False

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        nonlocal tries
        tries += 1
        if not fixed:
            raise ZeroDivisionError("secret@example.org")
        assert events[0].replay
        await hear(tx, rt, events)

    ids = await teller.tell()
    await teller.relay().drain_once()
    async with running(hearer.consumer(Handler(CustomerCreated, handle))):
        await becomes(lambda: dead(hearer), ["ZeroDivisionError"])
        assert tries == 5
        letter = (await list_dead_letters(hearer.db))[0]
        assert letter.error_detail.startswith("test_consumer.py:")
        fixed = True
        assert await replay_dead_letters(hearer.db, event_ids=[letter.event_id]) == 1
        await becomes(hearer.heard, {ids[0]: (1, 1)})
    assert await dead(hearer) == []
    assert await park_size(hearer) == 0


async def test_too_early_is_parked_until_what_it_waits_for_arrives(rooms: Rooms) -> None:
    teller, hearer = rooms
    ready: set[UUID] = set()

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        for event in events:
            if event.aggregate_id not in ready:
                raise NotYet(f"business:{event.aggregate_id}")
        await hear(tx, rt, events)

    early = (await teller.tell())[0]
    async with running(teller.relay(), hearer.consumer(Handler(CustomerCreated, handle))):
        await becomes(lambda: park_size(hearer), 1)
        await eventually(lambda: settled(hearer))
        async with hearer.db.worker() as tx:  # so that the timer does not do it
            await tx.execute(text("update parked set due_at = due_at + interval '1 hour'"))
        ready.add(early)
        with acting_as(hearer.me()):
            async with hearer.db.tx() as tx:
                await unpark(tx, f"business:{early}")
        await becomes(hearer.heard, {early: (1, 1)})
    assert await park_size(hearer) == 0


async def test_too_early_is_retried_by_timer_as_well(rooms: Rooms) -> None:
    teller, hearer = rooms
    tries = 0

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise NotYet("something")
        await hear(tx, rt, events)

    ids = await teller.tell()
    async with running(teller.relay(), hearer.consumer(Handler(CustomerCreated, handle))):
        await becomes(hearer.heard, {ids[0]: (1, 1)})
    assert tries == 2


async def test_unparked_while_it_is_tried_it_is_tried_again_at_once(rooms: Rooms) -> None:
    teller, hearer = rooms
    tries = 0

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:  # what it waits for arrives in another transaction, after this one has looked
            async with hearer.db.tx() as other:
                await unpark(other, "something")
        if tries <= 2:
            raise NotYet("something")
        await hear(tx, rt, events)

    ids = await teller.tell()
    await teller.relay().drain_once()
    consumer = hearer.consumer(Handler(CustomerCreated, handle))
    async with running(consumer):
        await becomes(lambda: park_size(hearer), 1)
        started = asyncio.get_running_loop().time()
        await becomes(hearer.heard, {ids[0]: (1, 1)})
        # the timer alone would take 1 s and then 4 s
        assert asyncio.get_running_loop().time() - started < 4


async def test_parked_for_a_day_it_is_dead(rooms: Rooms) -> None:
    teller, hearer = rooms

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        raise NotYet("nobody")

    await teller.tell()
    await teller.relay().drain_once()
    async with running(hearer.consumer(Handler(CustomerCreated, handle))):
        await becomes(lambda: park_size(hearer), 1)
        async with hearer.db.worker() as tx:
            await tx.execute(
                text("update parked set parked_at = parked_at - interval '24 hours', due_at = :now"),
                {"now": clock.now()},
            )
        await becomes(lambda: dead(hearer), ["NOT_YET"])
    assert await park_size(hearer) == 0


async def test_outages_and_lost_races_do_not_kill_an_event(rooms: Rooms) -> None:
    teller, hearer = rooms
    errors: list[Exception] = [
        psycopg.errors.SerializationFailure(),
        psycopg.OperationalError(),
        *[Unavailable() for _ in range(6)],
    ]

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        if errors:
            raise errors.pop()
        await hear(tx, rt, events)

    ids = await teller.tell()
    async with running(
        teller.relay(), hearer.consumer(Handler(CustomerCreated, handle), backoff_seconds=0.001)
    ):
        await becomes(hearer.heard, {ids[0]: (1, 1)})
    assert await dead(hearer) == []


async def test_an_event_that_no_handler_knows_is_kept(rooms: Rooms) -> None:
    teller, hearer = rooms

    async def nothing(tx: Tx, rt: Any, events: Sequence[Event[TenantCreated]]) -> None:
        raise AssertionError("never told")

    await hearer.consumer().ensure()
    older = hearer.consumer(Handler(TenantCreated, nothing))  # as after going back a version
    await older.ensure()
    await teller.tell()
    async with running(teller.relay(), older):
        await becomes(lambda: dead(hearer), ["LookupError"])


async def test_what_is_no_event_is_a_dead_letter_of_no_tenant(rooms: Rooms) -> None:
    teller, hearer = rooms
    js = teller.nc.jetstream()
    subject = stream.subject_of("customers.customer.created", teller.tenant_id, teller.prefix)
    await js.publish(subject, b"garbage")
    headers = {"tenant": str(teller.tenant_id), "ce-id": str(new_id())}
    await js.publish(
        subject, b"\xff", headers={**headers, "ce-type": "regulars.customers.v1.CustomerCreated"}
    )
    async with running(hearer.consumer()):
        await becomes(lambda: dead(hearer), ["BAD_ENVELOPE", "BAD_ENVELOPE"])
        await eventually(lambda: settled(hearer))


async def test_the_trace_goes_on_from_the_teller_to_the_handler(rooms: Rooms) -> None:
    teller, hearer = rooms
    seen: list[int] = []

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        await hear(tx, rt, events)

    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("told") as span:
        await teller.tell()
    await teller.relay().drain_once()
    async with running(hearer.consumer(Handler(CustomerCreated, handle))):
        await eventually(lambda: settled(hearer))
    assert seen == [span.get_span_context().trace_id]


async def dying_consumer(room: Room) -> None:
    """Another process of the service: it dies after its commit, before it acknowledges."""

    async def handle(tx: Tx, rt: Any, events: Created) -> None:
        await hear(tx, rt, events)
        tx.after_commit(lambda: os._exit(9))

    await room.consumer(Handler(CustomerCreated, handle)).run()


async def test_a_consumer_that_dies_between_commit_and_acknowledgement_doubles_nothing(rooms: Rooms) -> None:
    teller, hearer = rooms
    await hearer.consumer().ensure()
    js, name = hearer.nc.jetstream(), stream.stream_name(hearer.prefix)
    durable = f"{hearer.prefix}{hearer.name}"
    config = (await js.consumer_info(name, durable)).config
    await js.add_consumer(name, config.evolve(ack_wait=1.0))  # redelivered soon
    ids = await teller.tell(5)
    await teller.relay().drain_once()
    child = Child(hearer, __name__, "dying_consumer")
    assert await child.ended() == 9
    info = await js.consumer_info(name, durable)
    assert info.num_ack_pending == 5
    assert await hearer.heard() == dict.fromkeys(ids, (1, 1))
    async with running(hearer.consumer()):
        await eventually(lambda: settled(hearer))
    assert await hearer.heard() == dict.fromkeys(ids, (1, 1))


async def test_the_inbox_forgets_what_the_stream_has_forgotten(room: Room) -> None:
    with acting_as(room.me()):
        async with room.db.tx() as tx:
            assert len(await inbox.receive(tx, "x", [new_id(), new_id()])) == 2
    async with room.db.worker() as tx:
        await tx.execute(
            text(
                "update inbox set received_at = received_at - interval '36 days'"
                " where event_id = (select min(event_id::text)::uuid from inbox)"
            )
        )
    assert await inbox.clean(room.db) == 1
    async with room.db.worker() as tx:
        assert await tx.scalar(select(func.count()).select_from(inbox_table)) == 1


async def test_other_tenants_dead_letters_are_hidden_from_the_application(room: Room) -> None:
    letter = envelope.Letter("customers.customer.created", {}, b"")
    await inbox.bury(room.db, "x", new_id(), new_id(), letter, attempts=1, reason="R", detail="")
    with acting_as(room.me()):
        async with room.db.read() as tx:
            assert (await tx.execute(select(dead_letters))).all() == []
    assert len(await list_dead_letters(room.db)) == 1
