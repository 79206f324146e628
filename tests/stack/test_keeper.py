import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from libs import config
from libs.run.stack import members
from libs.run.stack.faults import AlreadyRunning, NotHealthy, PortTaken
from libs.run.stack.health import listens
from libs.run.stack.home import Home, free_port
from libs.run.stack.keeper import Keeper
from libs.run.stack.leftovers import stop_leftovers
from libs.run.stack.process import Program, identity, spawn_apart

LISTENER = "import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"


def program(tmp_path: Path, code: str, port: int = 0) -> Program:
    async def healthy() -> bool:
        return await listens(f"127.0.0.1:{port}")

    return Program(
        name="listener",
        kind="service",
        argv=(sys.executable, "-c", code.format(port=port)),
        env={},
        cwd=tmp_path,
        log=tmp_path / "listener.log",
        address=f"127.0.0.1:{port}",
        healthy=healthy,
        grace_seconds=5,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 – another process does it
            await asyncio.sleep(0.02)


async def test_a_program_that_dies_is_started_again_and_counted(tmp_path: Path) -> None:
    said: list[str] = []
    keeper = Keeper(program(tmp_path, LISTENER, free_port(set())), lambda: None, said.append)
    keeper.start()
    await keeper.until_healthy()
    first = keeper.facts()["pid"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: keeper.facts()["pid"] not in (None, first))
    facts = keeper.facts()
    await keeper.stop()
    assert (facts["restarts"], facts["last_exit"]) == (1, -signal.SIGKILL)
    assert said == ["listener died (signal 9); starting it again."]
    assert not identity(facts["pid"]).alive()


async def test_a_program_that_cannot_start_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    keeper = Keeper(program(tmp_path, "raise SystemExit('no such thing {port}')"), lambda: None, print)
    keeper.start()
    with pytest.raises(NotHealthy, match=r"(?s)died 3 times.*no such thing"):
        await keeper.until_healthy()
    await keeper.stop()


async def test_a_program_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LISTENER
    said: list[str] = []
    stubborn = program(tmp_path, deaf, free_port(set()))
    keeper = Keeper(replace(stubborn, grace_seconds=0.2), lambda: None, said.append)
    keeper.start()
    await keeper.until_healthy()
    pid = keeper.facts()["pid"]
    await keeper.stop()
    assert not identity(pid).alive()
    assert "was killed" in said[0]


async def test_children_of_a_killed_supervisor_are_found_and_stopped(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    child = spawn_apart(program(tmp_path, LISTENER, free_port(set())))
    facts = {"kind": "service", "stop_signal": 15, "grace_seconds": 5}
    reused = {**facts, "pid": os.getpid(), "started": "long ago"}  # our id, but another process
    children = {"listener": {**facts, "pid": child.pid, "started": child.started}, "other": reused}
    home.write_run({"supervisor": {"pid": 1, "started": "x"}, "children": children})
    assert await stop_leftovers(home, lambda _: None) == 1
    assert not child.alive()
    assert home.read_run() == {}


def test_one_supervisor_holds_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    lock = home.hold()
    with pytest.raises(AlreadyRunning):
        home.hold()
    assert home.held()
    lock.close()
    assert not home.held()


def test_a_taken_port_is_named_with_the_variable_that_moves_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taker:
        port = taker.getsockname()[1]
        settings = config.Settings(home=tmp_path, port=port, grpc_port=0)
        with pytest.raises(PortTaken, match=f"port {port} .*REGULARS_PORT"):
            members.check_ports(settings, ["gateway"])


def test_a_log_that_has_grown_is_set_aside(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    log = home.log_file("customers")
    log.write_bytes(b"x" * 10_000_001)
    assert home.log_file("customers").stat().st_size == 0
    assert (home.logs / "customers.log.1").stat().st_size == 10_000_001
