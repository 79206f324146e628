"""RPCs about businesses and their attributes."""

from uuid import UUID

from libs import idempotency
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import businesses_pb2 as pb
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceServicer
from services.customers.businesses import actions, queries, wire

DEFAULT_PAGE = 50


class BusinessesService(BusinessesServiceServicer):
    """See businesses.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateBusiness(self, request: pb.CreateBusinessRequest, context: Context) -> pb.Business:
        values = wire.new_business(request.business)
        business_id = new_id()
        async with self.rt.db.tx() as tx:
            done = await idempotency.claim(tx, request, business_id)
            if not done:
                await actions.create_business(tx, business_id, values)
            row = await queries.business(tx, done or business_id)
        return wire.business(row)

    async def GetBusiness(self, request: pb.GetBusinessRequest, context: Context) -> pb.Business:
        async with self.rt.db.read() as tx:
            row = await queries.business(tx, UUID(request.id))
        return wire.business(row)

    async def ListBusinesses(
        self, request: pb.ListBusinessesRequest, context: Context
    ) -> pb.ListBusinessesResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            rows = await queries.page(tx, size + 1, UUID(after[0]) if after else None)
        token = self.rt.pages.next(request, [str(rows[size - 1].business_id)]) if len(rows) > size else ""
        return pb.ListBusinessesResponse(businesses=map(wire.business, rows[:size]), next_page_token=token)

    async def UpdateBusiness(self, request: pb.UpdateBusinessRequest, context: Context) -> pb.Business:
        values = wire.changes(request.business, request.update_mask)
        business_id = UUID(request.id)
        async with self.rt.db.tx() as tx:
            if await idempotency.claim(tx, request, business_id):
                row = await queries.business(tx, business_id)
            else:
                row = await actions.update_business(tx, business_id, values, request.etag)
        return wire.business(row)

    async def ArchiveBusiness(self, request: pb.ArchiveBusinessRequest, context: Context) -> pb.Business:
        async with self.rt.db.tx() as tx:
            row = await actions.archive_business(tx, UUID(request.id))
        return wire.business(row)

    async def CreateAttribute(
        self, request: pb.CreateAttributeRequest, context: Context
    ) -> pb.AttributeDefinition:
        values = wire.new_attribute(request.attribute)
        async with self.rt.db.tx() as tx:
            business = await queries.live(tx, request.business_id)
            await actions.create_attribute(tx, business.business_id, values)
            row = await queries.attribute(tx, business.business_id, request.attribute.name)
        return wire.attribute(row)

    async def ListAttributes(
        self, request: pb.ListAttributesRequest, context: Context
    ) -> pb.ListAttributesResponse:
        async with self.rt.db.read() as tx:
            rows = await queries.attributes(tx, await queries.named(tx, request.business_id))
        return pb.ListAttributesResponse(attributes=map(wire.attribute, rows))

    async def ArchiveAttribute(
        self, request: pb.ArchiveAttributeRequest, context: Context
    ) -> pb.AttributeDefinition:
        async with self.rt.db.tx() as tx:
            business = await queries.live(tx, request.business_id)
            await actions.archive_attribute(tx, business.business_id, request.name)
            row = await queries.attribute(tx, business.business_id, request.name)
        return wire.attribute(row)
