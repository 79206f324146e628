"""The whole product in the test's own process: every service and the gateway, on real servers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

import grpc
import httpx

from libs import config, issuer
from libs.ids import new_id
from libs.migrate import migrate
from libs.run.host import hosted
from libs.run.stack import members
from libs.run.stack.home import free_port
from libs.run.stack.servers import without_user
from regulars.customers.v1.tenants_pb2 import CreateTenantRequest
from regulars.customers.v1.tenants_pb2_grpc import TenantsServiceStub
from tests.servers import Servers

StubT = TypeVar("StubT")
SECONDS = 30
_numbers = itertools.count(1)


class Calls(Generic[StubT]):
    """A stub whose calls bring a token and have a deadline."""

    def __init__(self, stub: StubT, token: str) -> None:
        self._stub = stub
        self._token = token

    def __getattr__(self, rpc: str) -> Callable[..., Any]:
        return partial(self._call, getattr(self._stub, rpc))

    def _call(
        self, rpc: Callable[..., Any], *request: Any, metadata: Iterable[tuple[str, str]] = (), **options: Any
    ) -> Any:
        options.setdefault("timeout", SECONDS)
        return rpc(*request, metadata=(("authorization", f"Bearer {self._token}"), *metadata), **options)


@dataclass
class Stack:
    """A running product. `env` is what configured it; `runtimes` are what its services work with, by name."""

    env: Mapping[str, str]
    settings: config.Settings
    admin_url: str
    runtimes: Mapping[str, Any]
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    @property
    def rest(self) -> str:
        """Base URL of the gateway."""
        return members.rest_url(self.settings)

    def address(self, service: str) -> str:
        """`host:port` of a service's gRPC."""
        return self.settings.address_of(service)

    def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to a service, shared by all tests of this process."""
        if service not in self._channels:
            self._channels[service] = grpc.aio.insecure_channel(self.address(service))
        return self._channels[service]

    def calls(self, stub: Callable[[grpc.aio.Channel], StubT], token: str) -> StubT:
        """A stub of the service that its package names, with a token; typed as the generated one."""
        service = stub.__module__.split(".")[1]
        return cast(StubT, Calls(stub(self.channel(service)), token))

    def token(
        self,
        tenant: UUID | None,
        *roles: str,
        businesses: Iterable[UUID | str] | None = None,
        customer: UUID | str | None = None,
        subject: str = "tester",
        name: str | None = None,
        ttl_seconds: float = 3600,
    ) -> str:
        """A token of the development issuer. `businesses` None: all; `roles` default to admin."""
        return issuer.mint(
            self.settings.home,
            tenant=tenant,
            roles=roles or ("customer" if customer else "admin",),
            businesses=None if businesses is None else [UUID(str(business)) for business in businesses],
            customer=None if customer is None else UUID(str(customer)),
            subject=subject,
            name=name,
            ttl_seconds=ttl_seconds,
        )

    async def new_tenant(self) -> "TenantOfTest":
        """A tenant that nothing else uses."""
        slug = f"t{next(_numbers)}-{new_id().hex[-12:]}"
        platform = self.calls(TenantsServiceStub, self.token(None, "platform"))
        made = await platform.CreateTenant(CreateTenantRequest(slug=slug))
        return TenantOfTest(UUID(made.id), slug, self)

    async def close(self) -> None:
        """Closes the channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


@dataclass(frozen=True)
class TenantOfTest:
    """One test's tenant."""

    id: UUID
    slug: str
    stack: Stack

    def token(self, *roles: str, **claims: Any) -> str:
        """A token of this tenant; see `Stack.token`."""
        return self.stack.token(self.id, *roles, **claims)

    def calls(self, stub: Callable[[grpc.aio.Channel], StubT], *roles: str, **claims: Any) -> StubT:
        """A stub that calls as this tenant's admin, or with other roles and claims."""
        return self.stack.calls(stub, self.token(*roles, **claims))

    def rest(self, *roles: str, **claims: Any) -> httpx.AsyncClient:
        """An HTTP client of the gateway with a token of this tenant. The caller closes it."""
        return httpx.AsyncClient(
            base_url=self.stack.rest,
            headers={"authorization": f"Bearer {self.token(*roles, **claims)}"},
            timeout=SECONDS,
            trust_env=False,
        )


def environment(servers: Servers, home: Path, worker: str) -> dict[str, str]:
    """The variables of a stack of its own: database, prefix, home and ports."""
    names = members.present()
    ports: set[int] = set()
    while len(ports) < len(names) + 1:
        ports.add(free_port(ports))
    free = iter(ports)
    env = {
        "REGULARS_HOME": str(home),
        "REGULARS_POSTGRES_URL": without_user(servers.postgres_url),
        "REGULARS_NATS_URL": servers.nats_url,
        "REGULARS_DATABASE": f"test_{worker}",
        "REGULARS_PREFIX": f"{worker}_",
        "REGULARS_PORT": str(next(free)),
        "REGULARS_METRICS_PORT": "0",
        "REGULARS_RATE_LIMIT_TENANT": "0",
        "REGULARS_RATE_LIMIT_CLIENT": "0",
        "REGULARS_DRAIN_SECONDS": "2",
        "REGULARS_LOG_LEVEL": "WARNING",
        "REGULARS_KEY_GRACE_SECONDS": "2",
    }
    if servers.redis_url:
        env["REGULARS_REDIS_URL"] = servers.redis_url
    return env | {f"REGULARS_{name.upper()}_GRPC_PORT": str(next(free)) for name in names}


@asynccontextmanager
async def running_stack(
    servers: Servers, home: Path, worker: str, services: Iterable[str] | None = None, **more: str
) -> AsyncIterator[Stack]:
    """Migrates and hosts services (default: all) until the block ends. `more` are further variables."""
    env = environment(servers, home, worker) | more
    names = list(services or members.present())
    settings = config.load(config.Settings, None, env)
    as_admin = replace(settings, postgres_url=servers.postgres_url)
    await asyncio.to_thread(migrate, as_admin, [name for name in names if name != members.GATEWAY])
    async with hosted(names, env) as runtimes:
        stack = Stack(env, settings, servers.postgres_url, runtimes)
        async with asyncio.timeout(60):
            for name in names:
                while not await members.healthy(settings, name):  # noqa: ASYNC110 – nobody tells us
                    await asyncio.sleep(0.05)
        try:
            yield stack
        finally:
            await stack.close()
