"""The load generator, a process of its own: closed loops of callers, ordered by lines of JSON.

An order names a kind ("grpc", "rest", "insert"), what to send, how many callers, and for how many seconds. The
answer has the calls of the measured time, its seconds, the percentiles of their milliseconds, and failures.
"""

import asyncio
import base64
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psycopg
import uvloop

WARM_UP_SECONDS = 0.4

Call = Callable[[bytes], Awaitable[bool]]


async def closed_loops(
    order: dict[str, Any], calls: Sequence[Call], bodies: Iterator[bytes]
) -> dict[str, Any]:
    """Each caller sends its next request when the last was answered."""
    times: list[float] = []
    failed = 0
    began = time.perf_counter()
    counted_from = began + WARM_UP_SECONDS
    until = counted_from + order["seconds"]

    async def caller(call: Call) -> None:
        nonlocal failed
        for body in bodies:
            start = time.perf_counter()
            if start > until:
                return
            fine = await call(body)
            end = time.perf_counter()
            if counted_from <= start and end <= until:
                failed += not fine
                times.append(end - start)

    await asyncio.gather(*(caller(call) for call in calls))
    ended = min(time.perf_counter(), until)
    times.sort()

    def percentile(share: float) -> float:
        return times[min(len(times) - 1, int(len(times) * share))] * 1000 if times else 0.0

    return {
        "calls": len(times),
        "failed": failed,
        "seconds": ended - counted_from,
        "work_seconds": ended - began,
        "p50": percentile(0.50),
        "p95": percentile(0.95),
        "p99": percentile(0.99),
    }


async def over_grpc(order: dict[str, Any]) -> dict[str, Any]:
    """Unary calls of raw messages over two connections."""
    channels = [
        grpc.aio.insecure_channel(order["address"], [("grpc.bench", i), ("grpc.enable_http_proxy", 0)])
        for i in range(2)
    ]
    metadata = [tuple(pair) for pair in order.get("metadata", [])]
    try:
        calls: list[Call] = []
        for channel in itertools.islice(itertools.cycle(channels), order["callers"]):
            rpc: Any = channel.unary_unary(order["path"])

            async def call(body: bytes, rpc: Any = rpc) -> bool:
                try:
                    await rpc(body, metadata=metadata, timeout=30)
                except grpc.aio.AioRpcError as error:
                    sys.stderr.write(f"{error.code()} {error.details()}\n")
                    return False
                return True

            calls.append(call)
        return await closed_loops(order, calls, _bodies(order))
    finally:
        for channel in channels:
            await channel.close()


class Http(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection with one request in flight: hardly more than its bytes."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._got = b""
        self._answer: asyncio.Future[bool] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's has no base class

    def data_received(self, data: bytes) -> None:
        """Some of the answer came."""
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) >= length and self._answer is not None:
            self._got = rest[length:]
            self._answer.set_result(head[9:12] in {b"200", b"201"})

    async def call(self, path: bytes) -> bool:
        """GETs `path`; True for success."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"GET " + path + self._head)
        return await self._answer


async def over_rest(order: dict[str, Any]) -> dict[str, Any]:
    """GETs over one connection for each caller."""
    head = (
        f" HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {order['token']}\r\naccept: */*\r\n\r\n".encode()
    )
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Http(head), "127.0.0.1", order["port"])
        for _ in range(order["callers"])
    ]
    try:
        return await closed_loops(order, [protocol.call for _, protocol in made], _bodies(order))
    finally:
        for transport, _ in made:
            transport.close()


async def inserts(order: dict[str, Any]) -> dict[str, Any]:
    """One statement of the order for each row of parameters, one connection for each caller."""
    made = [
        await psycopg.AsyncConnection.connect(order["url"], autocommit=True, prepare_threshold=0)
        for _ in range(order["callers"])
    ]
    try:
        calls: list[Call] = []
        for connection in made:

            async def call(body: bytes, connection: psycopg.AsyncConnection[Any] = connection) -> bool:
                row = json.loads(body)
                values = [base64.b85decode(v[1:]) if isinstance(v, str) and v[:1] == "~" else v for v in row]
                await connection.execute(order["statement"], values)
                return True

            calls.append(call)
        return await closed_loops(order, calls, _bodies(order))
    finally:
        for connection in made:
            await connection.close()


def _bodies(order: dict[str, Any]) -> Iterator[bytes]:
    """The requests of a file, one base64 line each; round and round unless each may be sent once only."""
    lines = [base64.b64decode(line) for line in Path(order["bodies"]).read_bytes().split()]
    return iter(lines) if order.get("once") else itertools.cycle(lines)


KINDS = {"grpc": over_grpc, "rest": over_rest, "insert": inserts}


def main() -> None:
    """Answers orders until its input ends."""
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps(uvloop.run(KINDS[order["kind"]](order))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
