"""Clients that record orders by every door there is, and repeat what was not answered until it is."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import nats.errors
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc.status_pb2 import Status
from nats.aio.client import Client

from libs import status
from regulars.customers.v1 import orders_pb2 as pb
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from tests.chaos.work import AWAY, CALL_SECONDS, Again, Work, called, posted
from tests.customers.purchases import item, money, order, refund
from tests.platform import Stack, TenantOfTest
from tests.scan.sentinels import Sentinels

PENDING, PAID, FULFILLED = pb.ORDER_STATUS_PENDING, pb.ORDER_STATUS_PAID, pb.ORDER_STATUS_FULFILLED
DELIVERED, CANCELLED = pb.ORDER_STATUS_DELIVERED, pb.ORDER_STATUS_CANCELLED
LIVES = (
    (PENDING,),
    (PAID,),
    (PENDING, CANCELLED),
    (PENDING, PAID, FULFILLED, DELIVERED),
    (PENDING, PAID, CANCELLED),
    (PAID, PAID, FULFILLED),
)
CLIENTS = 3
RECORDS = 6  # at most, in one call
PAUSE_SECONDS = 0.1
_AWAY_NATS = {each.value[0] for each in AWAY}
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Buyer:
    """Somebody who buys. `id` is known of those who are customers already; the others become guests."""

    email: str
    id: str = ""


@dataclass(slots=True)
class Story:
    """All that is ever told of one order; a steady one keeps its items.

    `order_ids` and `customer_ids` are what the answers said.
    """

    external_id: str
    buyer: Buyer
    revisions: list[pb.Order]
    refunds: list[int]
    steady: bool = False
    order_ids: set[str] = field(default_factory=set)
    customer_ids: set[str] = field(default_factory=set)
    guests_made: int = 0

    @property
    def last(self) -> pb.Order:
        """The newest revision."""
        return self.revisions[-1]

    @property
    def refunded(self) -> int:
        """What counts as refunded once all is told."""
        return min(total(self.last), max(self.last.refunded.amount_minor, *self.refunds, 0))

    @property
    def completed(self) -> bool:
        """Whether any revision proves that it was paid."""
        return any(each.status in {PAID, FULFILLED, DELIVERED} for each in self.revisions)

    @property
    def counts(self) -> bool:
        """Whether it is part of what the buyer spent."""
        return self.completed and self.last.status != CANCELLED

    def records(self) -> list[pb.OrderRecord]:
        """Everything, as it is sent."""
        told = [pb.OrderRecord(order=each) for each in self.revisions]
        return told + [refund(self.external_id, minor) for minor in self.refunds]


def total(told: pb.Order) -> int:
    """What an order comes to."""
    return sum(each.quantity * each.unit_price.amount_minor for each in told.items)


@dataclass
class Purchases(Work):
    """What was told so far. The records of all orders lie on one heap, from which every client takes some."""

    stack: Stack
    tenant: TenantOfTest
    business_id: str
    sentinels: Sentinels
    known: Sequence[Buyer]
    stories: dict[str, Story] = field(default_factory=dict)
    heap: list[pb.OrderRecord] = field(default_factory=list)
    strangers: list[Buyer] = field(default_factory=list)
    records: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(5))

    async def run(self) -> None:
        """Works until `stop`, and then until the heap is told to the end. Raises what must not happen."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        dice = random.Random(number)
        async with teller(self, f"till-{number}") as told:
            while batch := self._take(dice.randint(1, RECORDS)):
                results = await told.tell(batch, dice.choice(Teller.DOORS))
                for record, result in zip(batch, results, strict=True):
                    self._note(record, result)
                self.acknowledged += 1
                await asyncio.sleep(PAUSE_SECONDS * dice.random())

    def _take(self, count: int) -> list[pb.OrderRecord]:
        """Some records of the heap; empty once all is told."""
        if not self.stop.is_set() and len(self.heap) < 10 * RECORDS:
            for _ in range(10):
                story = self._story()
                self.stories[story.external_id] = story
                self.heap += story.records()
            self.dice.shuffle(self.heap)
        taken, self.heap = self.heap[:count], self.heap[count:]
        return taken

    def _story(self) -> Story:
        external_id, buyer = f"o{next(_numbers)}", self._buyer()
        revisions, items, steady = [], self._items(), self.dice.random() < 0.5
        for number, state in enumerate(self.dice.choice(LIVES), 1):
            said = order(
                state,
                external_id=external_id,
                revision=number,
                day=self.dice.randrange(60),
                items=items if steady else self._items(),
                shipping_address=pb.OrderAddress(recipient=self.sentinels.name()),
                customer_id=buyer.id,
                email=buyer.email,
            )
            if self.dice.random() < 0.2:
                said.refunded.CopyFrom(money(self.dice.randint(1, total(said))))
            revisions.append(said)
        refunds = [self.dice.randrange(1, 3000) for _ in range(self.dice.choice((0, 0, 1, 2)))]
        return Story(external_id, buyer, revisions, refunds, steady)

    def _items(self) -> list[pb.OrderItem]:
        chosen = self.dice.sample("cde", self.dice.randint(1, 2))
        return [
            item(self.dice.randrange(100, 5000), self.dice.randint(1, 3), category=category, brand="b")
            for category in chosen
        ]

    def _buyer(self) -> Buyer:
        """Somebody known, a stranger who was here before, or a new one."""
        if self.dice.random() < 0.5:
            return self.dice.choice(self.known)
        if not self.strangers or self.dice.random() < 0.4:
            self.strangers.append(Buyer(self.sentinels.email()))
        return self.dice.choice(self.strangers[-5:])

    def _note(self, record: pb.OrderRecord, result: pb.RecordResult) -> None:
        said = record.order if record.WhichOneof("record") == "order" else record.refund
        story = self.stories[said.external_id]
        if result.outcome in {pb.RECORD_OUTCOME_REFUSED, pb.RECORD_OUTCOME_UNSPECIFIED}:
            raise AssertionError(f"{said.external_id} was refused: {result.error}")
        if result.outcome != pb.RECORD_OUTCOME_WAITING:
            story.order_ids.add(result.order_id)
            story.customer_ids.add(result.customer_id)
        story.guests_made += result.guest_created
        self.records += 1


