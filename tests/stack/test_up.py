"""`regulars up` as its user knows it: real processes, a real crash, a clean end."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs import config
from libs.run.stack import postgres, status
from libs.run.stack.home import Home, free_port
from libs.run.stack.process import identity


class Regulars:
    """The command, in a home of its own."""

    def __init__(self, home: Path, port: int, grpc_port: int) -> None:
        self.home = Home(home)
        self.rest = f"http://127.0.0.1:{port}"
        inherited = config.process_environment()
        kept = {name: value for name, value in inherited.items() if not name.startswith("REGULARS_")}
        self._env = kept | {
            "PYTHONPATH": f"{config.ROOT}:{config.ROOT / 'gen'}",
            "REGULARS_HOME": str(home),
            "REGULARS_PORT": str(port),
            "REGULARS_GRPC_PORT": str(grpc_port),
        }

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "libs.run.cli", *arguments),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def until(self, condition: Callable[[status.Status], bool]) -> status.Status:
        """Waits for a state of the stack."""
        async with asyncio.timeout(90):
            while not condition(found := await status.status(self.home)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return found


def first_of_free_ports(count: int) -> int:
    """The first of ports in a row that were free a moment ago."""
    from libs.run.stack.home import port_is_free

    while True:
        first = free_port(set())
        if first + count < 65_000 and all(port_is_free("127.0.0.1", first + n) for n in range(count)):
            return first


@pytest.fixture
async def regulars(tmp_path: Path) -> AsyncIterator[Regulars]:
    found = Regulars(tmp_path / "home", free_port(set()), first_of_free_ports(20))
    yield found
    await found("down")
    postgres.discard(found.home)


async def test_up_recover_down(regulars: Regulars) -> None:
    code, _, told = await regulars("up", "--detach")
    assert code == 0, told
    assert f"{regulars.rest}/docs" in told

    code, out, _ = await regulars("status", "--json")
    shown: dict[str, Any] = json.loads(out)
    assert (code, shown["healthy"], shown["phase"]) == (0, True, "ready")
    assert {"postgres", "nats", *config.SERVICES} <= {member["name"] for member in shown["members"]}

    code, _, told = await regulars("up")
    assert (code, "already running" in told) == (3, True)

    code, _, told = await regulars("tenant", "create", "demo")
    assert code == 0, told
    code, out, _ = await regulars("token", "--tenant", "demo", "--role", "owner")
    assert code == 0
    headers = {"authorization": f"Bearer {out.splitlines()[-1]}"}
    async with httpx.AsyncClient(base_url=regulars.rest, headers=headers, trust_env=False) as client:
        assert (await client.get("/api/v1/businesses")).status_code == 200

    pids = {member["name"]: member["pid"] for member in shown["members"]}
    for name in ("loyalty", "postgres"):
        os.kill(pids[name], signal.SIGKILL)
    after = await regulars.until(
        lambda now: now.healthy() and sum(member.restarts for member in now.members) >= 2
    )
    restarted = {member.name for member in after.members if member.restarts}
    assert restarted == {"loyalty", "postgres"}

    os.kill(shown["supervisor"], signal.SIGKILL)
    orphaned = await regulars.until(lambda now: now.phase == "orphaned")
    assert (await regulars("status"))[0] == 1
    children = [identity(member.pid) for member in orphaned.members if member.pid]
    code, _, told = await regulars("down")
    assert (code, "left running" in told) == (0, True)
    assert not any(child.alive() for child in children)
    assert (await regulars("status"))[0] == 3


async def test_commands_without_a_stack_say_so(regulars: Regulars) -> None:
    for command in (["migrate"], ["events", "dead-letters"], ["tenant", "create", "demo"]):
        code, out, told = await regulars(*command)
        assert (code, out) == (3, ""), command
        assert "regulars up" in told
    code, _, told = await regulars("token", "--role", "emperor")
    assert code == 2
    assert "emperor" in told
