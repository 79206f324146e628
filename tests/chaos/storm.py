"""The bad luck of a stack: kill -9 of its processes, while everybody works with it."""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos import settling
from tests.chaos.imports import Imports
from tests.chaos.machine import CHILD, SUPERVISOR, Machine
from tests.chaos.work import PATIENCE_SECONDS, Work
from tests.platform import Stack

BETWEEN = 5  # calls of each workload between two kills, so that each hits a stream of them
EVERYTHING = "everything"
TRIES = 20


@dataclass(frozen=True, slots=True)
class Round:
    """Who is killed at once, and in the midst of which work of an import. Empty `during`: of any."""

    names: tuple[str, ...]
    during: str = ""


@dataclass
class Storm:
    """Kills one round after the other; `struck` is which. Each finds calls of every workload without an answer yet."""

    machine: Machine
    stack: Stack
    works: Sequence[Work]
    imports: Imports
    long: bool
    struck: list[Round] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    async def blow(self, rounds: Iterable[Round], seconds: float) -> None:
        """Kills what the rounds say, and for longer runs anything; the supervisor in between."""
        until, dice = time.monotonic() + seconds, random.Random(7)
        for each in rounds:
            await self.strike(each)
        anybody = [*self.machine.members(), CHILD]
        while time.monotonic() < until:
            if dice.random() < 0.05:
                await self.strike(Round((SUPERVISOR,)))
            await self.strike(Round(tuple(dice.sample(anybody, dice.randint(1, 4)))), certain=False)

    async def strike(self, what: Round, *, certain: bool = True) -> None:
        """Kills them at once, in the middle of the calls, and waits until calls of every kind are answered again.

        A certain strike is done again until it has hit all of them, in the midst of what it is meant for.
        """
        names = self.machine.members() if EVERYTHING in what.names else what.names
        for _ in range(TRIES):
            if what.during:
                await self.imports.until_at(what.during)
            await self._until_all_work()
            hit = not what.during or self.imports.is_at(what.during)
            killed = self.machine.kill(*names)
            if not self.long and "customers" in killed:
                await settling.free_jobs(self.stack)
            if SUPERVISOR in killed:
                await self._take_up_again()
            await asyncio.gather(*(work.more(BETWEEN) for work in self.works))
            await self.machine.until_back(killed)
            if not certain or (hit and killed.keys() == set(names)):
                self.struck.append(what)
                print(f"{time.monotonic() - self.began:6.1f} s  {'+'.join(what.names)}", flush=True)
                return
        raise AssertionError(f"{what} was never whole")

    async def _until_all_work(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not all(work.under_way for work in self.works):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def _take_up_again(self) -> None:
        """The others work on without a supervisor; `up` takes all of them down and starts again."""
        await asyncio.gather(*(work.more(BETWEEN) for work in self.works))
        await self.machine.regulars("up", "--detach")
