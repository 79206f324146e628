"""A service declares itself; this builds what it needs, hosts it, and ends it without losing anything."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import psycopg
import uvloop
from nats.aio.client import Client
from nats.js import JetStreamContext
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from libs import clock, config, contracts, dsn, idempotency, logs, loops, stream, telemetry
from libs.audit import Audit
from libs.cache import Cache
from libs.clients import Clients
from libs.config import ConfigError, Settings
from libs.consumer import Consumer, Handler
from libs.contracts import ContractError
from libs.crypto import BadMasterKey, CryptoFault, Keys, open_keys
from libs.db import Database
from libs.ingest import Door, Ingested
from libs.internal_keys import InternalIssuer
from libs.job_runner import JobRunner, Run
from libs.objects import Objects
from libs.pages import PageTokens
from libs.probes import Probes, Readiness
from libs.relay import Relay
from libs.roles import Roles, RolesError
from libs.run.loops import Loop, supervised
from libs.run.tenancy import MAKES_TENANTS, TENANT_CREATED, asks
from libs.run.watch import Watch
from libs.sealed_files import Files
from libs.server import Registered, Server
from libs.status import Constraints
from libs.tenants import Tenants
from libs.timers import Periodic, Timers, cleaning
from libs.tokens import Tokens

log = logging.getLogger(__name__)

BAD_CONFIGURATION, PORT_TAKEN, FAILED = 7, 4, 1


@dataclass(kw_only=True)
class Runtime:
    """What a service's handlers, consumers and jobs work with; one for each service in a process."""

    name: str
    settings: Settings
    db: Database
    keys: Keys
    audit: Audit
    clients: Clients
    nats: Client
    js: JetStreamContext
    redis: "Redis | None"
    cache: Cache
    tenants: Tenants
    pages: PageTokens
    files: Files
    readiness: Readiness
    port: int = 0
    metrics_port: int = 0


