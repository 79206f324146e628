"""The bytes of an export, as its customers are read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from services.customers.exports.walk import AT_ONCE, Walk
from services.customers.exports.writing import Writer


class Contents:
    """An export on its way: `customers` and `size` (bytes) count what is written so far, earlier pieces included."""

    def __init__(self, walk: Walk, writer: Writer, customers: int = 0, size: int = 0) -> None:
        self.customers = customers
        self.size = size
        self._walk = walk
        self._writer = writer

    async def parts(
        self,
        *,
        first: bool = True,
        most: int | None = None,
        told: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[bytes]:
        """The bytes up to the end, or until `most` customers more are written; `told` is called after each page."""
        if first:
            yield self._counted(self._writer.begin())
        until = None if most is None else self.customers + most
        async with aclosing(self._walk.pages()) as pages:  # type: ignore[type-var]  # a generator
            async for people in pages:
                for at in range(0, len(people), AT_ONCE):
                    part = self._writer.rows(people[at : at + AT_ONCE])
                    self.customers += len(people[at : at + AT_ONCE])
                    yield self._counted(part)
                    await asyncio.sleep(0)
                if told is not None:
                    await told()
                if until is not None and self.customers >= until:
                    break
        yield self._counted(self._writer.end() if self._walk.finished else self._writer.pause())

    def _counted(self, part: bytes) -> bytes:
        self.size += len(part)
        return part


async def joined(parts: AsyncIterator[bytes], least: int) -> AsyncIterator[bytes]:
    """The same bytes in parts of at least `least` bytes, but for the last one."""
    waiting = bytearray()
    async for part in parts:
        waiting += part
        if len(waiting) >= least:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)
