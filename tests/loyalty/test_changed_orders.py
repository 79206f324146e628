"""Orders that change late: each point explained, within limits, to whom they were judged; what was spent comes back."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from libs.caller import acting_as
from libs.envelope import Event
from libs.ids import new_id
from services.loyalty.ledger import actions as ledger
from services.loyalty.ledger.rules import EARN
from services.loyalty.ledger.tables import accounts, entries
from services.loyalty.problems import OrderCancelled
from services.loyalty.programs import actions as programs
from services.loyalty.programs import queries as programs_queries
from tests.loyalty.test_disorder import HANDLER_OF, State
from tests.loyalty.test_merges import Home
from tests.platform import Stack

HUNDRED, GONE = State(10_000, 0, False), State(10_000, 0, True)
HALF = State(10_000, 5_000, False)


class Shop(Home):
    """A home whose orders change, and its rules too."""

    def versions(self, who: int, *states: State, day: int = 0) -> list[Event[Any]]:
        """What is told of an order of a member, state by state."""
        return [self.naming(who, event) for event in self.order(day, states)[::4]]

    def naming(self, who: int, event: Event[Any]) -> Event[Any]:
        """The event, as if it named that member."""
        event.message.order.customer_id = str(self.customers[who])
        return event

    async def add_rule(self, **definition: Any) -> UUID:
        rule_id = new_id()

        async def add(tx: Any, program: Any) -> None:
            row = await programs_queries.row(tx, program.program_id, lock=True)
            await programs.create_rule(tx, rule_id, row, {"name": "a rule", **definition})

        await self.do(add)
        return rule_id

    async def end_rules(self, *only: UUID) -> None:
        """Deletes these rules; all, if none is named."""

        async def end(tx: Any, program: Any) -> None:
            for row in await programs_queries.rule_rows(tx, program.program_id):
                if not only or row.rule_id in only:
                    await programs.end_rule(tx, row)

        await self.do(end)

    async def earned(self) -> list[tuple[int, list[tuple[str, int]]]]:
        """What was given: points, and the name and points of each reason; the newest first."""

        async def look(tx: Any, _: Any) -> list[Any]:
            e = entries.c
            wanted = select(entries).where(e.tenant_id == tx.tenant_id, e.kind == EARN)
            rows = await tx.execute(wanted.order_by(e.entry_id.desc()))
            return [
                (row.points, [(reason["name"], reason["points"]) for reason in row.reasons]) for row in rows
            ]

        return list(await self.do(look))

    async def spend(self, points: int, order_id: UUID, who: int = 0) -> None:
        await self.do(
            lambda tx, program: ledger.redeem_points(
                tx, program, self.customers[who], new_id(), points, order_id
            )
        )

    async def there(self) -> int:
        """All points, pending ones too, less those that returns should have taken."""

        async def look(tx: Any, _: Any) -> int:
            a = accounts.c
            wanted = select(a.balance, a.pending, a.shortfall).where(a.tenant_id == tx.tenant_id)
            return sum(row.balance + row.pending - row.shortfall for row in await tx.execute(wanted))

        return int(await self.do(look))


async def shop(stack: Stack) -> Shop:
    found = Shop(stack)
    await found.hear(found.beginning())
    return found


async def test_a_card_outlives_its_rule(stack: Stack) -> None:
    house = await shop(stack)
    rule_id = await house.add_rule(stamp_card={"stamps": 1, "points": 50, "per_order": True, "repeats": True})
    whole, half = house.versions(0, HUNDRED, HALF)
    await house.hear([whole])
    await house.end_rules(rule_id)
    await house.hear([half])
    assert await house.balances() == ([100, 0], [])


async def test_what_was_spent_on_an_order_that_is_cancelled_comes_back(stack: Stack) -> None:
    house = await shop(stack)
    await house.hear(house.versions(0, HUNDRED))
    (at_once, cancelled), (never,) = house.versions(0, HUNDRED, GONE), house.versions(0, GONE)
    never.message.order.ClearField("completed_at")
    for events in ([at_once, cancelled], [never]):
        order_id = events[0].aggregate_id
        held = new_id()
        await house.do(
            lambda tx, program, order_id=order_id, held=held: ledger.hold_points(
                tx, program, house.customers[0], held, 10, 900, order_id
            )
        )
        await house.spend(60, order_id)
        await house.hear(events)
        assert await house.balances() == ([100, 0], [])
        with pytest.raises(OrderCancelled):
            await house.spend(1, order_id)
        with pytest.raises(OrderCancelled):
            await house.do(
                lambda tx, program, held=held: ledger.capture_hold(
                    tx, program, house.customers[0], held, 10, None
                )
            )
        await house.do(
            lambda tx, program, held=held: ledger.release_hold(tx, program, house.customers[0], held)
        )
    await house.hear([house.naming(0, event) for event in house.order(0, [GONE])])
    assert await house.balances() == ([100, 0], [])


async def test_what_is_spent_on_an_order_that_gave_it_is_no_shortfall(stack: Stack) -> None:
    house = await shop(stack)
    whole, gone = house.versions(0, HUNDRED, GONE)
    await house.hear([whole])
    await house.spend(60, whole.aggregate_id)
    await house.hear([gone])
    assert (await house.balances(), await house.there()) == (([0, 0], []), 0)
    assert (await house.picture())[0][0][4] == 0


async def test_what_others_spent_on_an_order_comes_back_to_them(stack: Stack) -> None:
    house, merge = await shop(stack), new_id()
    whole, half, gone = house.versions(0, HUNDRED, HALF, GONE)
    await house.hear([whole, *house.versions(1, HUNDRED)])
    await house.spend(40, whole.aggregate_id, who=1)
    await house.hear([half])
    assert await house.balances() == ([50, 80], [])
    await house.hear([house.merged(0, 1, merge)])
    await house.spend(10, whole.aggregate_id, who=1)
    await house.hear([house.unmerged(0, 1, merge)])
    await house.hear([gone])
    assert (await house.balances())[1] == []
    assert await house.there() == 100


async def test_an_order_that_named_the_one_who_is_no_more_stays_with_the_survivor(stack: Stack) -> None:
    house, merge = await shop(stack), new_id()
    await house.add_rule(stamp_card={"stamps": 5, "points": 1, "per_order": True})
    whole, half = house.versions(0, HUNDRED, HALF)
    await house.hear([house.merged(0, 1, merge)])
    await house.hear([whole])
    await house.hear([house.unmerged(0, 1, merge)])
    await house.hear([half])
    assert await house.balances() == ([0, 50], [])


async def test_an_order_may_name_the_survivor_before_the_merge_is_heard_of(stack: Stack) -> None:
    house, merge = await shop(stack), new_id()
    whole, half = house.versions(0, HUNDRED, HALF)
    await house.hear([whole])
    await house.spend(40, whole.aggregate_id)
    await house.hear([house.naming(1, half)])
    assert await house.balances() == ([30, 0], [])
    await house.hear([house.merged(0, 1, merge)])
    assert await house.balances() == ([0, 30], [])
    await house.hear([house.unmerged(0, 1, merge)])
    assert await house.balances() == ([30, 0], [])


async def test_a_rule_that_changes_meanwhile_gives_what_it_gave(stack: Stack) -> None:
    house = await shop(stack)

    async def change(tx: Any, program: Any) -> None:
        (row,) = await programs_queries.rule_rows(tx, program.program_id)
        await programs.update_rule(tx, row, {**row.definition, "per_amount": {"points": 7}}, "")

    whole, half = house.versions(0, HUNDRED, HALF)
    with acting_as(house.caller):
        async with house.loyalty.db.tx() as tx:
            await house.do(change)
            await HANDLER_OF[type(whole.message)](tx, house.loyalty, [whole])
    assert await house.balances() == ([100, 0], [])
    await house.hear([half])
    assert await house.balances() == ([50, 0], [])


async def test_what_an_order_gives_more_is_explained_by_rule(stack: Stack) -> None:
    house = await shop(stack)
    await house.add_rule(
        name="Double on the web", multiplier={"factor_percent": 200}, conditions={"channels": ["web"]}
    )
    first, grown, moved = house.versions(0, HUNDRED, State(15_000, 0, False), State(40_000, 0, False))
    for event in (first, grown):
        event.message.order.channel = "web"
    for event in (first, grown, moved):
        await house.hear([event])
    name = "A point for each unit spent"
    assert await house.earned() == [
        (100, [(name, 250), ("Double on the web", -150)]),
        (100, [(name, 50), ("Double on the web", 50)]),
        (200, [(name, 100), ("Double on the web", 100)]),
    ]
    assert await house.balances() == ([400, 0], [])


@pytest.mark.parametrize("cap", ["per_day", "per_month"])
async def test_an_order_that_grows_keeps_to_the_limits(stack: Stack, cap: str) -> None:
    house = await shop(stack)
    await house.end_rules()
    await house.add_rule(per_amount={"points": 1}, caps={cap: 150})
    first, grown, most = house.versions(0, HUNDRED, State(12_000, 0, False), State(20_000, 0, False))
    await house.hear([first])
    # What it gave before counts once in the batch, and what others gave since counts too.
    await house.hear([grown, *house.versions(0, State(5_000, 0, False))])
    assert await house.balances() == ([150, 0], [])
    await house.hear([most])
    assert await house.balances() == ([150, 0], [])


STATES = st.builds(
    State,
    st.integers(1, 200).map(lambda units: units * 100),
    st.just(0),
    st.integers(0, 4).map(lambda n: not n),
) | st.integers(1, 200).map(lambda units: State(units * 100, units * 100, False))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "change", "change", "merge", "unmerge", "wait", "forget"]),
        st.integers(0, 9),
        STATES,
    ),
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, pending=st.booleans())
async def test_everything_agrees_whatever_becomes_of_orders(
    stack: Stack, steps: Sequence[tuple[str, int, State]], pending: bool
) -> None:
    """Full returns before their day and after it, cards whose rule is deleted, changes while merged and later."""
    house = await shop(stack)
    await house.set(expiry="EXPIRY_KIND_NEVER", pending_days=1000 if pending else 0)
    card = await house.add_rule(stamp_card={"stamps": 2, "points": 5, "per_order": True, "repeats": True})
    lives: list[list[State]] = []
    ids: list[UUID] = []
    merge: UUID | None = None
    for verb, pick, state in [("buy", 0, HUNDRED), *steps]:
        if verb == "buy":
            lives.append([state])
            (event,) = house.versions(pick % 2, state)
            ids.append(event.aggregate_id)
            await house.hear([event])
        elif verb == "change":
            at = pick % len(lives)
            lives[at].append(state)
            event = house.versions(pick % 2, *lives[at])[-1]
            event.message.order.order_id = str(ids[at])
            await house.hear([event])
        elif verb == "merge" and merge is None:
            merge = new_id()
            await house.hear([house.merged(0, 1, merge)])
        elif verb == "unmerge" and merge is not None:
            await house.hear([house.unmerged(0, 1, merge)])
            merge = None
        elif verb == "wait":
            await house.booked(1001)
        elif verb == "forget":
            await house.end_rules(card)
    assert await house.booked(1001) <= 2
    assert await house.booked(1001) == 0
    cards = sum(points for points, reasons in await house.earned() if reasons == [("a rule", 5)])
    assert await house.there() == sum(life[-1].worth for life in lives) + cards
    assert (await house.balances())[1] == []
