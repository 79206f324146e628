"""The gateway as a process: built from its settings, served by uvicorn, stopped without losing a request."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn

from libs import contracts
from libs.config import SERVICES
from libs.contracts import Method
from libs.probes import Probes, Readiness
from libs.tokens import Tokens
from services.gateway.access_log import AccessLog
from services.gateway.api import Api, compile_routes
from services.gateway.app import Gateway
from services.gateway.docs import Docs
from services.gateway.health import Health
from services.gateway.limits import Limiter
from services.gateway.openapi.document import describe
from services.gateway.protocol import limited
from services.gateway.settings import GatewaySettings
from services.gateway.upstreams import Upstream

log = logging.getLogger(__name__)

BACKLOG = 4096
UNSENT_BYTES = 128 << 10


@asynccontextmanager
async def gateway(
    settings: GatewaySettings,
    methods: Mapping[str, Method] | None = None,
    comments: Mapping[str, str] | None = None,
    access_log: AccessLog | None = None,
) -> AsyncIterator[Gateway]:
    """The application, with its connections, for as long as the block runs.

    Serves all contracts unless `methods` (by gRPC path) says otherwise. Raises ContractError.
    """
    methods = contracts.methods() if methods is None else methods
    comments = contracts.comments() if comments is None else comments
    names = {method.service_name for method in methods.values()}
    upstreams = {
        name: Upstream(
            name,
            settings.address_of(name),
            [method for method in methods.values() if method.service_name == name],
            channels=settings.channels,
            calls=settings.calls,
            waiting=settings.waiting,
        )
        for name in sorted(
            names, key=lambda name: SERVICES.index(name) if name in SERVICES else len(SERVICES)
        )
    }
    router = compile_routes(methods.values(), upstreams, comments)
    tokens = Tokens.of(settings, "gateway")
    limiter = Limiter(settings.redis_url, settings.prefix)
    lines = access_log or AccessLog()
    limiter.start()
    try:
        yield Gateway(
            Api(settings, router, tokens, limiter, lines),
            Docs(describe(methods.values(), comments)),
            Health(upstreams.values()),
            public_metrics=settings.public_metrics,
        )
    finally:
        await limiter.stop()
        await tokens.close()
        for upstream in upstreams.values():
            await upstream.close()
        lines.flush()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: who runs the process decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


@asynccontextmanager
async def serving(settings: GatewaySettings, app: Gateway) -> AsyncIterator[int]:
    """Listens for as long as the block runs; gives the port. At its end running requests are finished.

    Raises OSError if the port is taken.
    """
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    listener = socket.create_server((settings.bind, settings.port), family=family, backlog=BACKLOG)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Of what a client has not taken the kernel holds that much, not megabytes: so a slow one is seen to take some.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    config = uvicorn.Config(
        app,
        host=settings.bind,
        port=settings.port,
        loop="none",
        http=limited(settings.header_limit, settings.header_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )
    server = _Server(config)
    port: int = listener.getsockname()[1]
    task = asyncio.create_task(server.serve([listener]))
    try:
        log.info("listening", extra={"bind": settings.bind, "port": port})
        yield port
    finally:
        server.should_exit = True
        await task


@dataclass(frozen=True)
class GatewayService:
    """The declaration of the gateway: a service without tables, over HTTP."""

    name: str = "gateway"
    settings: type[GatewaySettings] = GatewaySettings

    def running(self, settings: GatewaySettings) -> AbstractAsyncContextManager[int]:
        """Hosts the gateway in this process while the block runs; gives its port."""
        return running(settings)


@asynccontextmanager
async def running(settings: GatewaySettings) -> AsyncIterator[int]:
    """Hosts the gateway for all contracts, with probes. Raises ContractError; OSError for a taken port."""
    readiness = Readiness("server")
    probes = Probes(readiness)
    await probes.start(settings.bind, settings.metrics_port_of("gateway"))
    try:
        async with gateway(settings) as app, serving(settings, app) as port:
            readiness.set("server", None)
            yield port
            readiness.set("server", "stopping")
    finally:
        await probes.stop()
