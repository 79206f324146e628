"""PostgreSQL, NATS and Redis of one test run, shared by all its workers: from wheels, or in containers."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from libs import config
from libs.run.stack import postgres, servers
from libs.run.stack.home import Home
from libs.run.stack.process import Identity, identity

CONTAINERS = "REGULARS_TEST_CONTAINERS"
PREFIX = "regulars-tests-"
DIRECTORY = pytest.StashKey[str]()


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers of this run answer; `postgres_url` is the administrator's."""

    postgres_url: str
    nats_url: str
    redis_url: str


def make_directory() -> Path:
    """A directory for one test run. PostgreSQL's user may pass through, so that its data can be inside."""
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    root.chmod(0o711)
    (root / "owner.json").write_text(json.dumps(asdict(identity(os.getpid()))))
    return root


def sweep() -> None:
    """Ends what runs left behind that were killed."""
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(
            FileNotFoundError, PermissionError, ValueError
        ):  # another sweeps, or owns it
            if not Identity(**json.loads((root / "owner.json").read_text())).alive():
                end(root)


def of_run(root: Path) -> Servers:
    """The servers of the run whose directory is `root`: whoever asks first starts them."""
    with _only_one(root):
        known = root / "servers.json"
        if not known.exists():
            with ThreadPoolExecutor(1) as apart:  # the tests' own event loop is this thread's
                found, processes = apart.submit(asyncio.run, _start(root)).result()
            facts = {"servers": asdict(found), "processes": [asdict(process) for process in processes]}
            known.write_text(json.dumps(facts))
        return Servers(**json.loads(known.read_text())["servers"])


def end(root: Path) -> None:
    """Stops the servers of the run and removes its directory."""
    known = root / "servers.json"
    if known.exists():
        facts = json.loads(known.read_text())
        asyncio.run(servers.stop_all([Identity(**process) for process in facts["processes"]]))
    for container in _containers:
        container.stop()
    postgres.discard(Home(root / "servers"))
    shutil.rmtree(root, ignore_errors=True)


def start_containers(root: Path) -> None:
    """Starts containers for the whole run, if REGULARS_TEST_CONTAINERS asks for them."""
    if config.process_environment().get(CONTAINERS) != "1":
        return
    from testcontainers.community.nats import NatsContainer
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    pg = PostgresContainer("postgres:18", driver=None).with_command("-c max_connections=300 -c fsync=off")
    nats = NatsContainer("nats:2.11", jetstream=True)
    cache = RedisContainer("redis:7")
    for container in (pg, nats, cache):
        container.start()
        _containers.append(container)
    cache_url = f"redis://{cache.get_container_host_ip()}:{cache.get_exposed_port(6379)}/0"
    found = Servers(pg.get_connection_url(), nats.nats_uri(), cache_url)
    (root / "servers.json").write_text(json.dumps({"servers": asdict(found), "processes": []}))


_containers: list[Any] = []


async def _start(root: Path) -> tuple[Servers, list[Identity]]:
    home = Home(root / "servers")
    prepared = await servers.prepare(config.Settings(home=home.root), home, durable=False)
    processes = await servers.start(prepared.programs)
    return Servers(prepared.postgres_url, prepared.nats_url, prepared.redis_url), processes


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    with (root / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
