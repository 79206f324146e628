"""RPCs about the timeline."""

from uuid import UUID

from libs import caller as callers
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import timeline_pb2 as pb
from regulars.customers.v1.timeline_pb2_grpc import TimelineServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.profiles import queries as profiles
from services.customers.timeline import queries, wire
from services.customers.timeline.queries import At

DEFAULT_PAGE = 50


class TimelineService(TimelineServiceServicer):
    """See timeline.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def ListTimeline(
        self, request: pb.ListTimelineRequest, context: Context
    ) -> pb.ListTimelineResponse:
        caller = callers.current()
        keys = self.rt.keys.for_tenant(caller.tenant())
        size = request.page_size or DEFAULT_PAGE
        wanted = wire.wanted(request, notes=caller.may("notes.read"))
        token = self.rt.pages.after(request)
        after = At(*token) if token else None
        with self.rt.audit.reading("user.behavior", "user.content") as reading:
            async with self.rt.db.read() as tx:
                business = await businesses.business(tx, await businesses.named(tx, request.business_id))
                here = business.business_id
                customer = await profiles.one(
                    tx, keys, None, UUID(request.customer_id), here, deleted=request.show_deleted
                )
                places = await queries.page(tx, here, customer.customer_id, wanted, size + 1, after)
                more = len(places) > size
                found = await queries.entries(tx, keys, reading, here, customer.customer_id, places[:size])
        return pb.ListTimelineResponse(
            entries=[
                wire.entry(place, found[place], business.currency)
                for place in places[:size]
                if place in found
            ],
            next_page_token=self.rt.pages.next(request, list(places[size - 1])) if more else "",
        )
