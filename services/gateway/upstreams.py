"""The services behind the gateway: connections, how many calls at once, and whether they are well."""

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from libs.contracts import Method
from libs.problems import DeadlineExceeded, Unavailable

MAX_ANSWER = 64 << 20  # bytes of one message
CHECK_SECONDS = 1.0
_HEALTH = "/grpc.health.v1.Health/Check"

Raw = bytes
Unary = grpc.aio.UnaryUnaryMultiCallable[Any, Raw]
Upload = grpc.aio.StreamUnaryMultiCallable[Any, Raw]
Stream = grpc.aio.UnaryStreamMultiCallable[Any, Raw]


class Busy(Unavailable):
    """Too many calls wait for this service already."""

    reason = "OVERLOADED"


class Upstream:
    """One service. Answers stay bytes: who reads them knows their type."""

    def __init__(
        self, name: str, address: str, methods: Iterable[Method], *, channels: int, calls: int, waiting: int
    ) -> None:
        self.name = name
        options = _options(methods)
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(channels)]
        self._next = itertools.cycle(self._channels)
        self._free = calls
        self._turns: deque[asyncio.Future[None]] = deque()
        self._room = waiting

    def unary(self, method: Method) -> Callable[[], Unary]:
        """Gives the RPC on one connection after the other."""
        made: list[Unary] = [
            channel.unary_unary(method.path, request_serializer=_serialized) for channel in self._channels
        ]
        return itertools.cycle(made).__next__

    def stream(self, method: Method) -> Stream:
        """The RPC whose answer is many messages."""
        return next(self._next).unary_stream(method.path, request_serializer=_serialized)

    def upload(self, method: Method) -> Upload:
        """The RPC that takes many messages."""
        return next(self._next).stream_unary(method.path, request_serializer=_serialized)

    async def enter(self, seconds: float) -> float:
        """Waits for its turn, first come, first served; gives the seconds that are left.

        Raises Busy if too many wait already, DeadlineExceeded if its time ran out. Whoever enters must leave.
        """
        if self._free > 0:
            self._free -= 1
            return seconds
        if self._room <= 0:
            raise Busy
        began = time.monotonic()
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        self._room -= 1
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # its turn came in the same moment as the end of its wait
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded from None
            raise
        finally:
            self._room += 1
        return seconds - (time.monotonic() - began)

    def leave(self) -> None:
        """Gives its place to the next one that still waits."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def is_well(self) -> bool:
        """True if the service says so itself, within a second."""
        check: Any = self._channels[0].unary_unary(
            _HEALTH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels:
            await channel.close()


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _options(methods: Iterable[Method]) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", MAX_ANSWER),
        ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.service_config", json.dumps(_service_config(methods))),
        ("grpc.lb_policy_name", "round_robin"),
    ]


def _service_config(methods: Iterable[Method]) -> Mapping[str, Any]:
    """Reads are tried again while a service restarts; writes only where gRPC knows that none arrived."""
    reads = [
        {"service": method.descriptor.containing_service.full_name, "method": method.name}
        for method in methods
        if method.http and all(rule.WhichOneof("pattern") == "get" for rule in method.http)
    ]
    retry = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": reads, "retryPolicy": retry}] if reads else []}
