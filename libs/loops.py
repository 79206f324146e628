"""Ends tasks for certain."""

import asyncio
from typing import Any

AGAIN_SECONDS = 8.0


async def end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancels tasks and waits until they have ended, whatever they end with.

    Up to Python 3.11 `wait_for` (ours is not the only one: psycopg waits by it) forgets a cancellation that
    meets the awaited result, so it is repeated; after 8 s, so that a loop may finish what it has in hand.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_SECONDS)
