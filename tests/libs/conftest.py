"""Servers, schemas, stream and tenant for the tests of the plumbing."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from libs import stream
from libs.config import Settings
from libs.ids import new_id
from tests.libs.rooms import Machine, Room, migrated, opened
from tests.servers import Servers

_numbers = itertools.count()


@pytest.fixture(scope="session")
def machine(servers: Servers, worker: str, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The servers of the run, and a database of this worker's own."""
    home = tmp_path_factory.mktemp("plumbing")
    settings = Settings(home=home, postgres_url=servers.postgres_url, database=f"plumbing_{worker}")
    return Machine(settings, servers.nats_url)


@pytest.fixture
async def rooms(machine: Machine) -> AsyncIterator[tuple[Room, Room]]:
    """A service that tells and one that hears, with a stream between them."""
    number = next(_numbers)
    prefix, tenant_id = f"{machine.settings.database}_{number}_", new_id()
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(opened(machine, name, prefix, tenant_id))
            for name in await migrated(machine, number)
        ]
        js = found[0].nc.jetstream()
        await stream.ensure_stream(js, prefix)
        yield found[0], found[1]
        await js.delete_stream(stream.stream_name(prefix))


@pytest.fixture
async def room(rooms: tuple[Room, Room]) -> Room:
    """One service."""
    return rooms[0]
