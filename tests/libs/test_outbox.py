"""Events are written with the change and published after it, once each as far as the stream can tell."""

import pytest
from nats.js.api import ConsumerConfig
from sqlalchemy import select

from libs.caller import acting_as
from libs.contracts import ContractError
from libs.ids import new_id
from libs.outbox import emit
from libs.plumbing import outbox
from libs.stream import stream_name
from regulars.customers.v1.customers_pb2 import Customer
from regulars.customers.v1.events_pb2 import CustomerCreated
from tests.libs.rooms import Room, becomes, running


async def test_emit_writes_the_envelope(room: Room) -> None:
    business, customer = new_id(), new_id()
    with acting_as(room.me(subject='a "b" 100%\r\nx: y')):
        async with room.db.tx() as tx:
            event_id = await emit(
                tx, CustomerCreated(source="manual"), aggregate_id=customer, version=7, business_id=business
            )
    async with room.db.worker() as tx:
        row = (await tx.execute(select(outbox))).one()
    assert (row.tenant_id, row.id, row.subject) == (room.tenant_id, event_id, "customers.customer.created")
    assert row.headers["ce-type"] == "regulars.customers.v1.CustomerCreated"
    assert row.headers["ce-source"] == "regulars/customers"
    assert row.headers["ce-subject"] == str(customer)
    assert row.headers["business"] == str(business)
    assert row.headers["aggregateversion"] == "7"
    assert row.headers["actor"] == "user:a%20%22b%22%20100%25%0D%0Ax:%20y"
    assert row.headers["cause"] == "r-1"
    assert CustomerCreated.FromString(row.body).source == "manual"


async def test_emit_of_a_rolled_back_change_leaves_nothing(room: Room) -> None:
    async def fail() -> None:
        async with room.db.tx() as tx:
            await emit(tx, CustomerCreated(), aggregate_id=new_id(), version=1)
            raise ZeroDivisionError

    with acting_as(room.me()), pytest.raises(ZeroDivisionError):
        await fail()
    assert await room.waiting() == 0


async def test_emit_refuses_what_is_no_event_or_too_large(room: Room) -> None:
    with acting_as(room.me()):
        async with room.db.tx() as tx:
            with pytest.raises(ContractError):
                await emit(tx, Customer(), aggregate_id=new_id(), version=1)
            with pytest.raises(ValueError, match="too large"):
                await emit(tx, CustomerCreated(source="x" * 900_001), aggregate_id=new_id(), version=1)


async def test_other_tenants_events_are_hidden_from_the_application(room: Room) -> None:
    await room.tell(3)
    with acting_as(room.me(tenant_id=new_id())):
        async with room.db.read() as tx:
            assert (await tx.execute(select(outbox))).all() == []


async def test_relay_publishes_and_empties_the_outbox(room: Room) -> None:
    ids = await room.tell(3)
    async with running(room.relay()):
        await becomes(room.waiting, 0)
        more = await room.tell(700)  # more than a batch, and woken by the commit
        await becomes(room.waiting, 0)
    js = room.nc.jetstream()
    assert await room.stored() == 703
    sub = await js.pull_subscribe(
        "", durable="test", stream=stream_name(room.prefix), config=ConsumerConfig(filter_subjects=[])
    )
    msgs = await sub.fetch(703, timeout=5)
    found = [CustomerCreated.FromString(m.data).customer_id for m in msgs]
    assert found == [str(i) for i in ids + more]
    assert msgs[0].subject == f"{room.prefix}customers.customer.created.{room.tenant_id}"
