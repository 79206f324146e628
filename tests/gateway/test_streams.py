"""Streams and files: framing, back-pressure, and failures that nobody takes for an end."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Api

NUMBERS = "/api/v1/numbers"


async def test_json_lines(api: Api) -> None:
    answer = await api.client.get(f"{NUMBERS}?count=3")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["number"] for line in answer.text.splitlines()] == ["0", "1", "2"]
    empty = await api.client.get(f"{NUMBERS}?count=0")
    assert (empty.status_code, empty.content) == (200, b"")


async def test_server_sent_events(api: Api) -> None:
    answer = await api.client.get(f"{NUMBERS}?count=2", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text == 'data: {"number":"0"}\n\ndata: {"number":"1"}\n\n'
    refused = await api.client.get(f"{NUMBERS}?count=2", headers={"accept": "application/json"})
    assert (refused.status_code, "x-ndjson" in refused.text) == (406, True)


async def test_a_refusal_before_the_first_message_is_a_plain_answer(api: Api) -> None:
    answer = await api.client.get(f"{NUMBERS}?failFirst=true")
    assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_a_failure_in_the_middle_is_told_and_breaks_the_connection(api: Api, accept: str) -> None:
    path = f"{NUMBERS}?count=9&failAfter=2"
    with pytest.raises(httpx.RemoteProtocolError):
        await api.client.get(path, headers={"accept": accept})
    seen = await raw_answer(api, path, accept)
    assert not seen.endswith(b"0\r\n\r\n")
    seen = seen.rsplit(b"\r\n", 2)[-2]
    last = seen.strip().split(b"\n")[-1].removeprefix(b"data: ")
    assert json.loads(last)["error"]["message"] == "Gone."
    assert seen.startswith(b"event: error") == (accept != "*/*")
    assert json.loads(api.logged().splitlines()[-1])["status"] == 404


async def test_the_service_waits_for_a_slow_client(api: Api) -> None:
    servicer = api.shop.servicer
    async with api.client.stream("GET", f"{NUMBERS}?count=20000&padding=20000") as answer:
        parts = answer.aiter_raw()
        await anext(parts)
        before = -1
        while servicer.sent != before:  # until nothing moves any more
            before = servicer.sent
            await asyncio.sleep(0.3)
        assert servicer.sent < 5000
    await asyncio.wait_for(servicer.cancelled.wait(), 10)


async def test_a_client_that_leaves_a_stream_ends_it(api: Api) -> None:
    async with api.client.stream("GET", f"{NUMBERS}?count=100000&padding=1000") as answer:
        await anext(answer.aiter_raw())
    await asyncio.wait_for(api.shop.servicer.cancelled.wait(), 10)


async def test_files_come_and_go_as_they_are(api: Api) -> None:
    answer = await api.client.get("/api/v1/files/a/b%20c.html")
    assert (answer.text, answer.headers["content-type"]) == ("a/b c.html", "text/html")
    assert "sandbox" in answer.headers["content-security-policy"]
    put = await api.client.put("/api/v1/files/x", content=b"\x00\xff", headers={"content-type": "image/png"})
    assert put.json() == {"contentType": "image/png", "size": "2"}
    stream = await api.client.get("/api/v1/streams/one/two")
    assert (stream.text, stream.headers["content-type"]) == ("onetwo", "text/csv")


async def test_a_file_that_fails_is_cut_off(api: Api) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await api.client.get("/api/v1/streams/one/fail")


async def test_head_of_a_stream(api: Api) -> None:
    answer = await api.client.head(f"{NUMBERS}?count=3")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await api.client.get(f"{NUMBERS}?count=1")).status_code == 200


async def test_streams_have_a_deadline(opens: Any) -> None:
    async with opens(stream_seconds=1) as api:
        with pytest.raises(httpx.RemoteProtocolError):
            await drained(api, f"{NUMBERS}?count=1000000&padding=20000")


async def test_a_client_that_takes_nothing_is_cut_off(opens: Any) -> None:
    async with opens(stream_seconds=1) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
        token = api.client.headers["authorization"]
        path = f"{NUMBERS}?count=1000000&padding=20000"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: {token}\r\n\r\n".encode())
        await reader.readline()
        async with asyncio.timeout(10):
            line = ""
            while not line:
                await asyncio.sleep(0.1)
                line = api.logged()
        assert json.loads(line)["status"] == 504
        writer.close()


async def drained(api: Api, path: str) -> None:
    """Reads a stream to its end."""
    async with api.client.stream("GET", path) as answer:
        async for _ in answer.aiter_raw():
            pass


async def raw_answer(api: Api, path: str, accept: str) -> bytes:
    """The bytes as they come, until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    token = api.client.headers["authorization"]
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: {token}\r\naccept: {accept}\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer
