"""RPCs about opening balances."""

from uuid import UUID

from libs import caller as callers
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import balances_pb2 as pb
from regulars.loyalty.v1.balances_pb2_grpc import BalancesServiceServicer
from services.loyalty.balances import actions, wire
from services.loyalty.programs import queries as programs

MOST_UNDONE = 500


class BalancesService(BalancesServiceServicer):
    """See balances.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def ImportBalances(
        self, request: pb.ImportBalancesRequest, context: Context
    ) -> pb.ImportBalancesResponse:
        told, import_id = wire.told(request), UUID(request.import_id)
        if request.validate_only:
            async with self.rt.db.read() as tx:
                here = await programs.named(tx, request.business_id)
                found = await actions.look(tx, here, import_id, request.source, told)
        else:
            keys = self.rt.keys.for_tenant(callers.current().tenant())
            async with self.rt.db.tx() as tx:
                here = await programs.named(tx, request.business_id)
                found = await actions.import_balances(tx, keys, here, import_id, request.source, told)
        return pb.ImportBalancesResponse(results=wire.results(request, found))

    async def UndoBalances(
        self, request: pb.UndoBalancesRequest, context: Context
    ) -> pb.UndoBalancesResponse:
        import_id, limit = UUID(request.import_id), request.limit or MOST_UNDONE
        async with self.rt.db.tx() as tx:
            here = await programs.named(tx, request.business_id)
            found = await actions.undo_balances(tx, here, import_id, request.before_row, limit)
        return pb.UndoBalancesResponse(balances=map(wire.undone, found))
