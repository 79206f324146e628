"""RPCs of a customer about themselves."""

from uuid import UUID

from libs import caller as callers
from libs import idempotency
from libs.problems import Faults, PermissionDenied
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.me_pb2 import GetMeRequest, UpdateMeRequest
from regulars.customers.v1.me_pb2_grpc import MeServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.profiles import actions, queries, wire

_OWN = wire.PERSON
_BUSINESS_ONLY = ("status", "type", "lifecycle_stage", "tags", "attributes", "sources", "merged_from")


class MeService(MeServiceServicer):
    """See me.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetMe(self, request: GetMeRequest, context: Context) -> pb.Customer:
        with self.rt.audit.reading(*wire.categories(_OWN)) as reading:
            async with self.rt.db.read() as tx:
                business_id = await businesses.named(tx, request.business_id)
                keys = self.rt.keys.for_tenant(tx.tenant_id)
                view = await queries.one(tx, keys, reading, _me(), business_id)
        return _own(wire.customer(view))

    async def UpdateMe(self, request: UpdateMeRequest, context: Context) -> pb.Customer:
        faults = Faults()
        paths = wire.mask_paths(request.customer, request.update_mask, faults, writable=_OWN)
        with self.rt.audit.reading(*wire.categories(_OWN)) as reading:
            async with self.rt.db.tx() as tx:
                business = await businesses.live(tx, request.business_id)
                keys = self.rt.keys.for_tenant(tx.tenant_id)
                view = await queries.one(tx, keys, reading, _me(), business.business_id, lock=True)
                if not await idempotency.claim(tx, request, view.customer_id):
                    written = wire.written(
                        request.customer,
                        paths,
                        wire.as_written(view),
                        country=business.country,
                        today=tx.now.date(),
                        definitions={},
                        faults=faults,
                    )
                    faults.refuse()
                    view = await actions.update_customer(tx, keys, view, written, request.etag)
        return _own(wire.customer(view))


def _me() -> UUID:
    customer_id = callers.current().customer_id
    if customer_id is None:
        raise PermissionDenied("Only a customer's own token may call this.", permission="self_service")
    return customer_id


def _own(message: pb.Customer) -> pb.Customer:
    """The message less what the business keeps for itself."""
    for name in _BUSINESS_ONLY:
        message.ClearField(name)  # type: ignore[arg-type]  # a name of its own
    return message
