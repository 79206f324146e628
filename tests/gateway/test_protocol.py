"""The connection itself: hostile bytes, slow clients, pipelines."""

import asyncio
import json
from typing import Any

import httpx

from tests.gateway.conftest import Api


async def raw(api: Api, data: bytes, *, patience: float = 5) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), patience)
    finally:
        writer.close()


def body(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_what_is_no_http_is_refused_in_json(api: Api) -> None:
    for data in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n"):
        answer = await raw(api, data)
        assert answer.startswith(b"HTTP/1.1 400 "), (data, answer)
        assert body(answer)["reason"] == "MALFORMED_REQUEST"
    smuggled = (
        b"POST /api/v1/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    assert (await raw(api, smuggled)).startswith(b"HTTP/1.1 400 ")


async def test_headers_have_a_limit_in_bytes(api: Api) -> None:
    head = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"
    for data in (
        head + b"x: " + b"y" * 40_000 + b"\r\n\r\n",
        head + b"a: b\r\n" * 9_000,
        b"GET /" + b"a" * 40_000,
    ):
        answer = await raw(api, data)
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]
        assert body(answer)["reason"] == "HEADERS_TOO_LARGE"


async def test_headers_have_a_limit_in_time(opens: Any) -> None:
    async with opens(header_seconds=0.3) as api:
        answer = await raw(api, b"GET /healthz HTTP/1.1\r\nhost:")
        assert (answer[:13], body(answer)["reason"]) == (b"HTTP/1.1 408 ", "HEADERS_TIMEOUT")
        assert await raw(api, b"") == b""
        after_one = await raw(api, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /he")
        assert after_one.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in after_one


async def test_bodies_have_a_limit_in_time(opens: Any) -> None:
    async with opens(body_seconds=0.3) as api:
        token = api.client.headers["authorization"].encode()
        head = (
            b"POST /api/v1/echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: "
            + token
        )
        answer = await raw(api, head + b"\r\ncontent-length: 10\r\n\r\n{")
        assert (answer[:13], body(answer)["reason"]) == (b"HTTP/1.1 408 ", "BODY_TIMEOUT")


async def test_a_pipeline_is_answered_in_order(api: Api) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    last = b"GET /api/v1/none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    answer = await raw(api, one * 3 + last)
    assert [answer.count(b"200 OK"), answer.count(b"404 Not Found")] == [3, 1]
    assert answer.index(b"404 Not") > answer.rindex(b"200 OK")


async def test_the_rest_of_a_refused_body_is_thrown_away(api: Api) -> None:
    size = 3 << 20
    head = b"POST /api/v1/echo HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size
    last = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    answer = await raw(api, head + b"x" * size + last)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 200 OK" in answer
    endless = b"POST /api/v1/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(endless)
    try:
        async with asyncio.timeout(20):
            while not reader.at_eof():
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
    except ConnectionError:
        pass
    writer.close()


async def test_an_upgrade_is_an_ordinary_request(api: Api) -> None:
    upgrade = b"GET /healthz HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\r\n"
    assert (await raw(api, upgrade)).startswith(b"HTTP/1.1 200 ")


async def test_a_stop_finishes_what_runs(opens: Any) -> None:
    async with httpx.AsyncClient() as client:
        async with opens(drain_seconds=5) as api:
            servicer = api.shop.servicer
            servicer.waiting.clear()
            servicer.go.clear()
            url, headers = f"{api.url}/api/v1/wait", api.client.headers
            call = asyncio.create_task(client.post(url, json={"name": "long"}, headers=headers))
            await asyncio.wait_for(servicer.waiting.wait(), 5)
            asyncio.get_running_loop().call_later(0.3, servicer.go.set)
        # The gateway has stopped; the call that ran was answered before.
        assert (await call).status_code == 200


async def test_a_call_that_a_stop_does_not_wait_for_may_be_sent_again(opens: Any) -> None:
    async with httpx.AsyncClient() as client:
        async with opens(drain_seconds=1) as api:
            servicer = api.shop.servicer
            servicer.waiting.clear()
            servicer.go.clear()
            url, headers = f"{api.url}/api/v1/wait", api.client.headers
            call = asyncio.create_task(client.post(url, json={"name": "long"}, headers=headers))
            await asyncio.wait_for(servicer.waiting.wait(), 5)
        answer = await call
        servicer.go.set()
        assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "UNAVAILABLE")
