"""Referrals when much happens at once, in any order, again and again; and when two customers are one."""

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from libs.caller import acting_as
from libs.envelope import Event
from libs.ids import new_id
from libs.inbox import NotYet
from libs.instants import stamp
from regulars.customers.v1 import events_pb2 as told
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_ACTIVE
from services.loyalty.merges import actions as merges
from services.loyalty.programs import actions as programs
from services.loyalty.programs import queries as programs_queries
from services.loyalty.referrals import actions, jobs, queries, rules
from services.loyalty.referrals.tables import referral_codes, referrals
from tests.loyalty.members import until
from tests.loyalty.test_disorder import BEGIN, State
from tests.loyalty.test_merges import Home
from tests.platform import Stack

TERMS = {
    "enabled": True,
    "referrer_points": 500,
    "friend_points": 200,
    "qualify_days": 3_000,
    "same_contact": "REFERRAL_VERDICT_ALLOW",
    "same_address": "REFERRAL_VERDICT_ALLOW",
}
SLOW = 10_000  # minor units of an order: 100 points


class Circle(Home):
    """A house whose first member brings the others."""

    code = ""

    async def promise(self, **terms: Any) -> None:
        async def act(tx: Any, program: Any) -> str:
            row = await programs_queries.row(tx, program.program_id, lock=True)
            await programs.update_program(tx, row, {"settings": {"referrals": TERMS | terms}}, "")
            return await self.own_code(tx, 0)

        self.code = await self.do(act)

    async def own_code(self, tx: Any, who: int) -> str:
        (row,) = await programs_queries.of_business(tx, self.business)
        return await actions.own_code(tx, programs_queries.program_of(row), self.customers[who])

    def coming(self, who: int, code: str = "") -> Event[Any]:
        message = told.CustomerCreated(
            customer_id=str(self.customers[who]),
            business_id=str(self.business),
            status=CUSTOMER_STATUS_ACTIVE,
            joined_at=stamp(BEGIN),
            referral_code=code or self.code,
        )
        return self.event(message, self.customers[who], 1)

    def buying(self, who: int, *states: State) -> list[Event[Any]]:
        """The events of an order that a member places on the next day."""
        events = self.order(1, states or [State(SLOW, 0, False)])
        for event in events:
            event.message.order.customer_id = str(self.customers[who])
        return events

    async def comes(self, *others: int, code: str = "") -> None:
        await self.hear([self.coming(who, code) for who in others])

    async def spends(self, who: int, *states: State) -> None:
        await self.hear(self.buying(who, *states))

    async def settled(self) -> None:
        """All that is due is judged, by several at once."""

        async def one() -> bool:
            with acting_as(self.caller):
                async with self.loyalty.db.read() as tx:
                    found = await queries.due(tx, 100)
                random.Random(3).shuffle(found)
                await jobs._look_at(self.loyalty, found)
                return bool(found)

        while any(await asyncio.gather(*(one() for _ in range(4)))):
            pass

    async def rows(self) -> list[tuple[int, str]]:
        """State and reason of all referrals, in the order of their coming."""

        async def look(tx: Any, _: Any) -> list[tuple[int, str]]:
            r = referrals.c
            wanted = select(r.state, r.reason).where(r.tenant_id == tx.tenant_id).order_by(r.referral_id)
            return [(row.state, row.reason) for row in await tx.execute(wanted)]

        found: list[tuple[int, str]] = await self.do(look)
        return found

    async def points(self) -> list[int]:
        points, faults = await self.balances()
        assert faults == []
        return points


async def circle(stack: Stack, friends: int = 1, **terms: Any) -> Circle:
    found = Circle(stack)
    found.customers = [new_id() for _ in range(friends + 1)]
    business, first = found.beginning()[:2]
    await found.hear([business, first])
    await found.promise(**terms)
    return found


async def test_twenty_friends_at_once_and_a_limit_of_one(stack: Stack) -> None:
    of = await circle(stack, 20, limit=1)
    await of.comes(*range(1, 21))
    await of.hear([event for who in range(1, 21) for event in of.buying(who)])
    await of.settled()
    assert sorted(await of.rows()) == [(rules.REWARDED, ""), *[(rules.REFUSED, "LIMIT_REACHED")] * 19]
    points = await of.points()
    assert (points[0], sorted(points[1:])) == (500, [*[100] * 19, 300])


