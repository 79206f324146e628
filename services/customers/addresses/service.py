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
from libs.problems import EtagMismatch, InvalidArgument, NotFound
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import addresses_pb2 as pb
from regulars.customers.v1.addresses_pb2_grpc import AddressesServiceServicer
from services.customers.addresses import actions, queries, wire
from services.customers.addresses.queries import AddressView
from services.customers.addresses.rules import Decision, Place
from services.customers.businesses import queries as businesses
from services.customers.profiles import queries as profiles
from services.customers.search import actions as search_rows

DEFAULT_PAGE = 50


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

    async def VerifyAddress(self, request: pb.VerifyAddressRequest, context: Context) -> pb.Address:
        decision = wire.decision(request)
        customer_id, address_id = UUID(request.customer_id), UUID(request.id)
        with self._reading() as reading:
            view, version = await self._verify(reading, customer_id, address_id, decision, request.etag)
        return wire.address(view, version)

    async def VerifyAddresses(
        self, request: pb.VerifyAddressesRequest, context: Context
    ) -> pb.VerifyAddressesResponse:
        results = []
        with self._reading() as reading:
            for item in request.items:
                result = pb.AddressDecisionResult(id=item.id)
                try:
                    view, _ = await self._verify(
                        reading, UUID(item.customer_id), UUID(item.id), wire.decision(item), item.etag
                    )
                except (InvalidArgument, NotFound, EtagMismatch) as problem:
                    result.reason = problem.reason
                else:
                    result.status = view.verification.status  # type: ignore[assignment]  # the number of the enum
                results.append(result)
        return pb.VerifyAddressesResponse(results=results)

    async def ListPendingAddresses(
        self, request: pb.ListPendingAddressesRequest, context: Context
    ) -> pb.ListPendingAddressesResponse:
        size = request.page_size or DEFAULT_PAGE
        token = self.rt.pages.after(request)
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                business_id = await businesses.named(tx, request.business_id)
                found = await queries.pending(
                    tx, self._keys(), reading, business_id, size + 1, (token[0], token[1]) if token else None
                )
            page, more = found[:size], len(found) > size
            reading.only(view.customer_id for view, _ in page)
        last = page[-1][0] if more else None
        return pb.ListPendingAddressesResponse(
            addresses=[
                pb.PendingAddress(customer_id=str(view.customer_id), address=wire.address(view, version))
                for view, version in page
            ],
            next_page_token=self.rt.pages.next(request, [last.verification.at, last.address_id])
            if last
            else "",
        )

    async def GetAddressVerificationStats(
        self, request: pb.GetAddressVerificationStatsRequest, context: Context
    ) -> pb.AddressVerificationStats:
        async with self.rt.db.read() as tx:
            rows = await queries.stats(tx, await businesses.named(tx, request.business_id))
        return wire.stats(rows)

    async def _verify(
        self, reading: Reading, customer_id: UUID, address_id: UUID, decision: Decision, etag: str
    ) -> tuple[AddressView, int]:
        """Decides on an address in a transaction of its own: the address after it, and its customer's version."""
        keys = self._keys()
        async with self.rt.db.tx() as tx:
            customer = await profiles.anywhere(tx, keys, reading, customer_id, lock=True)
            before = await queries.one(tx, keys, reading, customer.customer_id, address_id)
            customer = await actions.verify_address(tx, keys, customer, before, decision, etag)
            view = await queries.one(tx, keys, reading, customer.customer_id, address_id)
        return view, customer.version

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    def _reading(self) -> Reading:
        return self.rt.audit.reading("user.contact.address")

    @staticmethod
    def _refuse_masked(paths: frozenset[str]) -> None:
        masking.refuse_masked(callers.current(), pb.Address.DESCRIPTOR, paths)
