"""Loops that outlive their crashes: logged, started again after a pause, and shown in the readiness."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from libs import outages
from libs.probes import Readiness

log = logging.getLogger(__name__)

STEADY_SECONDS = 60.0  # after which a loop's earlier crashes are forgotten
LONGEST_PAUSE = 30.0


class Loop(Protocol):
    """Something that runs until cancelled. `error` says what is wrong with it now."""

    error: str | None

    async def run(self) -> None:
        """Runs."""


async def supervised(name: str, run: Callable[[], Awaitable[object]], readiness: Readiness) -> None:
    """Runs `run` for good: when it raises or returns, again."""
    crashes = 0
    while True:
        began = time.monotonic()
        try:
            await run()
            fault = "ended"
            log.error("a loop ended by itself", extra={"loop": name})
        except Exception as error:  # one of the loops: it outlives every failure
            fault = type(error).__name__
            log.error("a loop crashed", exc_info=error, extra={"loop": name})
        if time.monotonic() - began > STEADY_SECONDS:
            crashes = 0
        crashes += 1
        readiness.set(name, f"crashed: {fault}", bearable=True)
        await asyncio.sleep(outages.delay_seconds(crashes, 0.2, LONGEST_PAUSE))
        readiness.set(name, None)
