"""One JSON line for each request: what was called and how it went, and nothing about a person.

The route is its template and never the path, the query or the address of the client.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import BinaryIO

import orjson

FLUSH_SECONDS = 0.1
FLUSH_BYTES = 64 << 10


class AccessLog:
    """Gathers lines and writes them some times a second; what is left at the end by `flush`."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or sys.stdout.buffer
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self, method: str, route: str, status: int, seconds: float, tenant: str | None, request_id: str
    ) -> None:
        """Adds a line."""
        line = orjson.dumps(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "level": "INFO",
                "logger": "gateway.access",
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 2),
                "tenant": tenant,
                "request_id": request_id,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size = self._lines, [], 0
        if lines:
            self._stream.write(b"".join(lines))
            self._stream.flush()
