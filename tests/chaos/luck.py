"""The bad luck of a stack: kill -9 of its processes, while somebody works with it."""

import random
import time
from collections.abc import Sequence
from typing import Protocol

from tests.chaos.machine import SUPERVISOR, Machine

BETWEEN = 30  # calls between two kills, so that each hits a stream of them


class Work(Protocol):
    """Clients at work."""

    async def more(self, count: int, seconds: float = 90) -> None:
        """Waits until so many more calls were acknowledged."""


async def bad_luck(machine: Machine, work: Work, rounds: Sequence[Sequence[str]], seconds: float) -> None:
    """Kills what the rounds say, and for longer runs anything; the supervisor in between."""
    until, dice = time.monotonic() + seconds, random.Random(7)
    members = machine.members()
    for names in rounds:
        if SUPERVISOR in names:
            await lose_supervisor(machine, work)
        else:
            await strike(machine, work, members if "everything" in names else names)
    while time.monotonic() < until:
        await strike(machine, work, dice.sample(members, dice.randint(1, 4)))
        if dice.random() < 0.1:
            await lose_supervisor(machine, work)


async def strike(machine: Machine, work: Work, names: Sequence[str]) -> None:
    """Kills them at once, in the middle of the calls, and waits until calls are answered again."""
    killed = machine.kill(*names)
    await work.more(BETWEEN)
    await machine.until_back(killed)


async def lose_supervisor(machine: Machine, work: Work) -> None:
    """The others work on without it; `up` takes all of it down and starts again."""
    machine.kill(SUPERVISOR)
    await work.more(BETWEEN)
    await machine.regulars("up", "--detach")
    await work.more(BETWEEN)
    await machine.until_healthy()
