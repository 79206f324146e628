"""How every service but the one that makes tenants learns of them: by the event, or by asking."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from libs.caller import Caller, acting_as
from libs.clients import Clients
from libs.consumer import Handler
from libs.crypto import Keys
from libs.db import Database, Tx
from libs.envelope import Event
from libs.problems import NotFound
from libs.tenants import Ask, Tenant
from regulars.customers.v1.events_pb2 import TenantCreated
from regulars.customers.v1.tenants_pb2 import GetTenantRequest
from regulars.customers.v1.tenants_pb2_grpc import TenantsServiceStub

MAKES_TENANTS = "customers"


def asks(clients: Clients, db: Database, keys: Keys) -> Ask:
    """Finds out about a tenant whose event has not come yet, and makes this service's keys for it."""
    stub = clients.stub(TenantsServiceStub, MAKES_TENANTS)

    async def ask(tenant_id: UUID) -> Tenant | None:
        try:
            found = await stub.GetTenant(GetTenantRequest(id=str(tenant_id)))
        except NotFound:
            return None
        with acting_as(Caller(tenant_id=tenant_id, subject="tenancy", kind="service")):
            async with db.tx() as tx:
                await keys.create_tenant(tx)
        return Tenant(tenant_id=tenant_id, slug=found.slug)

    return ask


async def _hear(tx: Tx, rt: Any, events: Sequence[Event[TenantCreated]]) -> None:
    """Stores the tenant, and makes this service's keys for it."""
    for event in events:
        await rt.tenants.remember(tx, event.message.slug)
        await rt.keys.create_tenant(tx)


TENANT_CREATED = Handler(TenantCreated, _hear)
