"""Uploads: as they come, no faster than the service takes them, and never half of one for a whole."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Api

UPLOADS = "/api/v1/uploads"
MIB = 1 << 20


async def pieces(count: int, size: int = 65_536) -> AsyncIterator[bytes]:
    for number in range(count):
        yield number.to_bytes(4) * (size // 4)


async def test_a_raw_body_arrives_as_it_is(api: Api) -> None:
    content = bytes(range(256)) * 5000
    answer = await api.client.post(
        f"{UPLOADS}?kind=a&fileName=x.csv&colors=RED&colors=BLUE",
        content=content,
        headers={"content-type": "text/csv; charset=utf-16", "idempotency-key": "once-1"},
    )
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["size"], found["digest"]) == (str(len(content)), hashlib.sha256(content).hexdigest())
    assert found["settings"] == {
        "kind": "a",
        "fileName": "x.csv",
        "contentType": "text/csv; charset=utf-16",
        "limit": "0",
        "colors": ["RED", "BLUE"],
        "requestId": "once-1",
    }


async def test_without_a_length_and_without_a_body(api: Api) -> None:
    answer = await api.client.post(UPLOADS, content=pieces(100))
    assert answer.json()["size"] == str(100 * 65_536)
    assert "contentType" not in answer.json()["settings"]
    empty = await api.client.post(UPLOADS)
    assert (empty.status_code, empty.json()["size"]) == (201, "0")


@pytest.mark.parametrize("size", [0, 1, 70_000, 3 * MIB])
async def test_forms(api: Api, size: int) -> None:
    content = b"\r\n--x--\r" * (size // 8) + b"y" * (size % 8)
    answer = await api.client.post(
        f"{UPLOADS}?colors=RED",
        data={"kind": "ä b&c", "colors": "BLUE"},
        files={"anything": ("C:\\dir\\Kunden ü.csv", content, "text/csv")},
    )
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["size"], found["digest"]) == (str(size), hashlib.sha256(content).hexdigest())
    assert found["settings"]["fileName"] == "Kunden ü.csv"
    assert found["settings"]["contentType"] == "text/csv"
    assert found["settings"]["kind"] == "ä b&c"
    assert found["settings"]["colors"] == ["RED", "BLUE"]


FORM = {"content-type": "multipart/form-data; boundary=b"}
FIELD = b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\na\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.csv"\r\n\r\ncontent\r\n'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (FILE + FIELD + b"--b--\r\n", "FIELD_AFTER_FILE"),
        (FILE + FILE + b"--b--\r\n", "FILE_TWICE"),
        (FIELD + b"--b--\r\n", "FILE_MISSING"),
        (b"--b--\r\n", "FILE_MISSING"),
        (FIELD + FIELD + FILE + b"--b--\r\n", "DUPLICATE_FIELD"),
        (FIELD.replace(b"kind", b"kin") + FILE + b"--b--\r\n", "UNKNOWN_QUERY_PARAMETER"),
        (FIELD.replace(b"\r\na", b"\r\n" + b"a" * 70_000) + FILE + b"--b--\r\n", "MALFORMED_FORM"),
        (FIELD.replace(b"\r\na", b"\r\n\xff") + FILE + b"--b--\r\n", "MALFORMED_TEXT"),
        (FIELD * 200 + FILE + b"--b--\r\n", "MALFORMED_FORM"),
        (FILE, "MALFORMED_FORM"),  # cut short: never a whole file
        (FILE[:-9], "MALFORMED_FORM"),
        (b"no form at all", "MALFORMED_FORM"),
        (b"", "MALFORMED_FORM"),
    ],
)
async def test_malformed_forms(api: Api, body: bytes, reason: str) -> None:
    answer = await api.client.post(UPLOADS, content=body, headers=FORM)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert reason in {error["reason"], *(v["reason"] for v in error["violations"])}, error
    assert (
        await api.client.post(UPLOADS, content=FIELD + FILE + b"--b--\r\n", headers=FORM)
    ).status_code == 201


async def test_settings_are_refused_by_their_names(api: Api) -> None:
    answer = await api.client.post(f"{UPLOADS}?kind=12345678901&limit=-1&colour=RED", content=b"x")
    assert {(v["field"], v["reason"]) for v in answer.json()["error"]["violations"]} == {
        ("kind", "STRING_MAX_LEN"),
        ("limit", "INT64_GTE"),
        ("colour", "UNKNOWN_QUERY_PARAMETER"),
    }
    wrong = await api.client.post(f"{UPLOADS}?kind=wrong", content=b"x")
    assert wrong.json()["error"]["violations"][0]["field"] == "kind"
    assert api.shop.servicer.received == 0
    packed = await api.client.post(UPLOADS, content=b"x", headers={"content-encoding": "gzip"})
    assert (packed.status_code, packed.json()["error"]["metadata"]) == (415, {"accepted": "identity"})


async def test_who_may_not_is_not_even_asked_for_the_body(api: Api) -> None:
    """With `Expect: 100-continue` the client waits until somebody wants its file."""
    token = api.client.headers["authorization"].encode()
    reader_token = b"Bearer " + api.shop.token(api.tenant, "reader").encode()
    for query, authorization, status in (
        (b"", b"Bearer x", 401),
        (b"", reader_token, 403),
        (b"?kind=refused", token, 404),
        (b"?limit=-1", token, 400),
    ):
        answer = await expecting(api, query, authorization)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert (await expecting(api, b"", token)).startswith(b"HTTP/1.1 100 ")


async def expecting(api: Api, query: bytes, authorization: bytes) -> bytes:
    """The first that comes back to headers alone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /api/v1/uploads%s HTTP/1.1\r\nhost: a\r\nauthorization: %s\r\n"
        b"expect: 100-continue\r\ncontent-length: 10\r\n\r\n" % (query, authorization)
    )
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    return answer


