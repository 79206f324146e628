"""kill -9 of all, while customers, orders, imports, points and households flow: what was acknowledged is there, once.

CHAOS_SECONDS makes it longer than one round of kills (`make chaos`).
"""

import asyncio
from pathlib import Path

from libs import config
from tests.chaos import house, seeing, settling
from tests.chaos.imports import CUSTOMERS, ORDERS, UNDOING
from tests.chaos.machine import CHILD, SUPERVISOR, running
from tests.chaos.storm import EVERYTHING, Round, Storm
from tests.scan.sentinels import Sentinels

SHOWN = 10
ROUNDS = (
    Round(("customers",)),  # in the middle of a rotation
    Round((CHILD,), CUSTOMERS),
    Round(("postgres",), CUSTOMERS),
    Round(("nats",)),
    Round(("loyalty",)),
    Round(("customers", "postgres"), ORDERS),
    Round((SUPERVISOR,)),
    Round(("gateway",)),
    Round(("redis",)),
    Round((CHILD,), UNDOING),
    Round(("postgres", "nats"), UNDOING),
    Round(("customers", "nats", "gateway"), UNDOING),
    Round(("loyalty", "nats")),
    Round((EVERYTHING,)),
)


async def test_what_was_acknowledged_is_there_once_whatever_is_killed(sentinels: Sentinels) -> None:
    seconds = float(config.process_environment().get("CHAOS_SECONDS", "0"))
    async with running(Path(sentinels.root), "chaos") as machine:
        at_work = await house.open_house(machine, sentinels)
        storm = Storm(machine, at_work.stack, at_work.all, at_work.imports, long=seconds > 0)
        if not storm.long:
            await settling.hurry(at_work.stack)
        async with asyncio.TaskGroup() as group:
            for work in at_work.all:
                group.create_task(work.run())
            try:
                await asyncio.gather(*(work.more(4) for work in at_work.all))
                await at_work.rotate()
                await storm.blow(ROUNDS, seconds)
            finally:
                for work in at_work.all:
                    work.stop.set()
        await machine.until_healthy()
        found = await house.found_after(at_work)
        if found:
            raise AssertionError("; ".join([*found[:SHOWN], f"{len(found)} faults in all"]))
        await seeing.every_checker_sees(at_work)
        await at_work.stack.close()
    print(at_work.told())
    assert set(storm.struck) >= set(ROUNDS)
    unhurt = [type(work).__name__ for work in at_work.all if not work.repeats]
    assert not unhurt, f"nothing of {unhurt} was interrupted at all"
