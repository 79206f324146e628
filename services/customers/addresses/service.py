"""RPCs about addresses."""

from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from libs import caller as callers
from libs import idempotency, masking
from libs.audit import Reading
from libs.crypto import TenantKeys, live_versions
from libs.db import Tx
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import addresses_pb2 as pb
from regulars.customers.v1.addresses_pb2_grpc import AddressesServiceServicer
from services.customers.addresses import actions, queries, wire
from services.customers.addresses.rules import Place
from services.customers.profiles import queries as profiles
from services.customers.search import actions as search_rows


class AddressesService(AddressesServiceServicer):
    """See addresses.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateAddress(self, request: pb.CreateAddressRequest, context: Context) -> pb.Address:
        address_id, paths = new_id(), wire.paths_of(request.address, FieldMask())
        self._refuse_masked(paths)
        place = wire.written(request.address, paths, Place())
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                customer = await profiles.anywhere(
                    tx, self._keys(), reading, UUID(request.customer_id), lock=True
                )
                done = await idempotency.claim(tx, request, address_id)
                if not done:
                    customer = await actions.create_address(
                        tx, self._keys(), customer, address_id, place, request.address, request.etag
                    )
                    await self._follow_default(tx, reading, customer.customer_id)
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, done or address_id)
        return wire.address(view, customer.version)

    async def GetAddress(self, request: pb.GetAddressRequest, context: Context) -> pb.Address:
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                customer = await profiles.anywhere(tx, self._keys(), None, UUID(request.customer_id))
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, UUID(request.id))
        return wire.address(view, customer.version)

    async def ListAddresses(
        self, request: pb.ListAddressesRequest, context: Context
    ) -> pb.ListAddressesResponse:
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                customer = await profiles.anywhere(tx, self._keys(), None, UUID(request.customer_id))
                views = await queries.all_of(tx, self._keys(), reading, customer.customer_id)
        return pb.ListAddressesResponse(addresses=[wire.address(view, customer.version) for view in views])

    async def UpdateAddress(self, request: pb.UpdateAddressRequest, context: Context) -> pb.Address:
        paths = wire.paths_of(request.address, request.update_mask)
        self._refuse_masked(paths)
        address_id = UUID(request.id)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                customer = await profiles.anywhere(
                    tx, self._keys(), reading, UUID(request.customer_id), lock=True
                )
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, address_id)
                if not await idempotency.claim(tx, request, address_id):
                    place = wire.written(request.address, paths, view.place)
                    customer = await actions.update_address(
                        tx, self._keys(), customer, view, place, request.address, paths, request.etag
                    )
                    await self._follow_default(tx, reading, customer.customer_id)
                    view = await queries.one(tx, self._keys(), reading, customer.customer_id, address_id)
        return wire.address(view, customer.version)

    async def DeleteAddress(self, request: pb.DeleteAddressRequest, context: Context) -> Empty:
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                customer = await profiles.anywhere(
                    tx, self._keys(), None, UUID(request.customer_id), lock=True
                )
                await actions.delete_address(tx, customer, UUID(request.id), request.etag)
                await self._follow_default(tx, reading, customer.customer_id)
        return Empty()

    async def _follow_default(self, tx: Tx, reading: Reading, customer_id: UUID) -> None:
        """Searches find the customer by where the default address is now."""
        places = await queries.defaults(tx, self._keys(), reading, [customer_id])
        live = await live_versions(tx)
        await search_rows.follow_default(tx, self._keys(), live, customer_id, places.get(customer_id))

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    def _reading(self) -> Reading:
        return self.rt.audit.reading("user.contact.address")

    @staticmethod
    def _refuse_masked(paths: frozenset[str]) -> None:
        masking.refuse_masked(callers.current(), pb.Address.DESCRIPTOR, paths)
