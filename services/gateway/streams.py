"""Server streams as JSON Lines, server-sent events or a file's bytes; a failure never looks like an end."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from libs.problems import DeadlineExceeded, Problem
from libs.status import from_rpc_error
from services.gateway import errors
from services.gateway.calls import Forward, file_headers
from services.gateway.codec.encode import encoder_of, to_bytes
from services.gateway.exchange import ClientGone, Exchange, HeaderList
from services.gateway.headers import NDJSON, SSE
from services.gateway.requests import HTTP_BODY, RequestReader
from services.gateway.routes import Binding
from services.gateway.upstreams import Upstream
from services.gateway.watch import Watch

PING_SECONDS = 15.0
GRACE_SECONDS = 1.0  # for a client to take the news of a deadline
_TYPES = {NDJSON: b"application/x-ndjson", SSE: b"text/event-stream"}


class StreamCall:
    """Forwards the requests of one binding whose answer is many messages.

    A message is read from the service when the client has taken the one before.
    """

    status = 200

    def __init__(self, binding: Binding, reader: RequestReader, upstream: Upstream) -> None:
        output = binding.method.output
        self.binding = binding
        self.reader = reader
        self.names = binding.method.input
        self.is_file = output.full_name == HTTP_BODY
        self.offered: tuple[str, ...] = () if self.is_file else (NDJSON, SSE)
        self._rpc = upstream.stream(binding.method)
        self._parse = GetMessageClass(output).FromString
        self._encode = None if self.is_file else encoder_of(output)

    async def run(self, exchange: Exchange, request: Any, forward: Forward, media: str | None) -> None:
        """Calls the service and answers. Raises its Problem if it refuses before the first message."""
        call = self._rpc(request, timeout=forward.seconds, metadata=forward.metadata)
        watch = Watch(exchange.receive, call.cancel, 0)
        try:
            async with asyncio.timeout(forward.seconds + GRACE_SECONDS):
                await self._serve(exchange, call, media, forward.idle_seconds)
        except TimeoutError:
            # The client takes nothing any more; what waits for it would wait for ever.
            await exchange.break_off(at_once=True)
            raise DeadlineExceeded from None
        except asyncio.CancelledError:
            if watch.gone:
                raise ClientGone from None
            raise
        finally:
            watch.stop()
            call.cancel()

    async def _serve(self, exchange: Exchange, call: Any, media: str | None, idle_seconds: float) -> None:
        first = await self._next(call)
        await exchange.begin_parts(await self._headers(call, first, media))
        if exchange.method != "HEAD":
            await self._pass_on(exchange, call, first, media, idle_seconds)
        await exchange.end()

    async def _headers(self, call: Any, first: Any, media: str | None) -> HeaderList:
        if self.is_file:
            told = dict(await call.initial_metadata())
            return file_headers(first.content_type if first is not None else "", told)
        return [(b"content-type", _TYPES[media or NDJSON]), (b"x-accel-buffering", b"no")]

    async def _pass_on(
        self, exchange: Exchange, call: Any, message: Any, media: str | None, idle_seconds: float
    ) -> None:
        try:
            while message is not None:
                await exchange.part(self._framed(message, media), idle_seconds)
                message = (
                    await self._next(call)
                    if media != SSE
                    else await self._patient(exchange, call, idle_seconds)
                )
        except Problem as problem:
            if not self.is_file:
                await exchange.part(_framed_error(problem, exchange.request_id, media), idle_seconds)
            await exchange.break_off()
            raise

    async def _next(self, call: Any) -> Any:
        """The next message, None after the last. Raises the service's Problem."""
        try:
            raw = await call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return None if raw is grpc.aio.EOF else self._parse(raw)

    async def _patient(self, exchange: Exchange, call: Any, idle_seconds: float) -> Any:
        """As `_next`, with a comment now and then, so that no proxy takes the silence for an end."""
        waiting = asyncio.ensure_future(self._next(call))
        try:
            while not (await asyncio.wait({waiting}, timeout=PING_SECONDS))[0]:
                await exchange.part(b": ping\n\n", idle_seconds)
        finally:
            waiting.cancel()
        return waiting.result()

    def _framed(self, message: Any, media: str | None) -> bytes:
        if self._encode is None:
            return bytes(message.data)
        line = to_bytes(self._encode(message))
        return b"data: " + line + b"\n\n" if media == SSE else line + b"\n"


def _framed_error(problem: Problem, request_id: str, media: str | None) -> bytes:
    line = errors.to_bytes(errors.body_of(problem, request_id))
    return b"event: error\ndata: " + line + b"\n\n" if media == SSE else line + b"\n"
