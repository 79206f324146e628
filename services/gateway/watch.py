"""Ends a call when its client has gone."""

import asyncio
from collections.abc import Callable

from services.gateway.exchange import Receive

# Most calls are over by then, and watching one costs more than it.
PATIENCE_SECONDS = 0.02


class Watch:
    """Calls `cancel` once the client has gone; the request's body must have been read. Stop it at the end."""

    def __init__(
        self, receive: Receive, cancel: Callable[[], object], patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.gone = False
        self._receive = receive
        self._cancel = cancel
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(patience_seconds, self._begin)

    def stop(self) -> None:
        """Watches no longer."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._cancel()
