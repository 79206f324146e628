"""Two members who are one, in households: places and pooled points go along and come back exactly."""

import asyncio
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from libs.ids import new_id
from libs.problems import Conflict
from regulars.customers.v1 import events_pb2 as told
from services.loyalty.households import actions, queries
from services.loyalty.households.tables import household_members, households
from services.loyalty.ledger import actions as ledger
from services.loyalty.problems import InsufficientPoints, MembershipNotFound
from services.loyalty.programs.tables import programs
from tests.loyalty.test_disorder import State
from tests.loyalty.test_merges import Home, home
from tests.platform import Stack


class Family(Home):
    """A house whose program pools."""

    async def together(self, *members: int) -> UUID:
        """A household of these members."""
        household_id = new_id()

        async def make(tx: Any, program: Any) -> None:
            await actions.create_household(tx, program, self.customers[members[0]], household_id)
            first = await queries.household(tx, household_id, lock=True)
            for each in members[1:]:
                await actions.insert_member(tx, first, self.customers[each])

        await self.do(make)
        return household_id

    async def places(self) -> list[Any]:
        """Who is in which household, since when, and which are closed."""

        async def look(tx: Any, _: Any) -> list[Any]:
            m, h = household_members.c, households.c
            rows = (await tx.execute(select(household_members).where(m.tenant_id == tx.tenant_id))).all()
            found = sorted(
                (str(row.household_id), self.customers.index(row.customer_id), row.joined_at) for row in rows
            )
            closed = select(h.household_id).where(h.tenant_id == tx.tenant_id, h.closed_at.is_not(None))
            return [found, sorted((await tx.execute(closed)).scalars())]

        return list(await self.do(look))

    async def in_each(self) -> list[set[int]]:
        """The members of each household, by when it was made."""
        found: dict[str, set[int]] = {}
        for household, who, _ in (await self.places())[0]:
            found.setdefault(household, set()).add(who)
        return [found[each] for each in sorted(found)]

    async def lots(self) -> list[Any]:
        """What is left in each member's lots."""
        return [each[1] if each else [] for each in await self.picture()]

    async def release(self, who: int, hold_id: UUID) -> None:
        await self.do(lambda tx, program: ledger.release_hold(tx, program, self.customers[who], hold_id))

    async def reverse(self, who: int, spent: UUID) -> None:
        await self.do(
            lambda tx, program: ledger.reverse_redemption(tx, program, self.customers[who], spent, new_id())
        )


async def family(stack: Stack, members: int = 3) -> Family:
    made = await home(stack, members)
    made.__class__ = Family
    assert isinstance(made, Family)
    pools = update(programs).where(programs.c.business_id == made.business)
    await made.do(lambda tx, _: tx.execute(pools.values(settings={"pooling_allowed": True})))
    return made


async def test_the_survivor_takes_the_place_and_gives_it_back(stack: Stack) -> None:
    house, merge = await family(stack), new_id()
    await house.together(0, 2)
    before = await house.places()
    await house.hear([house.merged(0, 1, merge)])
    assert await house.in_each() == [{1, 2}]
    await house.hear([house.unmerged(0, 1, merge)])
    assert await house.places() == before


async def test_whoever_has_a_place_keeps_it_and_the_other_one_is_left(stack: Stack) -> None:
    house, merge = await family(stack), new_id()
    alone, _ = await house.together(0), await house.together(1, 2)
    before = await house.places()
    await house.hear([house.merged(0, 1, merge)])
    assert (await house.in_each(), (await house.places())[1]) == ([{1, 2}], [alone])
    await house.hear([house.unmerged(0, 1, merge)])
    assert await house.places() == before
    second = new_id()  # two of one household
    await house.hear([house.merged(2, 1, second)])
    assert await house.in_each() == [{0}, {1}]
    await house.hear([house.unmerged(2, 1, second)])
    assert await house.places() == before


async def test_undone_out_of_order_everybody_is_where_they_were(stack: Stack) -> None:
    house, first, second = await family(stack, 4), new_id(), new_id()
    await house.together(0, 3)
    await house.together(2)
    before = await house.places()
    await house.hear([house.merged(0, 1, first)])
    await house.hear([house.merged(1, 2, second)])
    assert await house.in_each() == [{3}, {2}]
    await house.hear([house.unmerged(0, 1, first)])
    assert await house.in_each() == [{0, 3}, {2}]
    await house.hear([house.unmerged(1, 2, second)])
    assert await house.places() == before


async def test_pooled_points_find_home_over_merges_of_both_sides(stack: Stack) -> None:
    house, merge, other = await family(stack, 4), new_id(), new_id()
    for number in range(4):  # two orders of each of the first two, 100 points each
        await house.hear(house.order(number, [State(10_000, 0, False)])[1:2])
    await house.together(0, 1)
    before = await house.lots()
    spent, held = await house.redeem(0, 250), await house.hold(0, 100)
    assert await house.balances() == ([100, 50, 0, 0], [])
    await house.hear([house.merged(0, 2, merge), house.merged(1, 3, other)])
    assert await house.in_each() == [{2, 3}]
    await house.reverse(0, spent)
    await house.release(2, held)
    assert await house.balances() == ([0, 0, 200, 200], [])
    await house.hear([house.unmerged(1, 3, other), house.unmerged(0, 2, merge)])
    assert (await house.lots(), await house.balances()) == (before, ([200, 200, 0, 0], []))


async def test_a_giver_who_turns_out_to_be_the_taker_and_is_not(stack: Stack) -> None:
    house, merge = await family(stack), new_id()
    for number in range(4):
        await house.hear(house.order(number, [State(10_000, 0, False)])[1:2])
    await house.together(0, 1)
    before = await house.lots()
    held = await house.hold(0, 300)
    await house.hear([house.merged(1, 0, merge)])
    assert await house.balances() == ([400, 0, 0], [])
    await house.hear([house.unmerged(1, 0, merge)])
    assert await house.balances() == ([300, 100, 0], [])
    await house.release(0, held)
    assert (await house.lots(), await house.balances()) == (before, ([200, 200, 0], []))


async def test_the_erased_are_in_no_household(stack: Stack) -> None:
    house = await family(stack)
    await house.together(0, 1)
    erased = told.CustomerErased(customer_id=str(house.customers[0]))
    await house.hear([house.event(erased, house.customers[0], 9)])
    assert await house.in_each() == [{1}]


async def test_points_are_spent_while_members_are_merged_and_are_not(stack: Stack) -> None:
    house = await family(stack, 4)
    for number in range(4):
        await house.hear(house.order(number, [State(10_000, 0, False)])[1:2])
    await house.together(0, 1)

    async def spend(who: int) -> int:
        done = 0
        for _ in range(6):
            try:
                await house.redeem(who, 30)
            except (Conflict, InsufficientPoints, MembershipNotFound):
                continue  # merged just now, or nothing is left
            done += 30
        return done

    async def merge() -> int:
        for source, target in ((0, 2), (1, 3), (0, 1)):
            operation = new_id()
            await house.hear([house.merged(source, target, operation)])
            await house.hear([house.unmerged(source, target, operation)])
        return 0

    spent = sum(await asyncio.gather(*(spend(who) for who in (0, 1, 0, 1)), merge()))
    points, faults = await house.balances()
    assert (sum(points) + spent, faults, await house.in_each()) == (400, [], [{0, 1}])
