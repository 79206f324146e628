"""Processes that outlive whoever started them: an identity that survives, and stops that do not hang."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for certain: its id and the instant it started, since ids are used again."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return self.started != "" and start_of(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process is still there."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How to run one member of the stack.

    `healthy` answers whether it does its work now; `uid` is the user and group that it becomes, for programs
    that refuse to run as root; `stop_signal` is how it stops in good order within `grace_seconds`.
    """

    name: str
    kind: Literal["server", "service"]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    address: str
    healthy: Callable[[], Awaitable[bool]]
    uid: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 20


def start_of(pid: int) -> str:
    """When process `pid` started, in a form that is only good for comparing; empty if it does not run."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(  # noqa: S603
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 – systems without /proc
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    state, _, started = shown.partition(" ")
    return "" if state.startswith("Z") else started.strip()


def identity(pid: int) -> Identity:
    """The identity of a process that runs now."""
    return Identity(pid, start_of(pid))


async def spawn(program: Program) -> asyncio.subprocess.Process:
    """Starts a program in a session of its own (Ctrl-C does not reach it); its log grows by what it says."""
    with program.log.open("ab") as out:
        return await asyncio.create_subprocess_exec(*program.argv, **_manner(program, out))


def spawn_apart(program: Program) -> Identity:
    """The same for a program that may outlive this event loop and this process."""
    with program.log.open("ab") as out:
        return identity(subprocess.Popen(program.argv, **_manner(program, out)).pid)  # noqa: S603


def _manner(program: Program, out: IO[bytes]) -> dict[str, Any]:
    return {
        "env": dict(program.env),
        "cwd": program.cwd,
        "stdin": subprocess.DEVNULL,
        "stdout": out,
        "stderr": subprocess.STDOUT,
        "start_new_session": True,
        "user": program.uid,
        "group": program.uid,
        "extra_groups": None if program.uid is None else [],
    }


async def stop(who: Identity, how: signal.Signals, grace_seconds: float) -> bool:
    """Asks a process to stop, kills it after `grace_seconds`; gives whether it went by itself."""
    who.signal(how)
    if await gone(who, grace_seconds):
        return True
    who.signal(signal.SIGKILL)
    await gone(who, 10)
    return False


async def gone(who: Identity, seconds: float) -> bool:
    """Waits until a process (that need not be a child) has ended."""
    deadline = asyncio.get_running_loop().time() + seconds
    while who.alive():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
