"""Two customers who are one, and two again: points, holds, tiers and cards go there and come back exactly."""

import asyncio
import random
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from libs.caller import acting_as
from libs.ids import new_id
from libs.inbox import NotYet
from libs.problems import Conflict
from regulars.customers.v1 import events_pb2 as told
from services.loyalty.ledger import actions as ledger
from services.loyalty.ledger import expiry, reading
from services.loyalty.ledger import queries as ledger_queries
from services.loyalty.merges.tables import merged_accounts
from services.loyalty.problems import MembershipNotFound
from services.loyalty.programs import queries as programs
from services.loyalty.programs.tables import programs as program_rows
from services.loyalty.tiers import queries as tiers
from tests.loyalty.test_disorder import House, State
from tests.platform import Stack


class Home(House):
    """A house whose members may turn out to be one."""

    def merged(self, source: int, target: int, operation: UUID) -> Any:
        message = told.CustomerMerged(
            source_id=str(self.customers[source]),
            target_id=str(self.customers[target]),
            operation_id=str(operation),
        )
        return self.event(message, self.customers[source], 9)

    def unmerged(self, source: int, target: int, operation: UUID) -> Any:
        message = told.CustomerUnmerged(
            source_id=str(self.customers[source]),
            target_id=str(self.customers[target]),
            operation_id=str(operation),
        )
        return self.event(message, self.customers[source], 10)

    async def do(self, act: Any) -> Any:
        """What `act` gives in a transaction, called with it and the program."""
        with acting_as(self.caller):
            async with self.loyalty.db.tx() as tx:
                (row,) = await programs.of_business(tx, self.business)
                return await act(tx, programs.program_of(row))

    async def buys(self, number: int, minor: int = 10_000) -> None:
        await self.hear(self.order(number, [State(minor, 0, False)])[1:2])

    async def redeem(self, who: int, points: int) -> UUID:
        entry_id = new_id()
        await self.do(
            lambda tx, program: ledger.redeem_points(tx, program, self.customers[who], entry_id, points, None)
        )
        return entry_id

    async def hold(self, who: int, points: int) -> UUID:
        hold_id = new_id()
        await self.do(
            lambda tx, program: ledger.hold_points(
                tx, program, self.customers[who], hold_id, points, 900, None
            )
        )
        return hold_id

    async def set(self, **settings: Any) -> None:
        """Gives the program settings."""
        these = update(program_rows).where(program_rows.c.business_id == self.business)
        await self.do(lambda tx, _: tx.execute(these.values(settings=settings)))

    async def booked(self, days: int) -> int:
        """How many accounts the run that books what holds changes, so many days from now."""

        async def settle(tx: Any, _: Any) -> int:
            tx.now += timedelta(days=days)
            return await expiry.settle_due(tx, 500)

        return int(await self.do(settle))

    async def picture(self) -> list[Any]:
        """All that can be seen of the members' points: balances, lots, holds and tiers."""

        async def look(tx: Any, program: Any) -> list[Any]:
            found: list[Any] = []
            for customer in self.customers:
                account = await ledger_queries.account_id(tx, program.program_id, customer)
                if account is None:
                    found.append(None)
                    continue
                book = (await reading.books(tx, [account], {program.program_id: program}, lock=False))[
                    account
                ]
                lots = sorted(
                    (asdict(lot) for lot in book.lots.values() if lot.remaining),
                    key=lambda lot: lot["lot_id"],
                )
                holds = sorted(
                    (asdict(hold) for hold in book.holds.values()), key=lambda hold: hold["hold_id"]
                )
                of = book.account
                points = (of.balance, of.pending, of.held, of.debt, of.shortfall, of.lifetime, of.redeemed)
                standing = (await tiers.standings_of(tx, [account])).get(account)
                facts = await tiers.facts(
                    tx, program, await tiers.ladder(tx, program.program_id), [account], tx.now
                )
                found.append((points, lots, holds, standing and standing.tier, facts[account]))
            return found

        return list(await self.do(look))

    async def lacking(self) -> int:
        async def look(tx: Any, _: Any) -> int:
            rows = await tx.execute(
                select(merged_accounts.c.lacking).where(merged_accounts.c.tenant_id == tx.tenant_id)
            )
            return sum(rows.scalars())

        return int(await self.do(look))


async def home(stack: Stack, members: int = 2) -> Home:
    found = Home(stack)
    found.customers = [new_id() for _ in range(members)]
    await found.hear(found.beginning())
    return found