async def test_a_refusal_reaches_a_client_that_is_still_sending(api: Api) -> None:
    """Also one that sends all of its file before it looks for an answer."""
    for limit in (1, 100_000):
        answer = await api.client.post(f"{UPLOADS}?limit={limit}", content=pieces(1600))
        assert (answer.status_code, answer.json()["error"]["reason"]) == (413, "FILE_TOO_LARGE")
    assert api.shop.servicer.received < 50 * MIB
    refused = await api.client.post(f"{UPLOADS}?kind=refused", content=pieces(1600))
    assert refused.status_code == 404
    assert (await api.client.post(UPLOADS, content=b"x")).status_code == 201


async def test_curl_uploads_and_is_refused(api: Api, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    file = tmp_path / "big.csv"
    file.write_bytes(b"a,b\n" * (15 * MIB))
    token = api.client.headers["authorization"]

    async def run(*arguments: str) -> tuple[int, Any]:
        process = await asyncio.create_subprocess_exec(
            curl, "-sS", "-w", "\n%{http_code}", "-H", f"Authorization: {token}", *arguments,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        body, _, status = out.rpartition(b"\n")
        assert process.returncode == 0, out
        return int(status), json.loads(body)

    for how in (["--data-binary", f"@{file}"], ["-T", str(file), "-X", "POST"], ["-F", f"file=@{file}"]):
        status, found = await run(*how, f"{api.url}{UPLOADS}")
        assert (status, found["size"]) == (201, str(60 * MIB)), how
        status, found = await run(*how, f"{api.url}{UPLOADS}?limit=1000000")
        assert (status, found["error"]["reason"]) == (413, "FILE_TOO_LARGE"), how


async def test_the_client_waits_for_a_slow_service(api: Api) -> None:
    servicer = api.shop.servicer
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        async for piece in pieces(3200):  # 200 MiB
            yield piece
            sent += len(piece)

    task = asyncio.create_task(api.client.post(f"{UPLOADS}?kind=slow", content=endless()))
    await asyncio.wait_for(servicer.waiting.wait(), 10)
    before = -1
    while sent != before:  # until nothing moves any more
        before = sent
        await asyncio.sleep(0.5)
    assert sent < 40 * MIB
    servicer.go.set()
    answer = await asyncio.wait_for(task, 60)
    assert answer.json()["size"] == str(200 * MIB)


@pytest.mark.parametrize("form", [False, True])
async def test_a_client_that_breaks_off_ends_the_call(api: Api, form: bool) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    token = api.client.headers["authorization"]
    kind = "content-type: multipart/form-data; boundary=b\r\n" if form else ""
    writer.write(
        f"POST {UPLOADS} HTTP/1.1\r\nhost: a\r\nauthorization: {token}\r\n{kind}"
        "content-length: 1000000\r\n\r\n".encode()
    )
    writer.write((FILE[:-2] if form else b"") + b"x" * 1000)
    await asyncio.wait_for(api.shop.servicer.waiting.wait(), 10)
    writer.close()
    await asyncio.wait_for(api.shop.servicer.cancelled.wait(), 10)


async def test_a_client_that_stalls_is_told_so(opens: Any) -> None:
    async with opens(idle_seconds=0.5) as api:
        api.shop.servicer.cancelled.clear()

        async def stalling() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(3)

        answer = await api.client.post(UPLOADS, content=stalling())
        assert (answer.status_code, answer.json()["error"]["reason"]) == (408, "BODY_TIMEOUT")
        await asyncio.wait_for(api.shop.servicer.cancelled.wait(), 10)


async def test_uploads_have_a_deadline_of_their_own(opens: Any) -> None:
    async with opens(transfer_seconds=1) as api:

        async def dripping() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x"
                await asyncio.sleep(0.1)

        answer = await api.client.post(UPLOADS, content=dripping())
        assert (answer.status_code, answer.json()["error"]["reason"]) == (504, "DEADLINE_EXCEEDED")


async def test_the_gateway_does_not_care_how_long_a_file_is(api: Api) -> None:
    """No limit but the service's; the limit of JSON bodies is another one."""
    with pytest.raises(httpx.HTTPStatusError):
        (await api.client.post("/api/v1/echo", content=b" " * (2 * MIB))).raise_for_status()
    assert (await api.client.post(UPLOADS, content=b" " * (2 * MIB))).status_code == 201