class Declaration(Protocol):
    """What `services/<name>/__main__.py` calls SERVICE."""

    @property
    def name(self) -> str:
        """Name of the service."""

    @property
    def settings(self) -> type[Settings]:
        """Class of its settings."""

    def running(self, settings: Any) -> AbstractAsyncContextManager[object]:
        """Hosts the service while the block runs."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """The declaration of a service with a database.

    `servicers` gives what the generated code registers, with its servicer. `problems` maps constraints' names
    to refusals. `ingested` are RPCs that are served on NATS as well. Every service but the one that makes
    tenants hears of them without declaring it.
    """

    name: str
    servicers: Callable[[Runtime], Sequence[Registered]]
    consumers: Sequence[Handler] = ()
    jobs: Mapping[str, Run] = field(default_factory=dict)
    periodic: Sequence[Periodic] = ()
    problems: Constraints = field(default_factory=dict)
    ingested: Sequence[Ingested] = ()
    settings: type[Settings] = Settings

    def running(self, settings: Settings) -> AbstractAsyncContextManager[Runtime]:
        """Hosts the service in this process while the block runs."""
        return running(self, settings)


@asynccontextmanager
async def running(service: Service, settings: Settings) -> AsyncIterator[Runtime]:
    """Hosts a service: gRPC server, relay, consumer, jobs and timers; leaving the block stops it.

    Postgres, NATS, Redis and the other services may be away: it starts all the same, is not ready, and goes
    on when they come. Raises ContractError, RolesError, BadMasterKey, CryptoFault, OSError (a port is taken),
    LookupError (no database roles yet) for what only a person can mend.
    """
    name_token = logs.service_name.set(service.name)
    try:
        async with AsyncExitStack() as stack:
            yield await _start(service, settings, stack)
            log.info("stopping")
    finally:
        with contextlib.suppress(ValueError):  # another task leaves the block than has entered it
            logs.service_name.reset(name_token)


@asynccontextmanager
async def at_work(name: str, settings: Settings) -> AsyncIterator[Runtime]:
    """What a process beside a service works with while the block runs: it serves nothing and hears nothing."""
    token = logs.service_name.set(name)
    if settings.clock is not None:
        clock.shift_to(settings.clock)
    try:
        async with AsyncExitStack() as stack:
            yield _runtime(Service(name=name, servicers=lambda _: ()), settings, Readiness(), stack)
    finally:
        with contextlib.suppress(ValueError):
            logs.service_name.reset(token)


async def _start(service: Service, settings: Settings, stack: AsyncExitStack) -> Runtime:
    name = service.name
    if settings.clock is not None:
        clock.shift_to(settings.clock)
    contracts.check(name)
    roles = Roles.load(settings.roles_file)
    readiness = Readiness("database", "nats", "server")
    probes = Probes(readiness)
    await probes.start(settings.bind, settings.metrics_port_of(name))
    stack.push_async_callback(probes.stop)

    rt = _runtime(service, settings, readiness, stack)
    rt.metrics_port = probes.port
    tokens = Tokens.of(settings, name)
    stack.push_async_callback(tokens.close)
    server = Server(
        settings,
        name,
        contracts.methods(),
        service.servicers(rt),
        tokens=tokens,
        roles=roles,
        tenant_known=rt.tenants.require,
        constraints=service.problems,
    )
    running_loops = _loops(service, rt)
    doors = [
        Door(rt.nats, name, each, server.handler, tokens, prefix=settings.prefix) for each in service.ingested
    ]
    running_loops |= {door.name: door for door in doors}
    watch = Watch(name, readiness, rt.db, rt.nats, rt.redis, running_loops)
    tasks = [asyncio.create_task(_connect(rt.nats, settings.nats_url, name))]
    stack.push_async_callback(lambda: loops.end(*tasks))
    for loop_name, loop in running_loops.items():
        tasks.append(asyncio.create_task(supervised(loop_name, loop.run, readiness)))
    tasks.append(asyncio.create_task(supervised("audit", rt.audit.run, readiness)))

    serving = asyncio.Event()
    readiness.on_change(lambda _: serving.set())
    stack.push_async_callback(_drain, server, readiness, doors, settings.drain_seconds)
    await server.start()
    rt.port = server.port
    tasks.append(asyncio.create_task(_tell_health(server, readiness, serving)))
    readiness.set("server", None)
    await watch.look()
    tasks.append(asyncio.create_task(supervised("watch", watch.run, readiness)))
    log.info("started", extra={"port": rt.port, "metrics_port": rt.metrics_port})
    return rt


def _runtime(service: Service, settings: Settings, readiness: Readiness, stack: AsyncExitStack) -> Runtime:
    """Everything that a handler may need. Connects to nothing yet."""
    name = service.name
    db = Database(_url(settings, name, "app"), _url(settings, name, "worker"), settings.db_pool)
    stack.push_async_callback(db.close)
    keys = open_keys(name, settings.keystore, settings.master_key)
    idempotency.use_keys(db, lambda tenant_id: keys.for_tenant(tenant_id).request_hash_key)
    clients = Clients(name, settings, InternalIssuer(name, settings.internal_keys))
    stack.push_async_callback(clients.close)
    redis = (
        Redis.from_url(settings.redis_url, socket_timeout=1, socket_connect_timeout=1)
        if settings.redis_url
        else None
    )
    if redis is not None:
        stack.push_async_callback(redis.aclose)
    nc = Client()
    stack.push_async_callback(_close_nats, nc)
    audit = Audit(name, db, settings.spool)
    stack.push_async_callback(_close_audit, audit)
    return Runtime(
        name=name,
        settings=settings,
        db=db,
        keys=keys,
        audit=audit,
        clients=clients,
        nats=nc,
        js=nc.jetstream(),
        redis=redis,
        cache=Cache(redis, settings.prefix, name),
        tenants=Tenants(db, None if name == MAKES_TENANTS else asks(clients, db, keys)),
        pages=PageTokens(lambda tenant_id: keys.for_tenant(tenant_id).page_token_key),
        files=Files(name, db, keys, Objects.of(settings), settings.prefix),
        readiness=readiness,
    )


def _loops(service: Service, rt: Runtime) -> dict[str, Loop]:
    name, prefix = service.name, rt.settings.prefix
    handlers = list(service.consumers)
    if name != MAKES_TENANTS and all(h.message is not TENANT_CREATED.message for h in handlers):
        handlers.append(TENANT_CREATED)
    return {
        "relay": Relay(rt.db, rt.nats, name, prefix=prefix),
        "consumer": Consumer(rt.db, rt.nats, name, handlers, rt, prefix=prefix),
        "jobs": JobRunner(rt.db, name, service.jobs, rt),
        "timers": Timers(rt.db, name, [*cleaning(rt.db), *_files(rt), *service.periodic], rt),
    }


def _files(rt: Runtime) -> list[Periodic]:
    return [Periodic("clean files", timedelta(hours=1), lambda _: rt.files.clean())]


def _url(settings: Settings, name: str, role: dsn.Role) -> str:
    found = dsn.role_url(settings.postgres_url, settings.home, settings.database, name, role)
    return found.replace("postgresql://", "postgresql+psycopg://", 1)


async def _connect(nc: Client, url: str, name: str) -> None:
    """Tries until NATS is there. Later the connection comes back by itself."""
    await stream.connect(url, name, client=nc)


async def _tell_health(server: Server, readiness: Readiness, changed: asyncio.Event) -> None:
    """gRPC's health says what the readiness says."""
    while True:
        changed.clear()
        await server.set_serving(readiness.ready)
        await changed.wait()


async def _drain(server: Server, readiness: Readiness, doors: Sequence[Door], seconds: float) -> None:
    readiness.set("server", "stopping")
    await asyncio.gather(server.stop(seconds), *(door.drain(seconds) for door in doors))


async def _close_nats(nc: Client) -> None:
    if nc.is_connected or nc.is_connecting or nc.is_reconnecting:
        await nc.close()


async def _close_audit(audit: Audit) -> None:
    """Moves what waits if that is quick; the rest is the next process's."""
    with contextlib.suppress(TimeoutError, OSError, psycopg.Error, SQLAlchemyError):  # it stays in the spool
        async with asyncio.timeout(2):
            await audit.flush()
    audit.close()


def main(declaration: Declaration) -> None:
    """Runs a declared service as this process until SIGTERM or SIGINT. Exits with 7 for wrong settings."""
    try:
        settings = config.load(declaration.settings, declaration.name)
    except ConfigError as fault:
        _leave(fault, BAD_CONFIGURATION)
    logs.set_up(settings.log_level)
    telemetry.set_up(settings, f"regulars-{declaration.name}")
    try:
        uvloop.run(_until_stopped(declaration, settings))
    except (RolesError, BadMasterKey, CryptoFault, ContractError) as fault:
        _leave(fault, BAD_CONFIGURATION)
    except LookupError as fault:
        _leave(fault, FAILED)
    except OSError as fault:
        _leave(fault, PORT_TAKEN)
    finally:
        telemetry.shut_down()


async def _until_stopped(declaration: Declaration, settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with declaration.running(settings):
        _spare_what_stays()
        await stopped.wait()


def _spare_what_stays() -> None:
    """Modules, descriptors and routes live as long as the process: no collection looks at them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _leave(fault: Exception, code: int) -> None:
    sys.stderr.write(f"{fault}\n")
    raise SystemExit(code)
