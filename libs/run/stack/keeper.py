"""Keeps one program of a stack running: starts it, starts it again when it dies, stops it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from libs.run.stack.faults import NotHealthy
from libs.run.stack.process import Identity, Program, identity, spawn, stop

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0
# A program that ran this long was well: its next death is a new story.
WELL_SECONDS = 60.0
DEATHS_AT_START = 3
START_SECONDS = 90.0
POLL_SECONDS = {"server": 0.05, "service": 0.25}


class Keeper:
    """One program under care. `changed` is called whenever what `facts` says has changed."""

    def __init__(self, program: Program, changed: Callable[[], None], say: Callable[[str], None]) -> None:
        self.program = program
        self.restarts = 0
        self._changed = changed
        self._say = say
        self._who: Identity | None = None
        self._since = 0.0
        self._last_exit: int | None = None
        self._stopping = False
        self._started_once = False
        self._deaths = 0
        self._task: asyncio.Task[None] | None = None

    def facts(self) -> dict[str, Any]:
        """What `status` and a later start need to know. `since` is in epoch seconds."""
        return {
            "kind": self.program.kind,
            "address": self.program.address,
            "pid": self._who.pid if self._who else None,
            "started": self._who.started if self._who else "",
            "stop_signal": int(self.program.stop_signal),
            "grace_seconds": self.program.grace_seconds,
            "since": self._since,
            "restarts": self.restarts,
            "last_exit": self._last_exit,
        }

    def start(self) -> None:
        """Starts the program and the care of it."""
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def until_healthy(self) -> None:
        """Waits for the program's first health. Raises NotHealthy when it dies three times or takes 90 s."""
        deadline = time.monotonic() + START_SECONDS
        while not (self._who and await self.program.healthy()):
            if self._task and self._task.done():
                await self._task
            if self._deaths >= DEATHS_AT_START:
                raise NotHealthy(
                    f"{self.program.name} died {self._deaths} times (last exit code {self._last_exit}).\n"
                    + self.last_words()
                )
            if time.monotonic() > deadline:
                what = f"{self.program.name} was not healthy after {START_SECONDS:.0f} s."
                raise NotHealthy(f"{what}\n{self.last_words()}")
            await asyncio.sleep(POLL_SECONDS[self.program.kind])
        self._started_once = True

    def last_words(self, lines: int = 12) -> str:
        """The end of the program's log, and where the rest is."""
        text = self.program.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([*(f"    {line}" for line in text), f"  (from {self.program.log})"])

    async def stop(self) -> None:
        """Stops the program in good order."""
        self._stopping = True
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._who and not await stop(self._who, self.program.stop_signal, self.program.grace_seconds):
            self._say(
                f"{self.program.name} did not stop in {self.program.grace_seconds:.0f} s and was killed."
            )
        self._who = None
        self._changed()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            process = await spawn(self.program)
            self._who, self._since = identity(process.pid), time.time()
            self._changed()
            self._last_exit = await process.wait()
            self._who = None
            self.restarts += 1
            self._deaths += 1
            if time.time() - self._since > WELL_SECONDS:
                pause = FIRST_PAUSE
            self._changed()
            if self._started_once:
                self._say(f"{self.program.name} died ({_how(self._last_exit)}); starting it again.")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
