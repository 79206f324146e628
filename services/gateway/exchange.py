"""One HTTP request and its answer, as ASGI carries them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from services.gateway.compression import LEAST_BYTES, Gzip, accepts_gzip, is_compressible
from services.gateway.headers import media_type, request_id
from services.gateway.problems import BodyTimeout, BodyTooLarge, UnexpectedBody, UnsupportedMediaType

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

# On every answer; an API's answers are data and never a page.
SECURITY: HeaderList = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
]
VARY = (b"vary", b"accept-encoding")
PACKED = (b"content-encoding", b"gzip")
AT_ONCE = 64 << 10
JSON_TYPE = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client did not wait for the answer."""


class Broken(ConnectionError):
    """The answer cannot be completed any more; the connection must break so that the client sees it."""


class Exchange:
    """`status` is 0 until an answer began. `extra` are headers for whatever the answer will be."""

    __slots__ = (
        "_gzip",
        "extra",
        "headers",
        "method",
        "receive",
        "request_id",
        "route",
        "scope",
        "send",
        "status",
        "tenant",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.request_id = request_id(self.headers)
        self.route = "-"
        self.tenant: str | None = None
        self.status = 0
        self.extra: HeaderList = []
        self._gzip: Gzip | None = None

    async def begin(self, status: int, headers: HeaderList) -> None:
        """Sends status and headers; ours are added."""
        self.status = status
        all_headers = [
            *headers,
            *SECURITY,
            (b"x-request-id", self.request_id.encode()),
            *self.extra,
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": all_headers})

    async def answer(self, status: int, headers: HeaderList, body: bytes = b"") -> None:
        """Sends a whole answer, compressed if the client wants that and it is worth it."""
        if body and headers and is_compressible(headers[0][1]):
            headers = [*headers, VARY]
            if len(body) >= LEAST_BYTES and accepts_gzip(self.headers):
                body = await Gzip().add(body, last=True)
                headers.append(PACKED)
        if status not in {204, 304}:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        await self.begin(status, headers)
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def begin_parts(self, headers: HeaderList) -> None:
        """Begins a body sent in parts. The first of the headers is its type."""
        if is_compressible(headers[0][1]):
            headers = [*headers, VARY]
            if self.method != "HEAD" and accepts_gzip(self.headers):
                self._gzip = Gzip()
                headers.append(PACKED)
        await self.begin(200, headers)

    async def part(self, body: bytes, idle_seconds: float) -> None:
        """Sends a part of the body, as fast as the client takes it. Nothing of it waits for the next one.

        Raises TimeoutError if the client takes nothing (64 KiB at most) for `idle_seconds`.
        """
        if self._gzip is not None:
            body = await self._gzip.add(body)
        for at in range(0, len(body), AT_ONCE):
            async with asyncio.timeout(idle_seconds):
                piece = body[at : at + AT_ONCE]
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """Ends a body sent in parts."""
        last = b"" if self._gzip is None else await self._gzip.add(b"", last=True)
        await self.send({"type": "http.response.body", "body": last})

    async def break_off(self, *, at_once: bool = False) -> None:
        """Breaks the connection in the middle of an answer; `at_once`: without what the client has not taken.

        Raises Broken if the server has no such way.
        """
        ends = self.scope.get("extensions", {}).get("regulars.end")
        if ends is None:
            raise Broken
        ends["abort" if at_once else "close"]()
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def has_body(self) -> bool:
        """True if the client sends a body that is not surely empty."""
        length = self.headers.get(b"content-length")
        return b"transfer-encoding" in self.headers if length is None else length.strip(b"0") != b""

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises BodyTooLarge, BodyTimeout; ClientGone if it never ends."""
        if not self.has_body():
            return b""
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            raise BodyTooLarge(limit_bytes=limit)
        try:
            async with asyncio.timeout(seconds):
                return await self._gathered(limit)
        except TimeoutError:
            self.extra.append((b"connection", b"close"))
            raise BodyTimeout from None

    async def _gathered(self, limit: int) -> bytes:
        parts = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts += message.get("body", b"")
            if len(parts) > limit:
                raise BodyTooLarge(limit_bytes=limit)
            if not message.get("more_body"):
                return bytes(parts)

    async def parts(self, idle_seconds: float) -> AsyncIterator[bytes]:
        """The body as it comes, read as fast as it is taken. Raises BodyTimeout; ClientGone if it never ends."""
        more = True
        while more:
            try:
                async with asyncio.timeout(idle_seconds):
                    message = await self.receive()
            except TimeoutError:
                raise BodyTimeout from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            body = message.get("body", b"")
            if body:
                yield body

    def check_no_body(self) -> None:
        """Raises UnexpectedBody."""
        if self.has_body():
            raise UnexpectedBody

    def check_json(self, accepted: tuple[str, ...]) -> None:
        """Raises UnsupportedMediaType unless the body is one of the types, in UTF-8, as it is."""
        kind, charset = media_type(self.headers)
        coding = self.headers.get(b"content-encoding", b"identity").lower()
        if kind not in accepted or charset not in {"", "utf-8", "utf8"} or coding != b"identity":
            raise UnsupportedMediaType(accepted=", ".join(accepted))
