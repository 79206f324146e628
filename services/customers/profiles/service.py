"""RPCs about customers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from libs import caller as callers
from libs import clock, idempotency, masking
from libs.audit import Reading
from libs.crypto import TenantKeys, live_versions
from libs.db import Tx
from libs.ids import new_id
from libs.instants import instant
from libs.problems import Faults, PermissionDenied
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.problems import CustomerNotFound, EmailTaken, ExternalIdTaken, PhoneTaken
from services.customers.profiles import actions, membership, queries, rules, tags, wire
from services.customers.profiles.jobs import ask_for_rotation
from services.customers.profiles.queries import View
from services.customers.profiles.wire import Written

DEFAULT_PAGE = 50
STREAM_CHUNK = 500
RENAME_CHUNK = 1000
ADJUST = "loyalty.adjust"
_ZERO = UUID(int=0)


class CustomersService(CustomersServiceServicer):
    """See customers.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateCustomer(self, request: pb.CreateCustomerRequest, context: Context) -> pb.Customer:
        message, customer_id = request.customer, new_id()
        paths = wire.present_paths(message)
        self._refuse_masked(paths)
        tier = request.initial_tier.strip()
        if tier and not callers.current().may(ADJUST):
            raise PermissionDenied("An initial tier is set by hand.", permission=ADJUST)
        async with self.rt.db.tx() as tx:
            business = await businesses.live(tx, request.business_id or message.business_id)
            done = await idempotency.claim(tx, request, customer_id)
            if done:
                with self._reading() as reading:
                    view = await queries.one(
                        tx, self._keys(), reading, done, business.business_id, deleted=True
                    )
            else:
                written = await self._written(tx, business.business_id, business.country, message, paths)
                written = replace(written, initial_tier=tier)
                view = await actions.create_customer(tx, self._keys(), business, customer_id, written)
        return wire.customer(view)

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Context) -> pb.Customer:
        fields = wire.check_read_mask(request.read_mask)
        customer_id, keys = UUID(request.id), self._keys()
        business_id = businesses.told(callers.current(), request.business_id)
        with self._reading(fields) as reading:
            opened, deleted = reading if wire.opens_sealed(fields) else None, request.show_deleted
            view = None
            if business_id:
                view = await queries.at_once(
                    self.rt.db, keys, opened, customer_id, business_id, deleted=deleted
                )
            if view is None:
                async with self.rt.db.read() as tx:
                    business_id = await businesses.named(tx, request.business_id)
                    view = await queries.one(tx, keys, opened, customer_id, business_id, deleted=deleted)
        return wire.customer(view, fields, request.id)

    async def BatchGetCustomers(
        self, request: pb.BatchGetCustomersRequest, context: Context
    ) -> pb.BatchGetCustomersResponse:
        fields = wire.check_read_mask(request.read_mask)
        ids = list(dict.fromkeys(UUID(each) for each in request.ids))
        with self._reading(fields) as reading:
            async with self.rt.db.read() as tx:
                business_id = await businesses.named(tx, request.business_id)
                opened = reading if wire.opens_sealed(fields) else None
                found = await queries.many(tx, self._keys(), opened, ids, business_id)
        return pb.BatchGetCustomersResponse(
            customers=[wire.customer(found[id_], fields, str(id_)) for id_ in ids if id_ in found],
            missing_ids=[str(id_) for id_ in ids if id_ not in found],
        )

    async def BatchGetCustomerFacts(
        self, request: pb.BatchGetCustomerFactsRequest, context: Context
    ) -> pb.BatchGetCustomerFactsResponse:
        ids = list(dict.fromkeys(UUID(each) for each in request.ids))
        with self._reading(wire.OF_FACTS) as reading:
            async with self.rt.db.read() as tx:
                found = await queries.facts(tx, self._keys(), reading, ids)
        return pb.BatchGetCustomerFactsResponse(facts=map(wire.facts, found))

    async def LookupCustomer(self, request: pb.LookupCustomerRequest, context: Context) -> pb.Customer:
        fields = wire.check_read_mask(request.read_mask)
        with self._reading(fields) as reading:
            async with self.rt.db.read() as tx:
                business = await businesses.business(tx, await businesses.named(tx, request.business_id))
                key = wire.lookup_key(request, business.business_id, business.country)
                found = await queries.holder(tx, self._keys(), await live_versions(tx), *key)
                if found is None:
                    raise CustomerNotFound
                view = await queries.one(tx, self._keys(), reading, found, business.business_id)
        return wire.customer(view, fields)

    async def ListCustomers(
        self, request: pb.ListCustomersRequest, context: Context
    ) -> pb.ListCustomersResponse:
        fields = wire.check_read_mask(request.read_mask)
        size = request.page_size or DEFAULT_PAGE
        token = self.rt.pages.after(request)
        with self._reading(fields) as reading:
            async with self.rt.db.read() as tx:
                business_id = await businesses.named(tx, request.business_id)
                views = await queries.page(
                    tx,
                    self._keys(),
                    reading if wire.opens_sealed(fields) else None,
                    business_id,
                    size=size + 1,
                    after=UUID(token[0]) if token else None,
                    ascending=request.order_by == "created_at asc",
                    deleted=request.deleted,
                    created_after=instant(request.created_after)
                    if request.HasField("created_after")
                    else None,
                    created_before=instant(request.created_before)
                    if request.HasField("created_before")
                    else None,
                )
                reading.only(view.customer_id for view in views[:size])
                total, estimated = (
                    (None, False) if token else await queries.total(tx, business_id, deleted=request.deleted)
                )
        more = len(views) > size
        return pb.ListCustomersResponse(
            customers=[wire.customer(view, fields) for view in views[:size]],
            next_page_token=self.rt.pages.next(request, [str(views[size - 1].customer_id)]) if more else "",
            total_size=total,
            total_estimated=estimated,
        )

    async def StreamCustomers(
        self, request: pb.StreamCustomersRequest, context: Context
    ) -> AsyncIterator[pb.StreamCustomersResponse]:
        fields = wire.check_read_mask(request.read_mask)
        last: UUID | None = UUID(request.after_id) if request.after_id else _ZERO
        while last is not None:
            with self._reading(fields) as reading:
                async with self.rt.db.read() as tx:
                    business_id = (
                        await businesses.named(tx, request.business_id) if request.business_id else None
                    )
                    opened = reading if wire.opens_sealed(fields) else None
                    last, views = await queries.next_pass(
                        tx, self._keys(), opened, last, STREAM_CHUNK, business_id
                    )
            if views:
                yield pb.StreamCustomersResponse(
                    customers=[
                        pb.CustomerVersion(customer=wire.customer(view, fields), version=view.version)
                        for view in views
                    ]
                )

    async def UpdateCustomer(self, request: pb.UpdateCustomerRequest, context: Context) -> pb.Customer:
        faults = Faults()
        paths = wire.mask_paths(request.customer, request.update_mask, faults)
        self._refuse_masked(paths)
        async with self.rt.db.tx() as tx:
            business = await businesses.live(tx, request.business_id)
            done = await idempotency.claim(tx, request, UUID(request.id))
            with self._reading() as reading:
                view = await queries.one(
                    tx,
                    self._keys(),
                    reading,
                    UUID(request.id),
                    business.business_id,
                    deleted=bool(done),
                    lock=not done,
                )
            if not done:
                written = await self._written(
                    tx, business.business_id, business.country, request.customer, paths, view, faults
                )
                view = await actions.update_customer(tx, self._keys(), view, written, request.etag)
        return wire.customer(view, asked_for=request.id)

    async def UpsertCustomer(
        self, request: pb.UpsertCustomerRequest, context: Context
    ) -> pb.UpsertCustomerResponse:
        try:
            return await self._upsert(request)
        except (EmailTaken, PhoneTaken, ExternalIdTaken):
            # Somebody else made this very customer between our look-up and our insert: now it is found.
            return await self._upsert(request)

    async def _upsert(self, request: pb.UpsertCustomerRequest) -> pb.UpsertCustomerResponse:
        message, faults, new = request.customer, Faults(), new_id()
        paths = wire.mask_paths(message, request.update_mask, faults)
        self._refuse_masked(paths)
        keys = self._keys()
        async with self.rt.db.tx() as tx:
            business = await businesses.live(tx, request.business_id or message.business_id)
            here, country = business.business_id, business.country
            done = await idempotency.claim(tx, request, new)
            if done:
                with self._reading() as reading:
                    view = await queries.one(tx, keys, reading, done, here, deleted=True)
                return pb.UpsertCustomerResponse(customer=wire.customer(view), created=view.version == 1)
            key = wire.upsert_key(request, here, country)
            found = await queries.holder(tx, keys, await live_versions(tx), *key) if key else None
            if found is None:
                written = await self._written(tx, here, country, message, paths, faults=faults)
                view = await actions.create_customer(tx, keys, business, new, written)
                return pb.UpsertCustomerResponse(customer=wire.customer(view), created=True)
            await idempotency.point(tx, request, found)
            await membership.lock_person(tx, found)
            code = rules.referral_code(message.referral_code)
            await membership.join_business(tx, found, business, wire.source_name(message), code)
            with self._reading() as reading:
                before = await queries.one(tx, keys, reading, found, here)
            written = await self._written(tx, here, country, message, paths, before, faults)
            view = await actions.update_customer(tx, keys, before, written)
        return pb.UpsertCustomerResponse(customer=wire.customer(view))

    async def DeleteCustomer(self, request: pb.DeleteCustomerRequest, context: Context) -> Empty:
        customer_id = UUID(request.id)
        mode = request.mode or pb.DELETION_MODE_ERASE
        async with self.rt.db.tx() as tx:
            business_id = await businesses.named(tx, request.business_id) if request.business_id else None
            if not await idempotency.claim(tx, request, customer_id):
                await membership.delete_customer(tx, customer_id, business_id, mode, request.etag)
        return Empty()

    async def RestoreCustomer(self, request: pb.RestoreCustomerRequest, context: Context) -> pb.Customer:
        customer_id = UUID(request.id)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                business = await businesses.live(tx, request.business_id)
                if not await idempotency.claim(tx, request, customer_id):
                    await membership.restore_customer(tx, self._keys(), reading, customer_id)
                view = await queries.one(tx, self._keys(), reading, customer_id, business.business_id)
        return wire.customer(view)

    async def JoinBusiness(self, request: pb.JoinBusinessRequest, context: Context) -> pb.Customer:
        customer_id = UUID(request.id)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                business = await businesses.live(tx, request.business_id)
                await queries.seen(tx, customer_id)
                await membership.lock_person(tx, customer_id)
                code = rules.referral_code(request.referral_code)
                await membership.join_business(tx, customer_id, business, request.source, code)
                view = await queries.one(tx, self._keys(), reading, customer_id, business.business_id)
        return wire.customer(view)

    async def LeaveBusiness(self, request: pb.LeaveBusinessRequest, context: Context) -> Empty:
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                business_id = await businesses.named(tx, request.business_id)
                await queries.seen(tx, UUID(request.id))
                try:
                    view = await queries.one(
                        tx, self._keys(), reading, UUID(request.id), business_id, deleted=True, lock=True
                    )
                except CustomerNotFound:
                    return Empty()  # left before
                await membership.leave_business(tx, self._keys(), view)
        return Empty()

    async def AddCustomerTags(self, request: pb.AddCustomerTagsRequest, context: Context) -> pb.Customer:
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                business = await businesses.live(tx, request.business_id)
                before = await self._locked(tx, reading, request.id, business.business_id)
                view = await tags.add_tags(tx, before, request.tags)
        return wire.customer(view)

    async def RemoveCustomerTag(self, request: pb.RemoveCustomerTagRequest, context: Context) -> Empty:
        async with self.rt.db.tx() as tx:
            business = await businesses.live(tx, request.business_id)
            before = await self._locked(tx, None, request.id, business.business_id)
            await tags.remove_tag(tx, before, request.tag)
        return Empty()

    async def ListTags(self, request: pb.ListTagsRequest, context: Context) -> pb.ListTagsResponse:
        async with self.rt.db.read() as tx:
            rows = await queries.tags(tx, await businesses.named(tx, request.business_id))
        return pb.ListTagsResponse(tags=[pb.TagCount(tag=row.tag, customers=row.customers) for row in rows])

    async def RenameTag(self, request: pb.RenameTagRequest, context: Context) -> pb.RenameTagResponse:
        wire.check_rename(request)
        renamed = 0
        async with self.rt.db.read() as tx:
            business = await businesses.live(tx, request.business_id)
        while True:
            async with self.rt.db.tx() as tx:
                chunk = await tags.rename_tag(
                    tx, business.business_id, request.tag, request.new_tag, RENAME_CHUNK
                )
            renamed += chunk
            if chunk < RENAME_CHUNK:
                return pb.RenameTagResponse(customers=renamed)

    async def GetCustomerStats(
        self, request: pb.GetCustomerStatsRequest, context: Context
    ) -> pb.CustomerStats:
        async with self.rt.db.read() as tx:
            business_id = await businesses.named(tx, request.business_id)
            rows = await queries.stats(tx, business_id, clock.now() - timedelta(days=30))
        return wire.stats(rows)

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Context) -> pb.RotateKeysResponse:
        async with self.rt.db.tx() as tx:
            job_id = await ask_for_rotation(tx)
        return pb.RotateKeysResponse(job_id=str(job_id))

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    def _reading(self, fields: frozenset[str] = frozenset()) -> Reading:
        return self.rt.audit.reading(*wire.categories(fields))

    @staticmethod
    def _refuse_masked(paths: frozenset[str]) -> None:
        masking.refuse_masked(callers.current(), pb.Customer.DESCRIPTOR, paths)

    async def _locked(self, tx: Tx, reading: Reading | None, id_: str, business_id: UUID) -> View:
        return await queries.one(tx, self._keys(), reading, UUID(id_), business_id, lock=True)

    async def _written(
        self,
        tx: Tx,
        business_id: UUID,
        country: str,
        message: pb.Customer,
        paths: frozenset[str],
        before: View | None = None,
        faults: Faults | None = None,
    ) -> Written:
        """The customer as the request wants it. Raises InvalidArgument with everything that is wrong."""
        faults = faults or Faults()
        touches_attributes = any(path.startswith("attributes") for path in paths)
        definitions = await businesses.definitions(tx, business_id) if touches_attributes else {}
        written = wire.written(
            message,
            paths,
            wire.as_written(before),
            country=country,
            today=tx.now.date(),
            definitions=definitions,
            faults=faults,
        )
        faults.refuse()
        return written