async def test_a_limit_by_period_and_a_circle(stack: Stack) -> None:
    of = await circle(stack, 3, limit_per_period=2)
    await of.comes(1)
    code = await of.do(lambda tx, _: of.own_code(tx, 1))
    await of.comes(2, code=code)
    code = await of.do(lambda tx, _: of.own_code(tx, 2))
    await of.settled()
    await of.comes(0, code=code)  # joins once more: whom they brought has brought another one
    await of.comes(3)
    for who in (1, 3):
        await of.spends(who)
    await of.settled()
    await of.comes(0, code=of.code)  # the first bringing counts
    assert await of.rows() == [
        (rules.REWARDED, ""),
        (rules.REGISTERED, ""),
        (rules.REFUSED, "CIRCULAR"),
        (rules.REWARDED, ""),
    ]
    assert await of.points() == [1_000, 300, 0, 300]


async def test_the_same_events_a_hundred_times_in_any_order(stack: Stack) -> None:
    of = await circle(stack, 2)
    lives = {1: [State(SLOW, 0, False)], 2: [State(SLOW, 0, False), State(SLOW, SLOW, False)]}
    events = [of.coming(who) for who in lives]
    events += [event for who, states in lives.items() for event in of.buying(who, *states)]
    chance = random.Random(5)

    async def consumer() -> None:
        for _ in range(2):
            for event in chance.sample(events, len(events)):
                try:
                    await of.hear([event])  # an order may come before its member
                except NotYet:
                    continue
        for _ in range(23):
            await of.hear(chance.sample(events, len(events)))

    await asyncio.gather(*(consumer() for _ in range(4)))
    await of.settled()
    states = set(await of.rows())
    # The one whose order was returned may have been rewarded in between.
    assert states in ({(rules.REWARDED, ""), (end, "")} for end in (rules.REGISTERED, rules.REVOKED))
    assert await of.points() == [500, 300, 0]


async def test_who_is_their_own_friend_brings_nobody_until_the_merge_is_undone(stack: Stack) -> None:
    of, merge = await circle(stack, 2), new_id()
    await of.comes(1, 2)
    await of.settled()
    await of.hear([of.merged(1, 0, merge)])
    await of.spends(1)
    await of.settled()
    assert await of.rows() == [(rules.VOIDED, "MERGED"), (rules.REGISTERED, "")]
    assert (await of.points())[0] == 100
    await of.hear([of.unmerged(1, 0, merge)])
    await of.settled()
    assert await of.rows() == [(rules.REGISTERED, ""), (rules.REGISTERED, "")]
    await of.spends(1)
    await of.spends(2)
    await of.settled()
    assert await of.rows() == [(rules.REWARDED, ""), (rules.REWARDED, "")]
    assert sorted((await of.points())[1:]) == [300, 300]


async def test_points_for_a_friend_go_with_a_merge_and_are_taken_back_after_it(stack: Stack) -> None:
    of, merge = await circle(stack, 2), new_id()
    await of.comes(1)
    await of.hear([of.beginning()[3]])
    order = of.buying(1, State(SLOW, 0, False), State(SLOW, SLOW, False))
    await of.hear(order[:4])
    await of.settled()
    assert await of.points() == [500, 300, 0]
    await of.hear([of.merged(0, 2, merge)])
    await of.hear(order[4:])
    await of.settled()
    assert await of.rows() == [(rules.REVOKED, "")]
    assert await of.points() == [0, 0, 0]
    await of.hear([of.unmerged(0, 2, merge)])
    await of.settled()
    assert await of.points() == [0, 0, 0]


async def test_a_second_bringing_by_merge_counts_once(stack: Stack) -> None:
    of, merge = await circle(stack, 3), new_id()
    await of.hear([of.beginning()[2]])
    code = await of.do(lambda tx, _: of.own_code(tx, 1))
    await of.comes(2)
    await of.comes(3, code=code)
    await of.settled()
    await of.hear([of.merged(3, 2, merge)])
    await of.spends(2)
    await of.settled()
    assert await of.rows() == [(rules.REWARDED, ""), (rules.VOIDED, "MERGED")]
    await of.hear([of.unmerged(3, 2, merge)])
    await of.spends(3)
    await of.settled()
    assert await of.rows() == [(rules.REWARDED, ""), (rules.REWARDED, "")]
    assert await of.points() == [500, 500, 300, 300]


