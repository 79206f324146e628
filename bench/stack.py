"""A stack of the bench's own: the whole platform in a temporary home, and what stands beside it."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx

from libs import config, dsn, issuer
from libs.crypto import Keys, open_keys
from libs.db import Database
from libs.run.stack import members
from libs.run.stack.home import Home, free_port, port_is_free
from libs.run.stack.servers import of_running_stack
from regulars.customers.v1 import businesses_pb2, tenants_pb2
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.tenants_pb2_grpc import TenantsServiceStub


@dataclass(frozen=True)
class Stack:
    """A running platform with one tenant and one business."""

    home: Home
    env: Mapping[str, str]
    settings: config.Settings
    keys: Keys
    tenant_id: UUID
    business_id: UUID
    token: str

    def pids(self, *names: str) -> list[int]:
        """Process ids of members of the stack; of all without names."""
        children = self.home.read_run()["children"]
        return [facts["pid"] for name, facts in children.items() if not names or name in names]

    def url(self, service: str, role: dsn.Role) -> str:
        """The database address of one role of a service."""
        found = self.settings
        return dsn.role_url(found.postgres_url, found.home, found.database, service, role)

    def database(self, service: str) -> Database:
        """A pool of our own on the schema of a service."""
        app, worker = (
            self.url(service, role).replace("postgresql://", "postgresql+psycopg://", 1)
            for role in ("app", "worker")
        )
        return Database(app, worker, 4)


@asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """Starts the platform in a temporary home, with fsync and without rate limits; removes it at the end."""
    root = _directory()
    first = _free_ports(20)
    env = {
        name: value
        for name, value in config.process_environment().items()
        if not name.startswith("REGULARS_")
    } | {
        "REGULARS_HOME": str(root),
        "REGULARS_PORT": str(free_port(set())),
        "REGULARS_GRPC_PORT": str(first),
        "REGULARS_RATE_LIMIT_TENANT": "0",
        "REGULARS_RATE_LIMIT_CLIENT": "0",
        "REGULARS_LOG_LEVEL": "WARNING",
    }
    try:
        await _regulars(env, "up", "--detach")
        yield await _prepared(root, env)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            await _regulars(env, "down", "--remove-data")
        shutil.rmtree(root, ignore_errors=True)


def _directory() -> Path:
    """A directory that PostgreSQL's user may pass through."""
    root = Path(tempfile.mkdtemp(prefix="regulars-bench-"))
    root.chmod(0o711)
    return root


def _free_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    first = 30_000
    while not all(port_is_free("127.0.0.1", first + i) for i in range(count)):
        first += count
    return first


async def _regulars(env: Mapping[str, str], *words: str) -> None:
    command = [sys.executable, "-P", "-m", "libs.run.cli", *words]
    path = f"{config.ROOT}:{config.ROOT / 'gen'}"
    process = await asyncio.create_subprocess_exec(*command, env={**env, "PYTHONPATH": path})
    if await process.wait():
        raise subprocess.CalledProcessError(process.returncode or 1, command)


async def _prepared(root: Path, env: Mapping[str, str]) -> Stack:
    home = Home(root)
    plain = config.load(config.Settings, None, env)
    master = {"REGULARS_MASTER_KEY_FILE": str(home.secrets / "master.key")}
    whole = {**env, **of_running_stack(plain, home), **master}
    settings = config.load(config.Settings, None, whole)
    async with grpc.aio.insecure_channel(members.address(settings, "customers")) as channel:
        platform = _bearer(issuer.mint(root, tenant=None, roles=["platform"]))
        request = tenants_pb2.CreateTenantRequest(slug="bench")
        tenant = await TenantsServiceStub(channel).CreateTenant(request, metadata=platform)
        tenant_id = UUID(tenant.id)
        token = issuer.mint(root, tenant=tenant_id, roles=["owner"], ttl_seconds=86_400)
        business = businesses_pb2.Business(
            name="Bench", currency="EUR", time_zone="Europe/Berlin", country="DE", language="de"
        )
        made = await BusinessesServiceStub(channel).CreateBusiness(
            businesses_pb2.CreateBusinessRequest(business=business), metadata=_bearer(token)
        )
    keys = open_keys("customers", settings.keystore, settings.master_key)
    return Stack(home, whole, settings, keys, tenant_id, UUID(made.id), token)


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@contextmanager
def service(name: str, env: Mapping[str, str], health: str) -> Iterator[int]:
    """One more process of a service, with other settings, while the block runs; gives its process id."""
    path = f"{config.ROOT}:{config.ROOT / 'gen'}"
    command = [sys.executable, "-P", "-m", f"services.{name}"]
    with (Path(env["REGULARS_HOME"]) / "logs" / f"{name}-bench.log").open("wb") as log:
        process = subprocess.Popen(command, env={**env, "PYTHONPATH": path}, stdout=log, stderr=log)
    try:
        with httpx.Client(trust_env=False) as client:
            while not _answers(client, health):
                if process.poll() is not None:
                    raise RuntimeError(f"{name} did not start")
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).is_success
    except httpx.TransportError:
        return False


class Child:
    """A process of the bench that says where it listens once it does, and ends with the block."""

    def __init__(self, process: "subprocess.Popen[str]", said: dict[str, Any]) -> None:
        self.process = process
        self.said = said

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Sends one order and waits for its answer. Blocks."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def child(module: str, given: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Runs `python -m module` with `given` as JSON; its first line on standard output is JSON as well."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **(env or config.process_environment()),
            "PYTHONPATH": f"{config.ROOT}:{config.ROOT / 'gen'}",
        },
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} did not start")
        yield Child(process, json.loads(line))
    finally:
        process.terminate()
        process.wait(20)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
