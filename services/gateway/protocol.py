"""uvicorn's HTTP/1.1 with what it lacks: limits of headers, JSON refusals, a way to break off."""

import asyncio
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from libs.problems import Problem
from services.gateway import errors
from services.gateway.problems import HttpProblem

# Of a refused body so much is read all the same, for so long: many clients look for an answer only when they have
# sent everything, and one whose connection is closed before loses the answer.
DISCARDED = 256 << 20
LINGER_SECONDS = 30.0
_LINES = {
    400: b"HTTP/1.1 400 Bad Request\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}


class MalformedRequest(HttpProblem):
    """What came is no HTTP."""

    reason = "MALFORMED_REQUEST"
    message = "This is not a valid HTTP/1.1 request."


class HeadersTimeout(HttpProblem):
    """Request line and headers did not arrive in time."""

    status = 408
    reason = "HEADERS_TIMEOUT"
    message = "The headers took too long."


class HeadersTooLarge(HttpProblem):
    """Request line and headers are over the limit."""

    status = 431
    reason = "HEADERS_TOO_LARGE"
    message = "The headers are too large."


class GatewayProtocol(HttpToolsProtocol):
    """One connection. Use `limited` to make a class with limits."""

    header_limit = 32 << 10
    header_seconds = 10.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_headers = True
        self._begun = False
        self._header_bytes = 0
        self._discarded = 0
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first headers."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets what it waits for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what came, unless headers outgrow their limit."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_headers:
            return
        if self._header_bytes > self.header_limit:
            self._refuse(HeadersTooLarge())
        elif self._header_timer is None and self._begun:
            self._await_headers()

    def on_message_begin(self) -> None:
        """Headers begin."""
        self._in_headers = self._begun = True
        super().on_message_begin()
        self.scope["extensions"] = {
            "regulars.end": {"close": self.transport.close, "abort": self.transport.abort}
        }

    def on_headers_complete(self) -> None:
        """Headers end."""
        self._in_headers = self._begun = False
        self._header_bytes = self._discarded = 0
        self._stop_waiting()
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > self.header_limit:
            self._refuse(HeadersTooLarge())
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body; one that is refused already is thrown away, up to a limit."""
        if not self.cycle.response_complete:
            super().on_body(body)
            return
        self._discarded += len(body)
        if self._discarded > DISCARDED:
            self.transport.close()

    def on_response_complete(self) -> None:
        """The rest of a refused body must come soon."""
        super().on_response_complete()
        if not self._in_headers and self._header_timer is None:
            self._header_timer = self.loop.call_later(LINGER_SECONDS, self._headers_late)

    def on_message_complete(self) -> None:
        """What comes next are headers."""
        super().on_message_complete()
        self._in_headers = True
        if self.cycle.response_complete:
            self._stop_waiting()
            self._await_headers()

    def send_400_response(self, msg: str) -> None:
        """Answers in JSON, like everything."""
        self._refuse(MalformedRequest())

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._headers_late)

    def _stop_waiting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        if not self.transport.is_closing():
            if self._begun:
                self._refuse(HeadersTimeout())
            else:
                self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer is on its way; another one in it would be taken for its part.
            self.transport.close()
            return
        body = orjson.dumps(errors.body_of(problem, ""))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
            body
        )
        self.transport.write(_LINES[errors.status_of(problem)] + head + body)
        self.transport.close()


def limited(header_limit: int, header_seconds: float) -> type[GatewayProtocol]:
    """The protocol with these limits, in bytes and seconds."""
    return type(
        "LimitedProtocol",
        (GatewayProtocol,),
        {"header_limit": header_limit, "header_seconds": header_seconds},
    )
