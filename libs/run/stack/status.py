"""What runs in a home directory, asked from outside, and how to stop it."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from libs.run.stack.health import grpc_serving, http_ready, listens
from libs.run.stack.home import Home
from libs.run.stack.leftovers import child, stop_leftovers
from libs.run.stack.process import Identity, gone

STOP_SECONDS = 90


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a stack. `state` is healthy, unhealthy or restarting; `up_seconds` since its start."""

    name: str
    kind: str
    state: str
    address: str
    pid: int | None
    up_seconds: int
    restarts: int
    last_exit: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """A stack as a whole. `phase` is starting, ready, stopping, orphaned (no supervisor) or stopped."""

    phase: str
    home: str
    supervisor: int | None
    members: tuple[Member, ...]

    def healthy(self) -> bool:
        """Whether all of it works."""
        return self.phase == "ready" and all(member.state == "healthy" for member in self.members)

    def as_json(self) -> dict[str, Any]:
        """The same for scripts."""
        return {**asdict(self), "healthy": self.healthy()}


async def status(home: Home) -> Status:
    """What runs now; every member is asked for its health."""
    run = home.read_run()
    if not run:
        return Status("starting" if home.held() else "stopped", str(home.root), None, ())
    members = await asyncio.gather(*(_member(name, facts) for name, facts in run["children"].items()))
    supervisor = Identity(**run["supervisor"])
    if supervisor.alive():
        return Status(run["phase"], str(home.root), supervisor.pid, tuple(members))
    orphans = any(child(facts).alive() for facts in run["children"].values())
    return Status(
        "orphaned" if orphans else "stopped", str(home.root), None, tuple(members) if orphans else ()
    )


async def down(home: Home, say: Callable[[str], None]) -> bool:
    """Stops the stack, or what a killed supervisor left; gives whether there was anything to stop."""
    run = home.read_run()
    if not run:
        return False
    supervisor = Identity(**run["supervisor"])
    if not supervisor.alive():
        return await stop_leftovers(home, say) > 0
    supervisor.signal(signal.SIGTERM)
    if not await gone(supervisor, STOP_SECONDS):
        supervisor.signal(signal.SIGKILL)
        await gone(supervisor, 10)
        await stop_leftovers(home, say)
    return True


async def _member(name: str, facts: dict[str, Any]) -> Member:
    who = child(facts)
    state = "restarting"
    if who.alive():
        state = "healthy" if await _healthy(facts["kind"], facts["address"]) else "unhealthy"
    return Member(
        name=name,
        kind=facts["kind"],
        state=state,
        address=facts["address"],
        pid=who.pid or None,
        up_seconds=int(time.time() - facts["since"]) if who.alive() else 0,
        restarts=facts["restarts"],
        last_exit=facts["last_exit"],
    )


async def _healthy(kind: str, address: str) -> bool:
    if kind == "server":
        return await listens(address)
    if address.startswith("http"):
        return await http_ready(address + "/readyz")
    return await grpc_serving(address)
