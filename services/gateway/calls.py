"""One REST form of an RPC: from the request's message to the HTTP answer."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf.message_factory import GetMessageClass

from libs.contracts import ContractError
from libs.downloads import DISPOSITION_KEY
from libs.status import from_rpc_error
from services.gateway.codec.encode import encoder_of, page_encoder, to_bytes, value_encoder
from services.gateway.codec.masks import resource_of
from services.gateway.exchange import JSON_TYPE, ClientGone, Exchange, HeaderList
from services.gateway.headers import JSON
from services.gateway.preconditions import is_known, quoted
from services.gateway.requests import HTTP_BODY, RequestReader
from services.gateway.routes import Binding
from services.gateway.upstreams import Upstream
from services.gateway.watch import Watch

Metadata = tuple[tuple[str, str], ...]
# What RPCs are called that make something: answered with 201.
CREATING = ("Create", "Upload")
# Headers that the gateway alone sets.
_OURS = {"x-accel-buffering", "x-content-type-options", "x-request-id"}
EMPTY = "google.protobuf.Empty"


@dataclass(frozen=True, slots=True)
class Forward:
    """What goes along with a request to the service. `seconds` is the time that the call may take.

    `idle_seconds`: how long a client may send or take nothing of what streams.
    """

    metadata: Metadata
    seconds: float
    idle_seconds: float


class Call:
    """Forwards the requests of one unary binding."""

    def __init__(self, binding: Binding, reader: RequestReader, upstream: Upstream) -> None:
        method = binding.method
        output = method.output
        self.binding = binding
        self.reader = reader
        self.offered: tuple[str, ...] = () if output.full_name == HTTP_BODY else (JSON,)
        self._upstream = upstream
        self._rpc: Callable[[], Any] = upstream.unary(method)
        self._parse = GetMessageClass(output).FromString
        self._is_empty = output.full_name == EMPTY
        self._is_file = output.full_name == HTTP_BODY
        self.names = method.input  # whose fields a refusal names
        self._has_etag = "etag" in output.fields_by_name and not binding.response_body
        self._creates = binding.verb == "POST" and method.name.startswith(CREATING)
        self._has_id = "id" in output.fields_by_name
        self.locates = False  # what it creates can be read at its own path and id
        if self._is_empty or self._is_file:
            return
        if binding.response_body:
            field = output.fields_by_name.get(binding.response_body)
            if field is None:
                raise ContractError(f"{method.path}: response_body names no field of the answer")
            self._encode = self._encode_sparse = value_encoder(field)
        else:
            self._encode = encoder_of(output)
            chosen = resource_of(output)
            self._encode_sparse = (
                encoder_of(output, sparse=True) if chosen == output else page_encoder(output, chosen)
            )

    @property
    def status(self) -> int:
        """The status of success."""
        return 204 if self._is_empty else 201 if self._creates else 200

    async def run(self, exchange: Exchange, request: Any, forward: Forward, media: str | None) -> None:
        """Calls the service and answers. Raises the service's Problem; ClientGone if nobody waits."""
        upstream = self._upstream
        seconds = await upstream.enter(forward.seconds)
        try:
            call = self._rpc()(request, timeout=seconds, metadata=forward.metadata)
            watch = Watch(exchange.receive, call.cancel)
            try:
                raw = await call
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None
            except asyncio.CancelledError:
                if watch.gone:
                    raise ClientGone from None
                raise
            finally:
                watch.stop()
        finally:
            upstream.leave()
        await self._answer(exchange, request, self._parse(raw))

    async def _answer(self, exchange: Exchange, request: Any, message: Any) -> None:
        if self._is_empty:
            await exchange.answer(204, [])
            return
        if self._is_file:
            await exchange.answer(200, file_headers(message.content_type), message.data)
            return
        headers: HeaderList = [JSON_TYPE]
        if self._has_etag and message.etag:
            etag = quoted(message.etag)
            headers.append((b"etag", etag))
            if self.binding.verb == "GET" and is_known(exchange.headers, etag):
                await exchange.answer(304, headers[1:])
                return
        status = 200
        if self._creates and not self.reader.is_preview(request):
            status = 201
            if self.locates and self._has_id:
                path = (
                    f"{exchange.scope['raw_path'].decode('latin-1').rstrip('/')}/{quote(message.id, safe='')}"
                )
                headers.append((b"location", path.encode()))
        encode = self._encode_sparse if self.reader.is_sparse(request) else self._encode
        await exchange.answer(status, headers, to_bytes(encode(message)))


def file_headers(content_type: str, told: Mapping[str, str | bytes] | None = None) -> HeaderList:
    """The headers of a file: its type, and what the service told ahead of it (its name, and `x-…` of its own).

    A type that no header can carry becomes plain bytes; anything else of that kind is left out.
    """
    if not content_type.isascii() or not content_type.isprintable() or "/" not in content_type:
        content_type = "application/octet-stream"
    headers = [(b"content-type", content_type.encode())]
    for name, value in (told or {}).items():
        theirs = name == DISPOSITION_KEY or (name.startswith("x-") and not name.startswith("x-regulars-"))
        plain = isinstance(value, str) and value.isascii() and value.isprintable()
        if theirs and plain and name not in _OURS:
            headers.append((name.encode(), str(value).encode()))
    return headers
