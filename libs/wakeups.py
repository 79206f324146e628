"""Bells between a commit and the loops of the same process, so that their polls need not be short."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


class Bell:
    """Rung after a commit; every loop that listens in this process wakes."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()

    def ring(self) -> None:
        """Wakes all listeners. Fits `Tx.after_commit`."""
        for listener in self._listeners:
            listener.set()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Gives an event that is set by each ring; the listener clears it before it looks for work."""
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)


@cache
def bell(name: str) -> Bell:
    """The bell of that name in this process ("outbox.customers", "parked", "jobs")."""
    return Bell()


async def rung_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for a ring. False if none came within `seconds`."""
    try:
        async with asyncio.timeout(seconds):  # not wait_for, which may swallow a cancellation
            await event.wait()
    except TimeoutError:
        return False
    return True
