"""A declared service, hosted for real: it starts in any order, knows what it lacks, and ends cleanly."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs import config, migrate, status
from libs.config import Settings
from libs.crypto.master import new_master_key
from libs.ids import new_id
from libs.problems import Problem
from libs.run.host import declaration
from libs.run.service import Runtime
from libs.tokens import make_issuer, mint
from regulars.segments.v1.segments_pb2_grpc import JobsServiceStub
from regulars.type.v1.job_pb2 import ListJobsRequest
from tests.servers import Servers


class Door:
    """A port that leads to a server, as long as it is open."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, out = await asyncio.open_connection(*self._target)
        self._open |= {writer, out}
        with suppress(asyncio.CancelledError):  # the loop ends; a callback would ask for the result
            await asyncio.gather(_copy(reader, out), _copy(inner, writer), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@dataclass
class Place:
    """Settings of a migrated database of this test's own, and doors to its servers."""

    settings: Settings
    postgres: Door
    nats: Door


@pytest.fixture
async def place(servers: Servers, tmp_path: Path) -> AsyncIterator[Place]:
    pg, nats = urlsplit(servers.postgres_url), urlsplit(servers.nats_url)
    doors = Door(pg.hostname or "", pg.port or 0), Door(nats.hostname or "", nats.port or 0)
    for door in doors:
        await door.open()
    make_issuer(tmp_path)
    database = f"run_{new_id().hex[-12:]}"
    direct = Settings(home=tmp_path, postgres_url=servers.postgres_url, database=database)
    await asyncio.to_thread(migrate.migrate, direct, ["customers", "segments"])
    yield Place(
        replace(
            direct,
            service="segments",
            postgres_url=_through(servers.postgres_url, doors[0].port),
            nats_url=_through(servers.nats_url, doors[1].port),
            prefix=f"{database}_",
            master_key=new_master_key(),
            grpc_port=0,
            metrics_port=0,
            drain_seconds=1,
        ),
        *doors,
    )
    for door in doors:
        await door.close()


def _through(url: str, port: int) -> str:
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"))


@asynccontextmanager
async def hosted(settings: Settings, name: str = "segments") -> AsyncIterator[Runtime]:
    async with declaration(name).running(replace(settings, service=name)) as rt:
        assert isinstance(rt, Runtime)
        yield rt


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def serving(port: int) -> bool:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def probe(rt: Runtime, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{rt.metrics_port}{path}")


async def list_jobs(rt: Runtime, tenant: Any) -> Problem | None:
    token = mint(rt.settings.home, tenant=tenant, roles=["owner"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rt.port}") as channel:
        try:
            await JobsServiceStub(channel).ListJobs(
                ListJobsRequest(), metadata=[("authorization", f"Bearer {token}")]
            )
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error)
        return None


async def test_it_is_ready_once_database_and_nats_are_there(place: Place) -> None:
    await place.nats.close()
    await place.postgres.close()
    async with hosted(place.settings) as rt:
        answer = await probe(rt, "/readyz")
        assert answer.status_code == 503
        assert answer.json()["parts"] | {"server": "ok"} == answer.json()["parts"]
        assert set(rt.readiness.faults) >= {"database", "nats"}
        assert not await serving(rt.port)
        problem = await list_jobs(rt, new_id())
        assert problem is not None
        assert (problem.code, problem.reason) == ("UNAVAILABLE", "UNAVAILABLE")
        await place.postgres.open()
        await eventually(lambda: _no_fault(rt, "database"))
        assert "nats" in rt.readiness.faults
        await place.nats.open()
        await eventually(lambda: serving(rt.port))
        assert (await probe(rt, "/readyz")).status_code == 200
        await place.nats.close()
        await eventually(lambda: _fault(rt, "nats"))
        assert await serving(rt.port), "reads go on without NATS"
        await place.postgres.close()
        await eventually(lambda: _not_serving(rt))
        await place.postgres.open()
        await eventually(lambda: serving(rt.port))
        await place.nats.open()
        await eventually(lambda: _no_fault(rt, "nats"))


async def _fault(rt: Runtime, part: str) -> bool:
    return part in rt.readiness.faults


async def _no_fault(rt: Runtime, part: str) -> bool:
    return part not in rt.readiness.faults


async def _not_serving(rt: Runtime) -> bool:
    return not await serving(rt.port)


async def test_a_crashed_loop_is_started_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    from libs.probes import Readiness
    from libs.run.loops import supervised

    runs, ran_twice = 0, asyncio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("secret")
        ran_twice.set()
        await asyncio.Event().wait()

    readiness = Readiness()
    task = asyncio.create_task(supervised("loop", loop, readiness))
    await eventually(lambda: _shown(readiness, "loop"))
    assert readiness.ready
    await asyncio.wait_for(ran_twice.wait(), 5)
    assert readiness.faults == {}
    task.cancel()


async def _shown(readiness: Any, part: str) -> bool:
    return part in readiness.faults


async def test_metrics_and_health_over_http(place: Place) -> None:
    async with hosted(place.settings) as rt:
        await list_jobs(rt, new_id())
        assert (await probe(rt, "/healthz")).json() == {"alive": True}
        page = (await probe(rt, "/metrics")).text
        assert (
            'regulars_rpc_seconds_count{code="UNAVAILABLE",method="JobsService.ListJobs",service="segments"}'
            in page
        )
        assert (await probe(rt, "/nothing")).status_code == 404


async def test_a_process_ends_by_sigterm_and_tells_what_is_wrong(place: Place, tmp_path: Path) -> None:
    env = {
        **config.process_environment(),
        "REGULARS_HOME": str(tmp_path),
        "REGULARS_POSTGRES_URL": place.settings.postgres_url,
        "REGULARS_DATABASE": place.settings.database,
        "REGULARS_NATS_URL": place.settings.nats_url,
        "REGULARS_PREFIX": place.settings.prefix,
        "REGULARS_MASTER_KEY": place.settings.master_key,
        "REGULARS_GRPC_PORT": "0",
        "REGULARS_METRICS_PORT": "0",
    }
    process = await _started(env)
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not lines or lines[-1]["message"] != "started":
            lines.append(json.loads(await process.stderr.readline()))
    assert {line["service"] for line in lines} == {"segments"}
    process.send_signal(signal.SIGTERM)
    rest = await asyncio.wait_for(process.stderr.read(), 20)
    assert await process.wait() == 0, rest.decode()
    for wrong in ({"REGULARS_DB_POOL": "many"}, {"REGULARS_NONSENSE": "1"}, {"REGULARS_MASTER_KEY": "short"}):
        refused = await _started(env | wrong)
        _, told = await asyncio.wait_for(refused.communicate(), 30)
        assert refused.returncode == 7, told.decode()
        assert b"Traceback" not in told


async def _started(env: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.segments", env=env, stderr=asyncio.subprocess.PIPE
    )
