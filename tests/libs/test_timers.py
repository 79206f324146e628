"""A periodic task runs in one process at a time, again when due, and after the death of whoever ran it."""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from libs import clock
from libs.leases import Lease
from libs.plumbing import timers as table
from libs.timers import Periodic, Timers, cleaning
from tests.libs.rooms import Room, becomes, eventually, running


class Counter:
    """Counts runs, and how many were at once."""

    def __init__(self) -> None:
        self.runs = self.now = self.most = 0

    async def run(self, rt: Any) -> None:
        self.runs += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.05)
        self.now -= 1

    async def count(self) -> int:
        return self.runs


async def test_of_two_processes_one_runs_it(room: Room) -> None:
    counter = Counter()
    task = Periodic("count", timedelta(seconds=0.2), counter.run)
    both = [Timers(room.db, room.name, [task], None, lease_seconds=0.6) for _ in range(2)]
    async with running(*both):
        await eventually(lambda: _at_least(counter, 3))
    assert counter.most == 1


async def test_it_is_due_again_only_after_its_time(room: Room) -> None:
    counter = Counter()
    timers = Timers(room.db, room.name, [Periodic("count", timedelta(hours=1), counter.run)], None)
    await timers.run_due()
    await timers.run_due()
    assert counter.runs == 1
    clock.shift_to(clock.now() + timedelta(hours=2))
    try:
        await timers.run_due()
    finally:
        clock.reset()
    assert counter.runs == 2


async def test_a_failure_is_tried_again_and_stops_nothing(room: Room) -> None:
    counter = Counter()

    async def fail(rt: Any) -> None:
        raise ZeroDivisionError

    hour = timedelta(hours=1)
    timers = Timers(room.db, room.name, [Periodic("a", hour, fail), Periodic("b", hour, counter.run)], None)
    await timers.run_due()
    assert counter.runs == 1
    async with room.db.worker() as tx:
        failures = {row.name: row.failures for row in await tx.execute(select(table))}
    assert failures == {"a": 1, "b": 0}


async def test_another_process_goes_on_when_the_holder_is_gone(room: Room) -> None:
    counter = Counter()
    gone = Lease(room.db, "timers", 0.5)
    assert await gone.held()  # and never renewed
    timers = Timers(room.db, room.name, [Periodic("count", timedelta(hours=1), counter.run)], None)
    async with running(timers):
        await becomes(counter.count, 1)


async def test_the_plumbing_cleans_itself(room: Room) -> None:
    await Timers(room.db, room.name, cleaning(room.db), None).run_due()
    async with room.db.worker() as tx:
        rows = (await tx.execute(select(table))).all()
    assert {row.failures for row in rows} == {0}
    assert all(row.ran_at for row in rows)


async def _at_least(counter: Counter, runs: int) -> bool:
    return counter.runs >= runs
