"""RPCs about memberships."""

from uuid import UUID

from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import loyalty_pb2 as pb
from regulars.loyalty.v1.loyalty_pb2_grpc import LoyaltyServiceServicer
from services.loyalty import queries, wire


class LoyaltyService(LoyaltyServiceServicer):
    """See loyalty.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetMembership(self, request: pb.GetMembershipRequest, context: Context) -> pb.Membership:
        async with self.rt.db.read() as tx:
            row = await queries.membership(tx, UUID(request.customer_id), request.business_id)
        return wire.membership(row)
