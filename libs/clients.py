"""Calls to the other services: always with a deadline, as ourselves, and failing as Problems."""

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc

from libs import caller as callers
from libs import deadlines, status, telemetry
from libs.boundary import INTERNAL_KEY, LEAST_SECONDS, PURPOSE_KEY
from libs.caller import Caller
from libs.config import Settings
from libs.db import in_transaction
from libs.internal_keys import InternalIssuer
from libs.problems import Code, DeadlineExceeded, Problem, Unauthenticated, Unavailable

Stub = TypeVar("Stub")

SECONDS = 5.0  # for calls that are made outside of any
STREAM_SECONDS = 300.0
TRIES = 4
FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
# What may be asked again without a request id, by the first word of the RPC's name.
_READS = ("Get", "List", "BatchGet", "Lookup", "Search", "Check", "Count", "Find")

_OPTIONS = [
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.enable_http_proxy", 0),
]


class Clients:
    """Stubs of the other services, whose calls bear this service's token on behalf of the current caller."""

    def __init__(self, service: str, settings: Settings, issuer: InternalIssuer | None = None) -> None:
        self._service = service
        self._settings = settings
        self._issuer = issuer or InternalIssuer(service, settings.internal_keys)
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, kind: Callable[[grpc.aio.Channel], Stub], service: str) -> Stub:
        """A stub of `service`. Its unary calls are awaited, its streams iterated; both raise Problems.

        A call has what is left of the running one, or 5 s (streams: 300 s); `timeout` shortens it.
        Reads, and requests with a request id, are tried again while the service is away.
        """
        return kind(cast(grpc.aio.Channel, _Calls(self, service)))

    def channel(self, service: str) -> grpc.aio.Channel:
        """The connection to a service; made on first use."""
        if service not in self._channels:
            address = self._settings.address_of(service)
            self._channels[service] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return self._channels[service]

    def metadata(self, service: str) -> tuple[tuple[str, str], ...]:
        """What goes with a call to `service`: our token, the purpose, the trace."""
        try:
            caller = callers.current()
        except Unauthenticated:
            caller = Caller(tenant_id=None, subject=f"service:{self._service}", kind="service")
        found = [(INTERNAL_KEY, self._issuer.token(service, caller))]
        if caller.purpose:
            found.append((PURPOSE_KEY, caller.purpose))
        if parent := telemetry.traceparent():
            found.append(("traceparent", parent))
        return tuple(found)

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


class _Calls:
    """What a generated stub takes for a channel."""

    def __init__(self, clients: Clients, service: str) -> None:
        self._clients = clients
        self._service = service

    def unary_unary(self, path: str, *arguments: Any, **options: Any) -> Any:
        raw: Any = self._clients.channel(self._service).unary_unary(path, *arguments, **options)
        read = path.rpartition("/")[2].startswith(_READS)

        async def call(request: Any, *, timeout: float | None = None) -> Any:
            again = read or bool(getattr(request, "request_id", ""))
            return await self._tried(lambda seconds: raw(request, **seconds), timeout, TRIES if again else 1)

        return call

    def stream_unary(self, path: str, *arguments: Any, **options: Any) -> Any:
        raw: Any = self._clients.channel(self._service).stream_unary(path, *arguments, **options)

        async def call(requests: AsyncIterable[Any], *, timeout: float | None = None) -> Any:
            return await self._tried(lambda given: raw(requests, **given), timeout or STREAM_SECONDS, 1)

        return call

    def unary_stream(self, path: str, *arguments: Any, **options: Any) -> Any:
        raw: Any = self._clients.channel(self._service).unary_stream(path, *arguments, **options)

        def call(request: Any, *, timeout: float | None = None) -> AsyncIterator[Any]:
            return self._streamed(lambda given: raw(request, **given), timeout or STREAM_SECONDS)

        return call

    stream_stream = unary_stream

    async def _tried(
        self, call: Callable[[dict[str, Any]], Awaitable[Any]], timeout: float | None, tries: int
    ) -> Any:
        ends_at = deadlines.monotonic() + self._seconds(timeout or SECONDS)
        for attempt in range(1, tries + 1):
            given = {
                "metadata": self._clients.metadata(self._service),
                "timeout": ends_at - deadlines.monotonic(),
            }
            try:
                return await call(given)
            except grpc.aio.AioRpcError as error:
                problem = _ours(error, self._service)
            pause = min(LAST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)  # noqa: S311
            left = ends_at - deadlines.monotonic() - pause
            if problem.code is not Code.UNAVAILABLE or attempt == tries or left < LEAST_SECONDS:
                raise problem
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _streamed(self, call: Callable[[dict[str, Any]], Any], timeout: float) -> AsyncIterator[Any]:
        seconds = self._seconds(timeout)
        stream = call({"metadata": self._clients.metadata(self._service), "timeout": seconds})
        try:
            async for message in stream:
                yield message
        except grpc.aio.AioRpcError as error:
            raise _ours(error, self._service) from None
        finally:
            stream.cancel()

    def _seconds(self, timeout: float) -> float:
        """What the call may take: never longer than the running one. Raises DeadlineExceeded."""
        if in_transaction():
            raise RuntimeError(f"{self._service} is called while a transaction is open")
        left = deadlines.remaining_seconds()
        if left is None:
            return timeout
        if left < LEAST_SECONDS:
            raise DeadlineExceeded
        return min(timeout, left)


def _ours(error: grpc.aio.AioRpcError, service: str) -> Problem:
    """The peer's Problem. That it does not know us is no fault of our caller's."""
    problem = status.from_rpc_error(error)
    if problem.code is Code.UNAUTHENTICATED:
        return Unavailable(f"Service {service} does not know this one.", peer=service)
    return problem
