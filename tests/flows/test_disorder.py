"""Events that come in the wrong order, twice, or are not what they should be, on the real stream."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import UUID

import nats
import pytest
from nats.js import JetStreamContext

from libs import stream
from libs.caller import Caller
from libs.clock import now
from libs.envelope import Letter, write
from libs.ids import new_id
from tests.flows.looking import rows
from tests.libs.rooms import becomes
from tests.loyalty.histories import BEGIN, Life, Step, end_of
from tests.platform import Stack, TenantOfTest

LIFE = [
    Step("created", BEGIN, False),
    Step("updated", BEGIN.replace(day=2), True),
    Step("deleted", BEGIN.replace(day=3), True),
    Step("restored", BEGIN.replace(day=4), True),
    Step("updated", BEGIN.replace(day=5), False),
    Step("left", BEGIN.replace(day=6), False),
    Step("joined", BEGIN.replace(day=7), True),
]


@dataclass(frozen=True)
class Wire:
    """Publishes events past the outbox, as a stream that repeats and mixes them would deliver them."""

    stack: Stack
    js: JetStreamContext
    tenant: TenantOfTest

    def letters(self, life: Life, customer: UUID, business: UUID) -> list[Letter]:
        """A life's events, in order, each with an id of its own."""
        caller = Caller(tenant_id=self.tenant.id, subject="tester")
        return [
            write(
                step.message(customer, business),
                event_id=new_id(),
                at=now(),
                caller=caller,
                aggregate_id=customer,
                version=version,
                business_id=business,
                cause=None,
            )
            for version, step in enumerate(life, 1)
        ]

    async def publish(self, *letters: Letter) -> None:
        """Sends them in this order; without an id of the message, so that the stream drops none as double."""
        for letter in letters:
            subject = stream.subject_of(letter.subject, self.tenant.id, self.stack.settings.prefix)
            await self.js.publish(subject, letter.body, headers=dict(letter.headers))

    async def known(self, customer: UUID) -> list[tuple[object, ...]]:
        """The customer's memberships as loyalty keeps them."""
        found = await rows(
            self.stack,
            "select present, deleted, blocked, joined_at from loyalty.memberships "
            "where tenant_id = %s and customer_id = %s",
            self.tenant.id,
            customer,
        )
        return [tuple(row.values()) for row in found]

    async def handled(self) -> int:
        """How many different events of the tenant loyalty is done with, but for the tenant's own."""
        query = (
            "select (select count(*) from loyalty.inbox where tenant_id = %s) "
            "+ (select count(*) from loyalty.dead_letters where tenant_id = %s) - 1 as n"
        )
        return int((await rows(self.stack, query, self.tenant.id, self.tenant.id))[0]["n"])


@pytest.fixture
async def wire(stack: Stack, tenant: TenantOfTest) -> AsyncIterator[Wire]:
    client = await nats.connect(stack.settings.nats_url)
    found = Wire(stack, client.jetstream(), tenant)
    await becomes(found.handled, 0)  # the tenant's creation has been heard
    yield found
    await client.close()


async def test_the_end_is_the_same_in_any_order_and_for_repeated_events(wire: Wire) -> None:
    wanted = end_of(LIFE)
    orders = [list(range(len(LIFE)))[::-1], [6, 0, 5, 1, 4, 2, 3], *(shuffled(seed) for seed in range(4))]
    people = []
    for order in orders:
        customer, business = new_id(), new_id()
        people.append(customer)
        letters = wire.letters(LIFE, customer, business)
        await wire.publish(*(letters[place] for place in order), *letters)
    await becomes(wire.handled, len(orders) * len(LIFE))
    for customer in people:
        known = await wire.known(customer)
        assert known == [(wanted.present, wanted.deleted, wanted.blocked, wanted.joined_at)]


def shuffled(seed: int) -> list[int]:
    order = list(range(len(LIFE)))
    random.Random(seed).shuffle(order)
    return order


async def test_the_same_event_from_two_publishers_at_once_is_handled_once(wire: Wire) -> None:
    customer, business = new_id(), new_id()
    letters = wire.letters(LIFE[:2], customer, business)
    await asyncio.gather(*(wire.publish(*letters) for _ in range(5)))
    await becomes(wire.handled, 2)
    assert await wire.known(customer) == [(True, False, True, BEGIN)]


async def test_what_is_no_event_is_put_aside_and_stops_nobody(wire: Wire) -> None:
    customer, business = new_id(), new_id()
    good = wire.letters(LIFE, customer, business)
    torn = replace(good[1], body=b"\xff\xff\xff", headers={**good[1].headers, "ce-id": str(new_id())})
    ageless = replace(good[2], headers={**good[2].headers, "ce-id": str(new_id()), "aggregateversion": "new"})
    await wire.publish(torn, ageless, *good)
    await becomes(wire.handled, len(good) + 2)
    query = "select error_reason from loyalty.dead_letters where tenant_id = %s"
    reasons = [row["error_reason"] for row in await rows(wire.stack, query, wire.tenant.id)]
    assert reasons == ["BAD_ENVELOPE"] * 2
    assert len(await wire.known(customer)) == 1
