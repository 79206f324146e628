"""RPCs about orders."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any
from uuid import UUID

import psycopg.errors
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError

from libs import caller as callers
from libs import loops, masking
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.ingest import Ingested
from libs.instants import instant
from libs.problems import Conflict, InvalidArgument, PermissionDenied, Problem
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import orders_pb2 as pb
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.orders import actions, queries, wire
from services.customers.orders.wire import House, Record
from services.customers.problems import EmailTaken, ExternalIdTaken, PhoneTaken
from services.customers.profiles import queries as profiles

# An order system that speaks NATS sends its batches to `ingest.orders.<tenant>`.
INGESTED = [Ingested("ingest.orders", "/regulars.customers.v1.OrdersService/RecordOrders")]
DEFAULT_PAGE = 50
CHUNK = 500  # orders in one transaction: a fraction of a second
ATTEMPTS = 10
MOST_VIOLATIONS = 2000  # in one answer: it must stay well under 1 MiB
STREAM_AHEAD = 1000  # records of a stream that wait for their transaction
# Another transaction came in between; once it has ended, what it made is found.
_RACES = (Conflict, EmailTaken, PhoneTaken, ExternalIdTaken)
_LOST = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


class OrdersService(OrdersServiceServicer):
    """See orders.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def RecordOrder(self, request: pb.RecordOrderRequest, context: Context) -> pb.RecordOrderResponse:
        order = pb.Order()
        order.CopyFrom(request.order)
        if not order.external_id.strip():
            order.external_id = request.request_id or callers.current().request_id or str(new_id())
        business_id = request.business_id or order.business_id
        (result,) = await self._record(business_id, [pb.OrderRecord(order=order)])
        return pb.RecordOrderResponse(result=_accepted(result))

    async def RecordRefund(
        self, request: pb.RecordRefundRequest, context: Context
    ) -> pb.RecordRefundResponse:
        (result,) = await self._record(request.business_id, [pb.OrderRecord(refund=request.refund)])
        return pb.RecordRefundResponse(result=_accepted(result))

    async def RecordOrders(
        self, request: pb.RecordOrdersRequest, context: Context
    ) -> pb.RecordOrdersResponse:
        results: list[pb.RecordResult] = []
        room = MOST_VIOLATIONS
        for i in range(0, len(request.records), CHUNK):
            done = await self._record(request.business_id, request.records[i : i + CHUNK])
            for each in done:
                results.append(wire.answer(each, room))
                room -= len(results[-1].error.violations)
        return pb.RecordOrdersResponse(results=results)

    async def RecordOrderStream(
        self, requests: AsyncIterator[pb.RecordOrderStreamRequest], context: Context
    ) -> AsyncIterator[pb.RecordOrderStreamResponse]:
        came: asyncio.Queue[pb.RecordOrderStreamRequest | None] = asyncio.Queue()
        room = asyncio.Semaphore(STREAM_AHEAD)

        async def take_in() -> None:
            async for request in requests:
                await room.acquire()
                came.put_nowait(request)

        reader = asyncio.create_task(take_in())
        reader.add_done_callback(lambda _: came.put_nowait(None))
        index, business_id, more = 0, "", True
        try:
            while more:
                batch = [await came.get()]
                while not came.empty() and len(batch) < CHUNK:
                    batch.append(came.get_nowait())
                more = None not in batch
                chunk = [each for each in batch if each is not None]
                if not chunk:
                    continue
                business_id = _one_business(business_id, chunk)
                for done in await self._record(business_id, [each.record for each in chunk]):
                    room.release()
                    yield pb.RecordOrderStreamResponse(index=index, result=wire.answer(done))
                    index += 1
            await reader  # raises what was wrong with the stream itself
        finally:
            await loops.end(reader)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:
        business_id = UUID(request.business_id) if request.business_id else None
        with self.rt.audit.reading("user.contact.address", "user.unique_id") as reading:
            async with self.rt.db.read() as tx:
                row = await queries.one(tx, UUID(request.id), business_id)
                business = await businesses.business(tx, row.business_id)
                private = await queries.private(tx, self._keys(), reading, row)
        return wire.order(row, business.currency, private)

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        orders, token = await self._page(
            request,
            statuses=[int(status) for status in request.status],
            placed_after=instant(request.placed_after) if request.HasField("placed_after") else None,
            placed_before=instant(request.placed_before) if request.HasField("placed_before") else None,
            source=request.source or ("manual" if request.external_id else ""),
            external_id=request.external_id,
        )
        return pb.ListOrdersResponse(orders=orders, next_page_token=token)

    async def ListCustomerOrders(
        self, request: pb.ListCustomerOrdersRequest, context: Context
    ) -> pb.ListCustomerOrdersResponse:
        orders, token = await self._page(request, of=UUID(request.customer_id))
        return pb.ListCustomerOrdersResponse(orders=orders, next_page_token=token)

    async def ListMyOrders(
        self, request: pb.ListMyOrdersRequest, context: Context
    ) -> pb.ListMyOrdersResponse:
        me = callers.current().customer_id
        if me is None:
            raise PermissionDenied("Only a customer's own token may call this.", permission="self_service")
        orders, token = await self._page(request, of=me)
        return pb.ListMyOrdersResponse(orders=map(wire.own, orders), next_page_token=token)

    async def GetCustomerMetrics(
        self, request: pb.GetCustomerMetricsRequest, context: Context
    ) -> pb.CustomerMetrics:
        async with self.rt.db.read() as tx:
            business = await self._business(tx, request.business_id)
            customer = await self._customer(tx, UUID(request.customer_id), business)
            row = await queries.metrics(tx, business.business_id, customer)
        return wire.metrics(customer, business.business_id, row, business.currency)

    async def _record(
        self, business_id: str, records: Sequence[pb.OrderRecord]
    ) -> list[pb.RecordResult | Problem]:
        """What became of each of at most CHUNK records. Raises Conflict after ATTEMPTS lost races."""
        caller = callers.current()
        for record in records:
            masking.refuse_masked(caller, pb.OrderRecord.DESCRIPTOR, _written(caller, record))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._record_once(business_id, records)
            except _RACES:
                if attempt == ATTEMPTS:
                    raise Conflict(retry_after_seconds=0) from None
            except DBAPIError as error:
                if attempt == ATTEMPTS or not isinstance(error.orig, _LOST):
                    raise
        raise AssertionError("unreachable")

    async def _record_once(
        self, business_id: str, records: Sequence[pb.OrderRecord]
    ) -> list[pb.RecordResult | Problem]:
        keys = self._keys()
        async with self.rt.db.tx() as tx:
            business = await businesses.live(tx, business_id)
            house = House(
                business.business_id, business.currency, business.country, tx.now, keys.request_hash_key
            )
            read = [_read(record, house) for record in records]
            right = [each for each in read if not isinstance(each, Problem)]
            done = iter(await actions.record_orders(tx, keys, business, right) if right else ())
        return [each if isinstance(each, Problem) else next(done) for each in read]

    async def _page(self, request: Any, of: UUID | None = None, **filters: Any) -> tuple[list[pb.Order], str]:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            business = await self._business(tx, request.business_id)
            customer = await self._customer(tx, of, business) if of else None
            rows = await queries.page(
                tx, business.business_id, size=size + 1, after=after, customer_id=customer, **filters
            )
        token = ""
        if len(rows) > size:
            last = rows[size - 1]
            token = self.rt.pages.next(request, [last.placed_at, last.order_id])
        return [wire.order(row, business.currency) for row in rows[:size]], token

    async def _business(self, tx: Tx, requested: str) -> Row[Any]:
        return await businesses.business(tx, await businesses.named(tx, requested))

    async def _customer(self, tx: Tx, customer_id: UUID, business: Row[Any]) -> UUID:
        """The id of a live customer of the business; the survivor's of a merged one. Raises CustomerNotFound."""
        view = await profiles.one(tx, self._keys(), None, customer_id, business.business_id)
        return view.customer_id

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())


def _read(record: pb.OrderRecord, house: House) -> Record | Problem:
    try:
        return wire.record(record, house)
    except InvalidArgument as problem:
        return problem


def _written(caller: callers.Caller, record: pb.OrderRecord) -> Iterable[str]:
    """The paths that a record writes; looked for only where something is masked for the caller."""
    if not caller.masks or record.WhichOneof("record") != "order":
        return ()
    found = [f"order.{field.name}" for field, _ in record.order.ListFields() if field.name != "customer"]
    return found + [f"order.customer.{field.name}" for field, _ in record.order.customer.ListFields()]


def _one_business(before: str, chunk: Sequence[pb.RecordOrderStreamRequest]) -> str:
    named = {each.business_id for each in chunk if each.business_id} | ({before} - {""})
    if len(named) > 1:
        raise InvalidArgument.of("business_id", "must be the same in the whole stream", "BUSINESS_MISMATCH")
    return next(iter(named), "")


def _accepted(result: pb.RecordResult | Problem) -> pb.RecordResult:
    if isinstance(result, Problem):
        raise result
    return result
