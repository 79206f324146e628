"""Orders' events in any order, any number of times, from several consumers at once: the same points in the end."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from libs import inbox
from libs.caller import Caller, acting_as
from libs.clock import now
from libs.db import Tx
from libs.envelope import Event
from libs.ids import new_id
from libs.instants import stamp
from regulars.customers.v1 import events_pb2 as told
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_ACTIVE
from regulars.customers.v1.orders_pb2 import (
    ORDER_STATUS_CANCELLED,
    ORDER_STATUS_PAID,
    OrderStatus,
)
from services.loyalty.consumers import HANDLERS
from services.loyalty.ledger import checks
from services.loyalty.ledger.tables import accounts
from tests.platform import Stack

HANDLER_OF = {handler.message: handler.handle for handler in HANDLERS}
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
_KINDS = (told.OrderRecorded, told.OrderCompleted, told.OrderRefunded, told.OrderCancelled)


@dataclass(frozen=True)
class State:
    """An order after one of its changes: total, refunded, cancelled."""

    total: int
    refunded: int
    cancelled: bool

    @property
    def worth(self) -> int:
        """Points that are left of it, at one for each hundred."""
        if self.cancelled or (self.refunded and self.refunded >= self.total):
            return 0
        points = self.total // 100
        return -(-points * (self.total - self.refunded) // self.total) if self.total else 0


@st.composite
def order_lives(draw: st.DrawFn) -> list[State]:
    """Up to five states of an order; the version of each is its place."""
    states = []
    total = draw(st.integers(0, 50_000))
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 3)) == 0:
            total = draw(st.integers(0, 50_000))
        states.append(State(total, draw(st.integers(0, total)), draw(st.integers(0, 4)) == 0))
    return states


class House:
    """A business with members, as loyalty hears of it in one tenant."""

    def __init__(self, stack: Stack) -> None:
        self.loyalty = stack.runtimes["loyalty"]
        self.business, self.customers = new_id(), [new_id(), new_id()]
        self.caller = Caller(tenant_id=new_id(), subject="loyalty", kind="service", service="loyalty")

    def event(self, message: Any, aggregate: UUID, version: int) -> Event[Any]:
        return Event(
            id=new_id(),
            type=message.DESCRIPTOR.full_name,
            source="regulars/customers",
            subject="",
            tenant_id=self.caller.tenant(),
            business_id=self.business,
            aggregate_id=aggregate,
            version=version,
            time=now(),
            actor="user:tester",
            cause=None,
            replay=False,
            message=message,
        )

    def beginning(self) -> list[Event[Any]]:
        """The business and its members."""
        business = told.BusinessCreated(business_id=str(self.business), currency="USD", time_zone="UTC")
        return [
            self.event(business, self.business, 1),
            *(
                self.event(
                    told.CustomerCreated(
                        customer_id=str(customer),
                        business_id=str(self.business),
                        status=CUSTOMER_STATUS_ACTIVE,
                        joined_at=stamp(BEGIN),
                    ),
                    customer,
                    1,
                )
                for customer in self.customers
            ),
        ]

    def order(self, number: int, states: Sequence[State]) -> list[Event[Any]]:
        """The events of an order's life."""
        order_id = new_id()
        events: list[Event[Any]] = []
        for version, state in enumerate(states, 1):
            status: OrderStatus.ValueType = ORDER_STATUS_CANCELLED if state.cancelled else ORDER_STATUS_PAID
            after = told.OrderState(
                order_id=str(order_id),
                business_id=str(self.business),
                customer_id=str(self.customers[number % 2]),
                status=status,
                placed_at=stamp(BEGIN + timedelta(days=number)),
                local_day=(BEGIN + timedelta(days=number)).date().isoformat(),
                currency="USD",
                total_minor=state.total,
                refunded_total_minor=state.refunded,
                completed_at=stamp(BEGIN + timedelta(days=number)),
            )
            events += [self.event(kind(order=after), order_id, version) for kind in _KINDS]
        return events

    async def hear(self, events: Sequence[Event[Any]]) -> None:
        """One transaction of a consumer: what was handled already is skipped; a lost race begins again."""
        while True:
            try:
                with acting_as(self.caller):
                    async with self.loyalty.db.tx() as tx:
                        fresh = await inbox.receive(tx, "loyalty", [event.id for event in events])
                        for handle in dict.fromkeys(HANDLER_OF.values()):
                            mine = [
                                e for e in events if HANDLER_OF[type(e.message)] is handle and e.id in fresh
                            ]
                            if mine:
                                await handle(tx, self.loyalty, mine)
                        return
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", "") not in {"40P01", "40001"}:
                    raise

    async def balances(self) -> tuple[list[int], list[Any]]:
        """The members' balances with what they owe besides, and what does not agree."""
        a = accounts.c

        async def look(tx: Tx) -> tuple[list[int], list[Any]]:
            wanted = select(a.customer_id, a.balance, a.shortfall).where(
                a.tenant_id == tx.tenant_id, a.business_id == self.business
            )
            found = {row.customer_id: row.balance - row.shortfall for row in await tx.execute(wanted)}
            points = [found.get(customer, 0) for customer in self.customers]
            return points, await checks.faults(tx, self.business)

        with acting_as(self.caller):
            async with self.loyalty.db.read() as tx:
                return await look(tx)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=st.lists(order_lives(), min_size=1, max_size=5), chance=st.randoms(use_true_random=False))
async def test_any_order_any_number_of_times(
    stack: Stack, lives: list[list[State]], chance: random.Random
) -> None:
    house = House(stack)
    await house.hear(house.beginning())
    events = [event for number, life in enumerate(lives) for event in house.order(number, life)]
    heard = [*events, *chance.sample(events, len(events) // 2)]
    chance.shuffle(heard)
    while heard:
        size = chance.randint(1, 6)
        await house.hear(heard[:size])
        del heard[:size]
    points, faults = await house.balances()
    assert points == [
        sum(life[-1].worth for number, life in enumerate(lives) if number % 2 == side) for side in (0, 1)
    ]
    assert faults == []


async def test_the_same_events_a_hundred_times_from_four_consumers_at_once(stack: Stack) -> None:
    house = House(stack)
    await house.hear(house.beginning())
    lives = [[State(10_000, 0, False), State(10_000, 2_500 * (number % 3), False)] for number in range(8)]
    events = [event for number, life in enumerate(lives) for event in house.order(number, life)]
    chance = random.Random(7)

    async def consumer() -> None:
        for _ in range(25):
            await house.hear(chance.sample(events, len(events)))

    await asyncio.gather(*(consumer() for _ in range(4)))
    points, faults = await house.balances()
    assert points == [sum(life[-1].worth for life in lives[side::2]) for side in (0, 1)]
    assert faults == []


async def test_four_consumers_hear_different_events_of_the_same_members(stack: Stack) -> None:
    house = House(stack)
    await house.hear(house.beginning())
    orders = [
        house.order(number, [State(5_000, 0, False), State(5_000, 1_000, False)]) for number in range(40)
    ]
    events = [event for each in orders for event in each]
    chance = random.Random(11)
    chance.shuffle(events)
    await asyncio.gather(*(house.hear(events[start : start + 20]) for start in range(0, len(events), 20)))
    points, faults = await house.balances()
    assert points == [40 * 20, 40 * 20]
    assert faults == []
