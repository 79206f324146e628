"""The shop behind the gateway, over real HTTP; each test is a tenant of its own."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from libs.ids import new_id
from services.gateway.access_log import AccessLog
from services.gateway.app import Gateway
from services.gateway.server import gateway, serving
from services.gateway.settings import GatewaySettings
from tests.gateway.shop import COMMENTS, METHODS, Shop, shop_server


@dataclass
class Api:
    """A running gateway, and a client of it with a token."""

    shop: Shop
    app: Gateway
    port: int
    log: io.BytesIO
    lines: AccessLog
    client: httpx.AsyncClient
    tenant: UUID

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def logged(self) -> str:
        """Everything that the access log has."""
        self.lines.flush()
        return self.log.getvalue().decode()


Opens = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture(scope="session")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """The service."""
    async with shop_server(tmp_path_factory.mktemp("shop")) as found:
        yield found


@asynccontextmanager
async def opened(shop: Shop, home: Path | None = None, **settings: Any) -> AsyncIterator[Api]:
    """A gateway with these settings in front of the shop."""
    defaults: dict[str, Any] = {"addresses": {"shop": shop.address}, "port": 0, "drain_seconds": 1}
    settings = defaults | settings
    found = GatewaySettings(service="gateway", home=home or shop.home, **settings)
    log = io.BytesIO()
    lines = AccessLog(log)
    tenant = new_id()
    headers = {"authorization": f"Bearer {shop.token(tenant)}"}
    async with (
        gateway(found, METHODS, COMMENTS, lines) as app,
        serving(found, app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client,
    ):
        yield Api(shop, app, port, log, lines, client, tenant)


@pytest.fixture(scope="session")
async def shared(shop: Shop) -> AsyncIterator[Api]:
    """One gateway for the tests that need no settings of their own."""
    async with opened(shop) as found:
        yield found


@pytest.fixture
async def api(shop: Shop, shared: Api) -> AsyncIterator[Api]:
    """The shared gateway, with a fresh tenant and an empty memory of the shop."""
    servicer = shop.servicer
    servicer.requests.clear()
    servicer.metadata.clear()
    for event in (servicer.waiting, servicer.cancelled, servicer.go):
        event.clear()
    tenant = new_id()
    headers = {"authorization": f"Bearer {shop.token(tenant)}"}
    async with httpx.AsyncClient(base_url=shared.url, headers=headers, timeout=20) as client:
        yield Api(shop, shared.app, shared.port, shared.log, shared.lines, client, tenant)


@pytest.fixture
def opens(shop: Shop) -> Opens:
    """Opens a gateway with settings of its own."""

    def begin(**settings: Any) -> AbstractAsyncContextManager[Api]:
        return opened(shop, **settings)

    return begin
