"""Gateways of a test's own in front of the services that all tests share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from libs import config
from services.gateway.server import gateway, serving
from services.gateway.settings import GatewaySettings
from tests.platform import TenantOfTest


@asynccontextmanager
async def another_gateway(tenant: TenantOfTest, **variables: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway with these variables (RATE_LIMIT_CLIENT …), and a client of it with the tenant's token."""
    given = {f"REGULARS_{name}": value for name, value in variables.items()}
    env = dict(tenant.stack.env) | {"REGULARS_PORT": "0"} | given
    settings = config.load(GatewaySettings, "gateway", env)
    headers = {"authorization": f"Bearer {tenant.token()}"}
    async with gateway(settings) as app, serving(settings, app) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as client:
            yield client
