"""Whether a service lives and is ready, and its metrics, over a small HTTP port of its own."""

import asyncio
import logging
from collections.abc import Callable

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)

READ_SECONDS = 5.0
MAX_HEAD = 8192
_PHRASES = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Readiness:
    """The parts that a service needs, each with what is wrong with it, if anything.

    It is ready when nothing is wrong but what it can bear: reads go on without NATS, and all without Redis.
    """

    def __init__(self, *parts: str) -> None:
        self._faults: dict[str, str | None] = dict.fromkeys(parts, "starting")
        self._borne: set[str] = set()
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def ready(self) -> bool:
        """True if no part is wrong that must not be."""
        return all(fault is None or part in self._borne for part, fault in self._faults.items())

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong, by part."""
        return {part: fault for part, fault in self._faults.items() if fault}

    def set(self, part: str, fault: str | None, *, bearable: bool = False) -> None:
        """Says what is wrong with a part; None: nothing. What is `bearable` is shown and no more."""
        before = self.ready
        if self._faults.get(part) != fault:
            level = logging.INFO if fault is None else logging.WARNING
            log.log(level, "readiness", extra={"part": part, "fault": fault})
        self._faults[part] = fault
        (self._borne.add if bearable else self._borne.discard)(part)
        if self.ready != before:
            for listener in self._listeners:
                listener(self.ready)

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Calls `listener` with the new state at every change."""
        self._listeners.append(listener)

    def report(self) -> bytes:
        """The state as JSON."""
        parts = {part: fault or "ok" for part, fault in self._faults.items()}
        return orjson.dumps({"ready": self.ready, "parts": parts})


class Probes:
    """Serves GET /healthz, /readyz and /metrics."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listens. Raises OSError if the port is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.partition(b" ")
                path = rest.partition(b" ")[0].partition(b"?")[0]
                status, kind, body = self._answer(method, path)
                lines = (
                    f"HTTP/1.1 {status} {_PHRASES[status]}",
                    f"content-type: {kind}",
                    f"content-length: {len(body)}",
                    "connection: close",
                )
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else body))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: bytes, path: bytes) -> tuple[int, str, bytes]:
        json = "application/json"
        if method not in {b"GET", b"HEAD"}:
            return 405, json, b"{}"
        if path == b"/healthz":
            return 200, json, b'{"alive":true}'
        if path == b"/readyz":
            return 200 if self._readiness.ready else 503, json, self._readiness.report()
        if path == b"/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        return 404, json, b"{}"