async def test_points_holds_and_orders_go_with_the_customer_and_come_back(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    for number in range(4):
        await house.buys(number)
    await house.redeem(0, 30)
    await house.hold(0, 50)
    before = await house.picture()
    await house.hear([house.merged(0, 1, merge)])
    (gone, mine), after = (await house.balances())[0], await house.picture()
    assert (gone, mine) == (0, 370)
    assert (after[0][0][:3], after[1][0][2]) == ((0, 0, 0), 50)
    assert [hold["points"] for hold in after[1][2]] == [50]
    assert after[1][4][0].spending_minor == 40_000
    await house.hear([house.merged(0, 1, merge)])
    assert await house.picture() == after
    await house.hear([house.unmerged(0, 1, merge)])
    assert (await house.picture(), await house.balances()) == (before, ([170, 200], []))
    await house.hear([house.unmerged(0, 1, merge), house.merged(0, 1, merge)])
    assert (await house.picture(), await house.lacking()) == (before, 0)


async def test_what_happens_to_the_one_who_is_no_more_happens_to_the_survivor(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    first = house.order(0, [State(10_000, 0, False), State(10_000, 5_000, False)])
    await house.hear(first[:4])
    await house.hear([house.merged(0, 1, merge)])
    await house.buys(2)
    assert await house.balances() == ([0, 200], [])
    await house.hear(first[4:])
    assert await house.balances() == ([0, 150], [])


async def test_what_was_spent_before_comes_back_to_whom_it_is_due(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    await house.buys(0)
    before = await house.picture()
    spent = await house.redeem(0, 60)
    await house.hear([house.merged(0, 1, merge)])
    await house.do(
        lambda tx, program: ledger.reverse_redemption(tx, program, house.customers[0], spent, new_id())
    )
    assert await house.balances() == ([0, 100], [])
    after = await house.picture()
    (expiry,) = {lot["expires_at"] for lot in after[1][1]}
    assert expiry == before[0][1][0]["expires_at"]
    await house.hear([house.unmerged(0, 1, merge)])
    again = await house.picture()
    assert (await house.balances(), again[0][1]) == (([100, 0], []), before[0][1])


async def test_an_undoing_that_comes_first_wins(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    await house.buys(0)
    await house.hear([house.unmerged(0, 1, merge)])
    await house.hear([house.merged(0, 1, merge)])
    assert await house.balances() == ([100, 0], [])


async def test_spent_points_come_out_of_the_survivors_own_or_are_lacking(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    for number in range(2):
        await house.buys(number)
    await house.hear([house.merged(0, 1, merge)])
    await house.redeem(1, 130)
    await house.hear([house.unmerged(0, 1, merge)])
    points, faults = await house.balances()
    assert (sum(points), faults) == (70, [])
    assert await house.lacking() == 30


async def test_pending_points_wait_on_after_a_merge_and_its_undoing(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    await house.set(pending_days=1000, expiry="EXPIRY_KIND_NEVER")
    whole, part = (
        house.order(0, [State(10_000, 0, False), State(10_000, back, False)]) for back in (10_000, 5_000)
    )
    await house.hear([whole[1], part[1]])
    await house.hear([whole[6]])
    before = await house.picture()
    assert before[0][0][:2] == (0, 100)
    await house.hear([house.merged(0, 1, other := new_id())])
    await house.hear([house.unmerged(0, 1, other)])
    assert (await house.picture())[0] == before[0]
    await house.hear([house.merged(0, 1, merge)])
    assert (await house.picture())[1][0][:2] == (0, 100)
    assert await house.balances() == ([0, 0], [])
    await house.hear([part[6]])
    await house.hear([house.unmerged(0, 1, merge)])
    assert (await house.picture())[0][0][:2] == (0, 50)
    await house.hear([house.merged(0, 1, new_id())])
    # Only the survivor's are due, and once.
    assert [await house.booked(1001) for _ in range(2)] == [1, 0]
    assert await house.balances() == ([0, 50], [])


async def test_what_was_all_returned_while_pending_is_due_no_more(stack: Stack) -> None:
    house = await home(stack)
    await house.set(pending_days=1000, expiry="EXPIRY_KIND_NEVER")
    life = house.order(
        0, [State(10_000, 0, False), State(10_000, 10_000, False), State(10_000, 2_500, False)]
    )
    await house.hear(life[1:2])
    await house.hear(life[6:7])
    assert [await house.booked(1001), await house.balances()] == [0, ([0, 0], [])]
    await house.hear(life[10:11])
    assert (await house.picture())[0][0][:2] == (0, 75)
    assert [await house.booked(1001) for _ in range(2)] == [1, 0]
    assert await house.balances() == ([75, 0], [])


async def test_the_higher_tier_stays_until_it_is_undone(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    await house.buys(0, 90_000)
    before = await house.picture()
    await house.hear([house.merged(0, 1, merge)])
    after = await house.picture()
    assert after[1][3] == before[0][3]
    await house.hear([house.unmerged(0, 1, merge)])
    again = await house.picture()
    assert (again[0], again[1][3]) == (before[0], "BRONZE")


async def test_merges_of_merges_are_undone_in_any_order(stack: Stack) -> None:
    house, one, two = await home(stack, 3), new_id(), new_id()
    await house.buys(0)
    await house.buys(1, 5_000)
    before = await house.picture()
    await house.hear([house.merged(0, 1, one)])
    await house.hear([house.merged(1, 2, two)])
    assert await house.balances() == ([0, 0, 150], [])
    await house.hear([house.unmerged(0, 1, one)])
    assert await house.balances() == ([100, 0, 50], [])
    await house.hear([house.unmerged(1, 2, two)])
    assert await house.balances() == ([100, 50, 0], [])
    assert [each and each[:3] for each in await house.picture()][:2] == [each[:3] for each in before[:2]]


async def test_a_second_merge_of_the_same_waits_for_the_undoing_of_the_first(stack: Stack) -> None:
    house, one, two = await home(stack), new_id(), new_id()
    await house.buys(0)
    await house.hear([house.merged(0, 1, one)])
    for early in (house.merged(0, 1, two), house.merged(1, 0, two)):
        with pytest.raises(NotYet):
            await house.hear([early])
    await house.hear([house.unmerged(0, 1, one)])
    await house.hear([house.merged(1, 0, two)])
    assert await house.balances() == ([100, 0], [])


async def test_orders_beside_a_merge_are_lost_to_nobody(stack: Stack) -> None:
    house = await home(stack)
    orders = [house.order(number, [State(1_000, 0, False)])[1:2] for number in range(20)]
    merge = new_id()

    async def heard(events: list[Any]) -> None:
        while True:
            try:
                return await house.hear(events)
            except Conflict:
                continue

    await asyncio.gather(*(heard(each) for each in orders), heard([house.merged(0, 1, merge)]))
    assert await house.balances() == ([0, 200], [])
    await asyncio.gather(heard([house.unmerged(0, 1, merge)]), heard([house.unmerged(0, 1, merge)]))
    points, faults = await house.balances()
    assert (sum(points), faults) == (200, [])


STEPS = st.lists(
    st.tuples(st.sampled_from(["buy", "redeem", "hold", "refund"]), st.integers(0, 1), st.integers(1, 300)),
    max_size=7,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, between=STEPS, seed=st.integers(0, 9))
async def test_a_merge_and_its_undoing_change_nothing(
    stack: Stack, steps: list[Any], between: list[Any], seed: int
) -> None:
    house, chance = await home(stack), random.Random(seed)
    orders: list[Any] = []

    async def live(steps: list[Any]) -> None:
        for verb, who, points in steps:
            spendable = (await house.picture())[who]
            free = spendable[0][0] - spendable[0][2] if spendable else 0
            if verb == "buy":
                life = house.order(
                    who, [State(points * 100, 0, False), State(points * 100, points * 50, False)]
                )
                orders.append(life)
                await house.hear(life[1:2])
            elif verb == "refund" and orders:
                await house.hear(orders.pop(chance.randrange(len(orders)))[6:7])
            elif verb == "redeem" and free >= points:
                await house.redeem(who, points)
            elif verb == "hold" and free >= points:
                await house.hold(who, points)

    await live(steps)
    before = await house.picture()
    merge = new_id()
    await house.hear([house.merged(0, 1, merge)])
    assert (await house.balances())[1] == []
    await house.hear([house.unmerged(0, 1, merge)])
    again = await house.picture()
    assert [each and each[:3] for each in again if each and any(each[0])] == [
        each and each[:3] for each in before if each and any(each[0])
    ]
    other = new_id()
    await house.hear([house.merged(0, 1, other)])
    await live([(verb, 1, points) for verb, _, points in between])
    assert (await house.balances())[1] == []
    spent = sum((await house.balances())[0])
    await house.hear([house.unmerged(0, 1, other)])
    points, faults = await house.balances()
    assert (sum(points), faults) == (spent, [])


async def test_erasure_leaves_a_ledger_of_nobody(stack: Stack) -> None:
    house = await home(stack)
    await house.buys(0)
    erased = told.CustomerErased(customer_id=str(house.customers[0]), operation_id=str(new_id()))
    await house.hear([house.event(erased, house.customers[0], 9)])
    await house.hear([house.event(erased, house.customers[0], 9)])
    assert await house.balances() == ([100, 0], [])
    with pytest.raises(MembershipNotFound):
        await house.redeem(0, 10)


async def test_what_was_given_away_before_stays_given(stack: Stack) -> None:
    house, merge = await home(stack), new_id()
    giver, receiver = house.customers
    await house.set(transfers_allowed=True)
    await house.buys(0)
    await house.do(lambda tx, program: ledger.transfer_points(tx, program, giver, receiver, new_id(), 30))
    before = await house.picture()
    await house.hear([house.merged(0, 1, merge)])
    await house.hear([house.unmerged(0, 1, merge)])
    assert (await house.picture(), await house.balances()) == (before, ([70, 30], []))
