"""Services without rooms of their own, on real servers: what the tests of the plumbing need.

Each test gets schemas, a stream prefix and a tenant of its own.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy
from nats.aio.client import Client
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Uuid, func, select
from sqlalchemy.dialects.postgresql import insert

from libs import dsn, loops, migrate, stream
from libs.caller import Caller, acting_as
from libs.config import Settings
from libs.consumer import Consumer, Handler
from libs.db import Database, Tx
from libs.envelope import Event
from libs.ids import new_id
from libs.outbox import emit
from libs.plumbing import outbox
from libs.relay import Relay
from regulars.customers.v1.events_pb2 import CustomerCreated

heard = Table(
    "heard",
    MetaData(),
    Column("tenant_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("times", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The servers that all tests of this process share."""

    settings: Settings
    nats_url: str


def caller(tenant_id: UUID | None, **changes: Any) -> Caller:
    """Somebody of the tenant."""
    return replace(
        Caller(tenant_id=tenant_id, subject="tester", request_id="r-1", method="/test/Tell"), **changes
    )


@dataclass
class Room:
    """One service: its database and its connection to NATS."""

    name: str
    machine: Machine
    db: Database
    nc: Client
    prefix: str
    tenant_id: UUID

    def me(self, **changes: Any) -> Caller:
        """Somebody of this test's tenant."""
        return replace(caller(self.tenant_id), **changes)

    def url(self, role: dsn.Role) -> str:
        """Where a role of this service finds its schema."""
        return url_of(self.machine.settings, self.name, role)

    async def tell(self, count: int = 1, *, version: int = 1, customer_id: UUID | None = None) -> list[UUID]:
        """Emits `count` events in one transaction; gives the customers' ids."""
        ids = [customer_id or new_id() for _ in range(count)]
        with acting_as(self.me()):
            async with self.db.tx() as tx:
                for aggregate in ids:
                    message = CustomerCreated(customer_id=str(aggregate), source="manual")
                    await emit(tx, message, aggregate_id=aggregate, version=version)
        return ids

    async def waiting(self) -> int:
        """Events in the outbox."""
        async with self.db.worker() as tx:
            return int(await tx.scalar(select(func.count()).select_from(outbox)))

    async def stored(self) -> int:
        """Events on the stream."""
        info = await self.nc.jetstream().stream_info(stream.stream_name(self.prefix))
        return info.state.messages

    async def heard(self) -> dict[UUID, tuple[int, int]]:
        """(version, times) by customer, as `hear` noted them for this tenant."""
        with acting_as(self.me()):
            async with self.db.read() as tx:
                return {row.customer_id: (row.version, row.times) for row in await tx.execute(select(heard))}

    def relay(self, **options: Any) -> Relay:
        """A relay of this service."""
        return Relay(self.db, self.nc, "customers", prefix=self.prefix, **options)

    def consumer(self, handler: Handler | None = None, **options: Any) -> Consumer:
        """A consumer of this service."""
        handlers = [handler or Handler(CustomerCreated, hear)]
        options = {"backoff_seconds": 0.02, **options}
        return Consumer(self.db, self.nc, self.name, handlers, None, prefix=self.prefix, **options)


async def hear(tx: Tx, rt: Any, events: Sequence[Event[CustomerCreated]]) -> None:
    """Notes each event: the newest version, and how often the customer was heard of."""
    for event in events:
        statement = insert(heard).values(
            tenant_id=event.tenant_id, customer_id=event.aggregate_id, version=event.version, times=1
        )
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["tenant_id", "customer_id"],
                set_={
                    "times": heard.c.times + 1,
                    "version": func.greatest(heard.c.version, statement.excluded.version),
                },
            )
        )


def url_of(settings: Settings, service: str, role: dsn.Role) -> str:
    """The SQLAlchemy address of one role."""
    found = dsn.role_url(settings.postgres_url, settings.home, settings.database, service, role)
    return found.replace("postgresql://", "postgresql+psycopg://", 1)


@asynccontextmanager
async def opened(machine: Machine, name: str, prefix: str, tenant_id: UUID) -> AsyncIterator[Room]:
    """A service whose schema was migrated already."""
    database = Database(url_of(machine.settings, name, "app"), url_of(machine.settings, name, "worker"))
    nc = await stream.connect(machine.nats_url, name)
    try:
        yield Room(name, machine, database, nc, prefix, tenant_id)
    finally:
        await nc.close()
        await database.close()


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    """Waits until `holds`, and fails if it does not in time."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 – the condition is elsewhere: in a database or a stream
            await asyncio.sleep(0.02)


async def becomes(count: Callable[[], Awaitable[Any]], wanted: Any, seconds: float = 15) -> None:
    """Waits until `count` gives `wanted`; fails showing what it gave instead."""
    found: Any = None

    async def holds() -> bool:
        nonlocal found
        found = await count()
        return bool(found == wanted)

    try:
        await eventually(holds, seconds)
    except TimeoutError:
        raise AssertionError(f"{found!r} did not become {wanted!r} in {seconds} s") from None


@asynccontextmanager
async def running(*runners: Relay | Consumer | Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Runs loops for the length of the block."""
    tasks = [asyncio.create_task(loop.run()) for loop in runners]
    try:
        yield tasks
    finally:
        await loops.end(*tasks)
        for task in tasks:
            assert task.cancelled()


class Child:
    """Another process of a room's service, to be killed: it runs `function(room)` of a test module."""

    def __init__(self, room: Room, module: str, function: str) -> None:
        code = (
            "import asyncio, sys; from tests.libs.rooms import same_room;"
            f" from tests.libs.{module.rpartition('.')[2]} import {function} as function;"
            " asyncio.run(same_room(function, *sys.argv[1:]))"
        )
        settings = room.machine.settings
        where = str(settings.home), settings.postgres_url, settings.database, room.machine.nats_url
        command = [sys.executable, "-c", code, *where, room.name, room.prefix]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[2])

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    async def ended(self) -> int:
        """Waits for its end."""
        return await asyncio.to_thread(self._process.wait, 30)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._process.kill()
        self._process.wait()


async def migrated(machine: Machine, number: int) -> tuple[str, str]:
    """Schemas of two services; gives their names."""
    names = f"teller{number}", f"hearer{number}"
    await asyncio.to_thread(migrate.migrate, machine.settings, names)
    owner = sqlalchemy.create_engine(url_of(machine.settings, names[1], "owner"))
    with owner.begin() as connection:
        heard.create(connection)
    owner.dispose()
    return names


async def same_room(
    function: Callable[[Room], Awaitable[None]],
    home: str,
    postgres_url: str,
    database: str,
    nats_url: str,
    name: str,
    prefix: str,
) -> None:
    """What a Child does."""
    settings = Settings(home=Path(home), postgres_url=postgres_url, database=database)
    async with opened(Machine(settings, nats_url), name, prefix, new_id()) as room:
        await function(room)
