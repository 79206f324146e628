"""Servers, schemas, stream and tenant for the tests of the plumbing."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from libs import stream
from libs.config import Settings
from libs.ids import new_id
from libs.run.stack import postgres, servers
from libs.run.stack.home import Home
from tests.libs.rooms import Machine, Room, migrated, opened

_numbers = itertools.count()


@pytest.fixture(scope="session")
async def machine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machine]:
    """PostgreSQL and NATS in a private home."""
    home = Home(tmp_path_factory.mktemp("plumbing"))
    settings = Settings(home=home.root, redis_url="")
    prepared = await servers.prepare(settings, home, durable=False)
    programs = tuple(p for p in prepared.programs if p.name != "redis")
    running = await servers.start(programs)
    try:
        yield Machine(replace(settings, postgres_url=prepared.postgres_url), prepared.nats_url)
    finally:
        await servers.stop_all(running)
        postgres.discard(home)


@pytest.fixture
async def rooms(machine: Machine) -> AsyncIterator[tuple[Room, Room]]:
    """A service that tells and one that hears, with a stream between them."""
    number = next(_numbers)
    prefix, tenant_id = f"t{number}_", new_id()
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(opened(machine, name, prefix, tenant_id))
            for name in await migrated(machine, number)
        ]
        await stream.ensure_stream(found[0].nc.jetstream(), prefix)
        yield found[0], found[1]


@pytest.fixture
async def room(rooms: tuple[Room, Room]) -> Room:
    """One service."""
    return rooms[0]