class Teller:
    """One client: its connections, and its way of telling until there is an answer."""

    DOORS = ("batch", "stream", "rest", "single", "nats")

    def __init__(self, work: Purchases, subject: str) -> None:
        self._work = work
        claims: dict[str, Any] = {"subject": subject, "businesses": [work.business_id], "ttl_seconds": 86_400}
        self._rest = work.tenant.rest(**claims)
        self._rest.timeout = httpx.Timeout(CALL_SECONDS)
        self._grpc: Any = work.tenant.calls(OrdersServiceStub, **claims)
        self._token = work.tenant.token(**claims)
        self._nats = Client()

    async def open(self) -> None:
        """Connects to NATS, which the others do by themselves."""

        async def silent(error: Exception) -> None:
            del error

        url = self._work.stack.settings.nats_url
        await self._nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=silent)

    async def close(self) -> None:
        """Closes its connections."""
        await self._rest.aclose()
        await self._nats.close()

    async def tell(self, batch: Sequence[pb.OrderRecord], door: str) -> list[pb.RecordResult]:
        """What became of the records, however long it takes."""
        done: list[pb.RecordResult] = []
        await self._work.until_answered(lambda: getattr(self, f"_by_{door}")(batch, done))
        return done

    async def _by_batch(self, batch: Sequence[pb.OrderRecord], done: list[pb.RecordResult]) -> None:
        request = pb.RecordOrdersRequest(records=batch)
        answer = await called(self._grpc.RecordOrders(request, timeout=CALL_SECONDS))
        done += answer.results

    async def _by_stream(self, batch: Sequence[pb.OrderRecord], done: list[pb.RecordResult]) -> None:
        """Begins again behind what was answered."""
        left = batch[len(done) :]

        async def requests() -> AsyncIterator[pb.RecordOrderStreamRequest]:
            for each in left:
                yield pb.RecordOrderStreamRequest(record=each)

        async def answers() -> None:
            async for answer in self._grpc.RecordOrderStream(requests(), timeout=CALL_SECONDS):
                done.append(answer.result)  # noqa: PERF401 – what came before a failure counts

        await called(answers())

    async def _by_rest(self, batch: Sequence[pb.OrderRecord], done: list[pb.RecordResult]) -> None:
        body = {"records": [MessageToDict(each) for each in batch]}
        answer = await posted(self._rest.post("/api/v1/orders/batch", json=body))
        done += map(_result, answer["results"])

    async def _by_single(self, batch: Sequence[pb.OrderRecord], done: list[pb.RecordResult]) -> None:
        for each in batch[len(done) :]:
            if each.WhichOneof("record") == "order":
                answer = await posted(self._rest.post("/api/v1/orders", json=MessageToDict(each.order)))
            else:
                answer = await posted(
                    self._rest.post("/api/v1/orders/refunds", json=MessageToDict(each.refund))
                )
            done.append(_result(answer["result"]))

    async def _by_nats(self, batch: Sequence[pb.OrderRecord], done: list[pb.RecordResult]) -> None:
        subject = f"{self._work.stack.settings.prefix}ingest.orders.{self._work.tenant.id}"
        body = pb.RecordOrdersRequest(records=batch).SerializeToString()
        headers = {"authorization": f"Bearer {self._token}"}
        try:
            answer = await self._nats.request(subject, body, timeout=CALL_SECONDS, headers=headers)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Again from error
        if (answer.headers or {})["grpc-status"] != "0":
            refusal = Status.FromString(answer.data)
            problem = status.from_status(refusal)
            if refusal.code in _AWAY_NATS or problem.reason == "CONFLICT":
                raise Again
            raise AssertionError(f"by NATS: {problem.code} {problem.reason}")
        done += pb.RecordOrdersResponse.FromString(answer.data).results


@asynccontextmanager
async def teller(work: Purchases, subject: str) -> AsyncIterator[Teller]:
    """A client for the time of a block."""
    found = Teller(work, subject)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


def _result(told: dict[str, Any]) -> pb.RecordResult:
    """A result as REST has it."""
    return ParseDict(told | {"outcome": f"RECORD_OUTCOME_{told['outcome']}"}, pb.RecordResult())
