"""Request and reply on NATS: what came before the stop is answered, and nobody gets past the subject's tenant."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import grpc
from nats.aio.client import Client

from libs import stream
from libs.ids import new_id
from libs.ingest import STATUS, Door, Ingested
from libs.issuer import ISSUER, jwks_file
from libs.rpc import Context, Handler
from libs.tokens import Tokens, make_issuer, mint
from tests.servers import Servers


class Echo:
    """Answers what it is asked, once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.came = 0

    async def handler(self, path: str) -> Handler:
        async def answer(raw: bytes, context: Context) -> bytes:
            self.came += 1
            await self.may.wait()
            if raw == b"refuse":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Not\nnow.")
            return raw * 2_000_000 if raw == b"large" else raw

        return grpc.unary_unary_rpc_method_handler(answer)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 – nobody tells
            await asyncio.sleep(0.02)


async def test_requests_in_work_are_answered_and_later_ones_are_not_taken(
    servers: Servers, tmp_path: Path
) -> None:
    make_issuer(tmp_path)
    tenant: UUID = new_id()
    token = mint(tmp_path, tenant=tenant, roles=("service",), businesses=None, subject="shop", ttl_seconds=60)
    tokens = Tokens("customers", ISSUER, "regulars", str(jwks_file(tmp_path)), tmp_path / "internal")
    ours, theirs = Client(), await stream.connect(servers.nats_url, "client")
    await stream.connect(servers.nats_url, "server", client=ours)
    prefix, echo = f"{new_id().hex}_", Echo()
    door = Door(ours, "customers", Ingested("ingest.echo", "/x/Y"), echo.handler, tokens, prefix=prefix)
    running = asyncio.create_task(door.run())
    headers = {"Authorization": f"Bearer {token}"}

    async def ask(body: bytes, subject: str = str(tenant), **given: str) -> tuple[str, bytes]:
        answer = await theirs.request(
            f"{prefix}ingest.echo.{subject}", body, timeout=20, headers=given or headers
        )
        return (answer.headers or {})[STATUS], answer.data

    await _until(lambda: door._subscription is not None)
    asked = [asyncio.create_task(ask(body)) for body in (b"a", b"b", b"large", b"refuse")]
    await _until(lambda: echo.came == 4)
    for subject, given in ((str(new_id()), headers), (str(tenant), {"Authorization": "Bearer x"})):
        status, _ = await ask(b"stranger", subject, **given)
        assert status in {"7", "16"}
    stopping = asyncio.create_task(door.drain(10))
    await _until(lambda: door._subscription is None)
    echo.may.set()
    answers = await asyncio.gather(*asked)
    await stopping
    assert answers[:2] == [("0", b"a"), ("0", b"b")]
    assert [status for status, _ in answers[2:]] == ["8", "9"]  # too large for NATS; refused
    assert echo.came == 4
    running.cancel()
    await asyncio.wait([running])
    await theirs.close()
    await ours.close()
    await tokens.close()
