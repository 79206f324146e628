"""Streams and files: framing, back-pressure, and failures that nobody takes for an end."""

import asyncio
import json
import socket
import zlib
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
    path = f"{NUMBERS}?count=20000&padding=20000"
    async with api.client.stream("GET", path, headers={"accept-encoding": "identity"}) as answer:
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


async def test_a_file_brings_its_name(api: Api) -> None:
    answer = await api.client.get('/api/v1/links/Käufer "1".csv?signature=good&type=text/csv')
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"K_ufer _1_.csv\"; filename*=UTF-8''K%C3%A4ufer%20_1_.csv"
    )
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["x-export-id"] == "7"
    assert "forged" not in str(answer.headers)
    assert not {"x-regulars-secret", "other"} & set(answer.headers)
    unnamed = await api.client.get("/api/v1/streams/one/two")
    assert "content-disposition" not in unnamed.headers


async def test_a_link_needs_no_token_and_a_token_does_not_help(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as nobody:
        answer = await nobody.get("/api/v1/links/a?signature=good&type=text/csv")
        assert (answer.status_code, answer.text[:7]) == (200, "000000,")
        assert "authorization" not in api.shop.servicer.metadata[-1]
        refused = await nobody.get("/api/v1/links/a?signature=bad")
        assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "LINK_INVALID")
        assert "www-authenticate" not in refused.headers
    assert (await api.client.get("/api/v1/links/a?signature=bad")).status_code == 401


async def test_who_tries_links_is_slowed_down(opens: Any) -> None:
    async with opens(rate_limit_address=3) as api:
        for _ in range(20):
            answer = await api.client.get("/api/v1/links/a?signature=bad")
            if answer.status_code == 429:
                break
        assert answer.status_code == 429
        assert (await api.client.get("/api/v1/links/a?signature=good")).status_code == 429


GZIP = {"accept-encoding": "br, gzip;q=0.5"}


async def test_text_is_compressed_if_it_is_worth_it(api: Api) -> None:
    for length, packed in ((2000, True), (100, False)):
        answer = await api.client.post("/api/v1/echo", json={"text": "x" * length}, headers=GZIP)
        assert answer.headers["vary"] == "accept-encoding"
        assert answer.headers.get("content-encoding") == ("gzip" if packed else None)
        assert answer.json()["text"] == "x" * length
    assert int(answer.headers["content-length"]) > 100
    for refused in ("identity", "gzip;q=0", "*;q=0", ""):
        answer = await api.client.post(
            "/api/v1/echo", json={"text": "x" * 2000}, headers={"accept-encoding": refused}
        )
        assert ("content-encoding" in answer.headers, answer.headers["vary"]) == (False, "accept-encoding")
    error = await api.client.post("/api/v1/echo", json={"t" * 300: 1, "u" * 300: 1}, headers=GZIP)
    assert (error.status_code, error.headers.get("content-encoding")) == (400, "gzip")
    assert len(error.json()["error"]["violations"]) == 2


async def test_files_are_compressed_by_their_type(api: Api) -> None:
    xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    for kind, packed in (
        ("text/csv", True),
        ("application/x-ndjson", True),
        (xlsx, False),
        ("image/png", False),
    ):
        path = f"/api/v1/links/a?signature=good&parts=30&type={kind}"
        answer = await api.client.get(path, headers=GZIP)
        assert answer.headers.get("content-encoding") == ("gzip" if packed else None), kind
        assert answer.headers.get("vary") == ("accept-encoding" if packed else None), kind
        assert len(answer.content) == 30 * 7000
        head = await api.client.head(path, headers=GZIP)
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_compressed_messages_wait_for_nothing(api: Api, accept: str) -> None:
    """Each can be unpacked when it is there, and a failure breaks a compressed stream as well."""
    path = f"{NUMBERS}?count=9&failAfter=2"
    seen = await raw_answer(api, path, f"{accept}\r\naccept-encoding: gzip")
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert not seen.endswith(b"0\r\n\r\n")
    unpacker = zlib.decompressobj(31)
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(unpacker.decompress(body[: int(size, 16)]))
        body = body[int(size, 16) + 2 :]
    assert len(parts) == 3
    assert b'"number":"0"' in parts[0]
    assert b'"number":"1"' in parts[1]
    assert b'"Gone."' in parts[2]
    assert not unpacker.eof


async def test_a_client_that_takes_nothing_for_a_while_is_cut_off(opens: Any) -> None:
    """However long the stream may take as a whole."""
    async with opens(idle_seconds=1) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
        path = "/api/v1/links/a?signature=good&type=text/csv&parts=100000"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        await reader.readline()
        async with asyncio.timeout(15):
            while not (line := api.logged()):  # noqa: ASYNC110 – the log tells nobody
                await asyncio.sleep(0.1)
        assert json.loads(line)["status"] == 504
        writer.close()


async def test_a_slow_client_is_waited_for(opens: Any) -> None:
    """It takes a little all the time, for longer than it may take nothing."""
    async with opens(idle_seconds=1) as api:
        narrow = socket.create_connection(("127.0.0.1", api.port))
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        reader, writer = await asyncio.open_connection(sock=narrow, limit=16_384)
        path = "/api/v1/links/a?signature=good&type=text/csv&parts=3000"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        taken = 0
        for _ in range(30):
            taken += len(await reader.read(50_000))
            await asyncio.sleep(0.1)
        assert taken > 300_000
        assert await reader.read(1)
        assert api.logged() == ""
        writer.close()


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
    async with api.client.stream("GET", path, headers={"accept-encoding": "identity"}) as answer:
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
