"""RPCs about tenants."""

from dataclasses import replace
from uuid import UUID

from libs import caller as callers
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import tenants_pb2 as pb
from regulars.customers.v1.tenants_pb2_grpc import TenantsServiceServicer
from services.customers.tenants import actions, queries, wire


class TenantsService(TenantsServiceServicer):
    """See tenants.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.Tenant:
        tenant_id = new_id()
        with callers.acting_as(replace(callers.current(), tenant_id=tenant_id)):
            async with self.rt.db.tx() as tx:
                if await actions.create_tenant(tx, request.slug, request.display_name or request.slug):
                    await self.rt.keys.create_tenant(tx)
                    await self.rt.tenants.remember(tx, request.slug)
                found = await queries.tenant(tx, slug=request.slug)
        return wire.tenant(found)

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.Tenant:
        async with self.rt.db.read() as tx:
            found = await queries.tenant(
                tx, tenant_id=UUID(request.id) if request.id else None, slug=request.slug
            )
        return wire.tenant(found)
