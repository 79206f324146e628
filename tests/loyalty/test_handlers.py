"""Whatever order a customer's events come in, and however often, loyalty knows the same in the end."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from libs.caller import Caller, acting_as
from libs.clock import now
from libs.db import Tx
from libs.envelope import Event
from libs.ids import new_id
from services.loyalty.consumers import HANDLERS
from services.loyalty.tables import memberships
from tests.loyalty.histories import BEGIN, Life, Member, Step, end_of, lives
from tests.platform import Stack

HANDLER_OF = {handler.message: handler.handle for handler in HANDLERS}
LATE_JOIN = [
    Step("created", BEGIN, False),
    Step("left", BEGIN.replace(day=2), False),
    Step("joined", BEGIN.replace(day=3), False),
    Step("deleted", BEGIN.replace(day=4), False),
    Step("restored", BEGIN.replace(day=5), False),
]


async def heard(tx: Tx, life: Life, order: Sequence[int], batch: int = 1) -> Member:
    """What loyalty knows of a new customer after their life's events in this order of their places.

    As many as `batch` come at once: those of a kind together, the kinds in the order of the handlers.
    """
    customer, business = new_id(), new_id()
    for at in range(0, len(order), batch):
        by_kind: dict[type[Message], list[Event[Any]]] = {}
        for place in sorted(set(order[at : at + batch])):
            message = life[place].message(customer, business)
            event = Event(
                id=new_id(),
                type=message.DESCRIPTOR.full_name,
                source="regulars/customers",
                subject="",
                tenant_id=tx.tenant_id,
                business_id=business,
                aggregate_id=customer,
                version=place + 1,
                time=now(),
                actor="user:tester",
                cause=None,
                replay=False,
                message=message,
            )
            by_kind.setdefault(type(message), []).append(event)
        for kind, handle in HANDLER_OF.items():
            if kind in by_kind:
                await handle(tx, None, by_kind[kind])
    mine = memberships.c
    wanted = select(memberships).where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer)
    row = (await tx.execute(wanted)).one()
    return Member(row.present, row.deleted, row.blocked, row.joined_at)


def shown(member: Member) -> Member:
    """What anybody may ask of it: when somebody who is no member any more had joined is not."""
    return member if member.present else Member(deleted=member.deleted, blocked=member.blocked)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Life, list[int], int]:
    """A life, the places of its events in the order of their arrival (each at least once), and how many at once."""
    life = draw(lives())
    places = range(len(life))
    order = draw(st.permutations(places))
    for again in draw(st.lists(st.sampled_from(places), max_size=3)):
        order.insert(draw(st.integers(0, len(order))), again)
    return life, order, draw(st.integers(1, 4))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(story=(LATE_JOIN, [4, 0, 2, 1, 3], 1))
@example(story=([*LATE_JOIN, LATE_JOIN[1], LATE_JOIN[2]], [6, 2, 0, 5, 1, 3, 4], 7))
@given(story=stories())
async def test_any_order_any_number_of_times(stack: Stack, story: tuple[Life, list[int], int]) -> None:
    life, order, batch = story
    loyalty = stack.runtimes["loyalty"]
    caller = Caller(tenant_id=new_id(), subject="loyalty", kind="service", service="loyalty")
    with acting_as(caller):
        async with loyalty.db.tx() as tx:
            in_order = await heard(tx, life, range(len(life)))
            in_disorder = await heard(tx, life, order, batch)
    assert shown(in_order) == shown(end_of(life))
    assert shown(in_disorder) == shown(end_of(life))
