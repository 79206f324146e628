"""A whole stack of real processes that can be killed, in a directory that the scan at the end looks into."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from libs import config
from libs.run.stack import servers, status
from libs.run.stack.home import Home, free_port
from libs.run.stack.process import Identity, identity
from tests.platform import Stack
from tests.scan.at_the_end import patterns_of
from tests.scan.scanning import Report, scan_redis
from tests.scan.sentinels import Sentinels
from tests.stack.test_up import first_of_free_ports

SUPERVISOR = "supervisor"
CHILD = "child"  # the process of an import, which is no member of the stack
GRACE_SECONDS = 4  # long enough that a kill hits a rotation under way


@dataclass
class Machine:
    """The stack in `home`, as an operator with a bad hand sees it."""

    home: Home
    env: dict[str, str]

    async def regulars(self, *arguments: str) -> str:
        """Runs the command; gives what it printed. Fails if the command does."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "libs.run.cli", *arguments),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, f"regulars {arguments}: {err.decode()}"
        return out.decode()

    def members(self) -> list[str]:
        """Names of all processes but the supervisor and the children of services."""
        return list(self.home.read_run()["children"])

    def children(self) -> list[int]:
        """Process ids of the imports that it does."""
        parent = self.home.read_run()["children"]["customers"]["pid"]
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and b"imports.child" in (entry / "cmdline").read_bytes()
                    and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
                ):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def kill(self, *names: str) -> dict[str, Identity]:
        """kill -9, all at once; gives who they were. One that is not there just now is left out."""
        run: dict[str, Any] = self.home.read_run()
        killed = {}
        for pid in self.children() if CHILD in names else ():
            killed[CHILD] = identity(pid)
        for name in names:
            facts = run["supervisor"] if name == SUPERVISOR else run["children"].get(name, {})
            if facts.get("pid"):
                killed[name] = Identity(facts["pid"], facts["started"])
        for who in killed.values():
            who.signal(signal.SIGKILL)
        return killed

    async def until_back(self, killed: Mapping[str, Identity], seconds: float = 60) -> None:
        """Waits until each of the killed runs again, healthy or not."""
        async with asyncio.timeout(seconds):
            for name, who in killed.items():
                if name in {SUPERVISOR, CHILD}:
                    continue
                while self.home.read_run()["children"][name]["pid"] in {None, who.pid}:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    async def until_healthy(self, seconds: float = 120) -> None:
        """Waits until all of it works."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := await status.status(self.home)).healthy():  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        except TimeoutError:
            sick = {member.name: member.state for member in found.members if member.state != "healthy"}
            raise AssertionError(f"not healthy after {seconds} s: {found.phase} {sick}") from None

    def stack(self) -> Stack:
        """What tests talk to it with. Holds for as long as the servers keep their ports."""
        given = {name: value for name, value in self.env.items() if name.startswith("REGULARS_")}
        settings = config.load(config.Settings, None, given)
        found = servers.of_running_stack(settings, self.home)
        settings = replace(settings, nats_url=found["REGULARS_NATS_URL"])
        return Stack(given, settings, found["REGULARS_POSTGRES_URL"], {})

    def redis_url(self) -> str:
        """Its Redis, "" without one."""
        settings = config.load(config.Settings, None, {"REGULARS_HOME": str(self.home.root)})
        return servers.of_running_stack(settings, self.home).get("REGULARS_REDIS_URL", "")


@asynccontextmanager
async def running(root: Path, name: str) -> AsyncIterator[Machine]:
    """A stack in the directory of the test run, stopped afterwards; its files stay for the scan.

    `name` is one of `tests.scan.at_the_end.STACKS`.
    """
    inherited = config.process_environment()
    home = root / name
    home.mkdir(mode=0o711)
    temporary = home / "tmp"
    temporary.mkdir()
    env = {name: value for name, value in inherited.items() if not name.startswith("REGULARS_")} | {
        "PYTHONPATH": os.pathsep.join((str(config.ROOT), str(config.ROOT / "gen"))),
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "",  # who was killed is up again sooner
        "REGULARS_HOME": str(home),
        "REGULARS_PORT": str(free_port(set())),
        "REGULARS_GRPC_PORT": str(first_of_free_ports(20)),
        "REGULARS_LOG_LEVEL": "DEBUG",
        "REGULARS_RATE_LIMIT_TENANT": "0",
        "REGULARS_RATE_LIMIT_CLIENT": "0",
        "REGULARS_KEY_GRACE_SECONDS": str(GRACE_SECONDS),
        "REGULARS_DRAIN_SECONDS": "2",
    }
    machine = Machine(Home(home), env)
    try:
        await machine.regulars("up", "--detach")
        yield machine
        if url := machine.redis_url():  # it keeps nothing on disk, so it is looked at while it runs
            report = Report()
            scan_redis(report, url, patterns_of(Sentinels(root)))
            assert not report.hits
    finally:
        await machine.regulars("down")
