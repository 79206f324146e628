"""Whether the members of a stack do their work, asked as any client would."""

import asyncio
import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 2


async def grpc_serving(address: str) -> bool:
    """Whether the service at `host:port` reports SERVING."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def http_ready(url: str) -> bool:
    """Whether `url` answers 200."""
    return await asyncio.to_thread(_get, url)


async def listens(address: str) -> bool:
    """Whether somebody accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), SECONDS)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _get(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