async def test_an_erasure_takes_people_out_and_ends_what_is_open(stack: Stack) -> None:
    of = await circle(stack, 2)
    await of.comes(1, 2)
    order = of.buying(1, State(SLOW, 0, False), State(SLOW, SLOW, False))
    await of.hear(order[:4])
    await of.settled()
    await of.do(lambda tx, _: merges.erase(tx, of.customers[0]))
    assert await of.rows() == [(rules.REWARDED, ""), (rules.VOIDED, "ERASED")]

    async def named(tx: Any, _: Any) -> set[UUID]:
        r, c = referrals.c, referral_codes.c
        wanted = select(r.referrer_id, r.friend_id, r.order_id).where(r.tenant_id == tx.tenant_id)
        codes = select(c.customer_id).where(c.tenant_id == tx.tenant_id)
        people = {each for row in await tx.execute(wanted) for each in row if each}
        return people | set((await tx.execute(codes)).scalars())

    assert of.customers[0] not in await of.do(named)
    await of.comes(1, 2, code=of.code)  # a late echo finds no code
    await of.hear(order[4:])
    await of.settled()
    assert (await of.rows())[0] == (rules.REVOKED, "")
    await of.do(lambda tx, _: merges.erase(tx, of.customers[1]))
    assert await of.do(named) == {of.customers[2]}


async def test_time_runs_out(stack: Stack) -> None:
    of = await circle(stack, 2, qualify_days=1)
    await of.comes(1, 2)
    late = of.buying(1)
    for event in late:
        event.message.order.completed_at.CopyFrom(stamp(BEGIN + timedelta(days=2)))
    await of.hear(late)
    await of.settled()
    assert await of.rows() == [(rules.EXPIRED, "")] * 2
    assert await of.points() == [0, 100, 0]


async def test_one_that_waits_for_its_review_is_not_rewarded_by_what_comes_late(stack: Stack) -> None:
    of = await circle(stack, 2, same_address="REFERRAL_VERDICT_REVIEW")
    await of.comes(1, 2)

    async def flag(tx: Any, _: Any) -> list[UUID]:
        r = referrals.c
        rows = (await tx.execute(select(r.referral_id, r.version).with_for_update())).all()
        for row in rows:
            await actions.settle(tx, row.referral_id, row.version, frozenset({rules.ADDRESS}))
        return [row.referral_id for row in rows]

    found = await of.do(flag)
    await of.spends(1)

    async def looked_at(tx: Any, _: Any) -> None:
        """By one who chose them while they were open."""
        await actions.look_again(tx, found)
        due = update(referrals).where(referrals.c.tenant_id == tx.tenant_id)
        await tx.execute(due.values(due_at=tx.now))  # as it was marked by those of before

    await of.do(looked_at)
    await of.settled()
    assert await of.rows() == [(rules.FLAGGED, "SAME_ADDRESS")] * 2
    assert await of.points() == [0, 100, 0]


async def test_one_that_cannot_be_judged_keeps_no_other_from_it(stack: Stack) -> None:
    async def spoil(tx: Any, _: Any) -> None:
        r = referrals.c
        first = await tx.scalar(select(r.referral_id).order_by(r.referral_id).limit(1))
        await tx.execute(update(referrals).where(r.referral_id == first).values(registered_at=None))

    houses = [await circle(stack, 2) for _ in range(2)]
    for of in houses:
        await of.comes(1, 2)
        await of.do(spoil)
        await of.hear([*of.buying(1), *of.buying(2)])
    for of in houses:

        async def rewarded(of: Circle = of) -> bool:
            await jobs.keep_referrals(stack.runtimes["loyalty"])
            return sorted(await of.rows()) == [(rules.REGISTERED, ""), (rules.REWARDED, "")]

        await until(rewarded)
