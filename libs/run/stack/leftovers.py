"""What a supervisor left behind that was killed: found by process id and start time, and stopped."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Any

from libs.run.stack.home import Home
from libs.run.stack.process import Identity, stop


def child(facts: Mapping[str, Any]) -> Identity:
    """The process that a child's entry in run.json names; not alive if it has none."""
    return Identity(facts["pid"] or 0, facts["started"])


async def stop_leftovers(home: Home, say: Callable[[str], None]) -> int:
    """Stops the children of a dead supervisor, services before servers; gives how many there were."""
    children: dict[str, dict[str, Any]] = home.read_run().get("children", {})
    alive = {name: facts for name, facts in children.items() if child(facts).alive()}
    if alive:
        say(f"Stopping what an earlier stack left running: {', '.join(alive)}.")
    for kind in ("service", "server"):
        group = [facts for facts in alive.values() if facts["kind"] == kind]
        await asyncio.gather(
            *(
                stop(child(facts), signal.Signals(facts["stop_signal"]), facts["grace_seconds"])
                for facts in group
            )
        )
    home.clear_run()
    return len(alive)
