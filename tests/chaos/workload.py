"""Clients that create and change customers, over REST and gRPC, and repeat what was not answered until it is."""

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from libs.ids import new_id
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.businesses_pb2 import Business, CreateBusinessRequest
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.customers.shop import refusal_of
from tests.platform import Stack, TenantOfTest
from tests.scan.sentinels import Sentinels

PATIENCE_SECONDS = 120
CALL_SECONDS = 5
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.4)
AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
AWAY_HTTP = {503, 504, 429}


class Again(Exception):
    """No answer, or one that says to try again."""


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """A refusal, by its reason."""

    reason: str


@dataclass(slots=True)
class Person:
    """A customer as the last acknowledged answer had it. `version` counts the changes from 1."""

    id: str
    email: str
    first_name: str
    status: str
    version: int = 1


@dataclass
class Workload:
    """What was asked for and acknowledged so far. `repeats` are calls that had to be sent again."""

    stack: Stack
    tenant: TenantOfTest
    business_id: str
    sentinels: Sentinels
    people: dict[str, Person] = field(default_factory=dict)
    acknowledged: int = 0
    repeats: int = 0
    duels: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients: int = 6) -> None:
        """Works until `stop`; every client finishes what it has begun. Raises what must not happen."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(number))

    async def more(self, count: int, seconds: float = 90) -> None:
        """Waits until so many more calls were acknowledged."""
        wanted = self.acknowledged + count
        async with asyncio.timeout(seconds):
            while self.acknowledged < wanted:  # noqa: ASYNC110 – many tell it
                await asyncio.sleep(0.02)

    async def _client(self, number: int) -> None:
        caller = Caller(self, f"client-{number}")
        mine: list[Person] = []
        dice = random.Random(number)
        try:
            for turn in itertools.count():
                if self.stop.is_set():
                    return
                by_rest = dice.random() < 0.5
                if turn % 10 == 9:
                    mine.append(await self._duel(caller))
                elif not mine or dice.random() < 0.5:
                    mine.append(await self._create(caller, self.sentinels.email(), by_rest))
                else:
                    await self._update(caller, dice.choice(mine), by_rest, blocked=dice.random() < 0.5)
        finally:
            await caller.close()

    async def _create(self, caller: "Caller", email: str, by_rest: bool) -> Person:
        fields = {"email": email, "first_name": self.sentinels.name()}
        made = await caller.create(fields, by_rest)
        person = Person(made["id"], email, fields["first_name"], "ACTIVE")
        assert (made["version"], made["email"], made["first_name"]) == (1, email, person.first_name)
        assert person.id not in self.people, "two requests have made one customer"
        self.people[person.id] = person
        self.acknowledged += 1
        return person

    async def _duel(self, caller: "Caller") -> Person:
        """Two requests want the same e-mail at once: exactly one gets it."""
        email = self.sentinels.email()
        results = await asyncio.gather(
            *(self._create(caller, email, by_rest) for by_rest in (True, False)), return_exceptions=True
        )
        won = [each for each in results if isinstance(each, Person)]
        lost = [each.reason for each in results if isinstance(each, Refused)]
        if len(won) != 1 or lost != ["EMAIL_TAKEN"]:
            raise AssertionError(f"a duel ended with {results!r}")
        self.duels += 1
        return won[0]

    async def _update(self, caller: "Caller", person: Person, by_rest: bool, *, blocked: bool) -> None:
        fields = {"first_name": self.sentinels.name(), "status": "BLOCKED" if blocked else "ACTIVE"}
        done = await caller.update(person, fields, by_rest)
        person.version += 1
        person.first_name, person.status = fields["first_name"], fields["status"]
        assert (done["version"], done["first_name"]) == (person.version, person.first_name)
        self.acknowledged += 1


class Caller:
    """One client: its connections, and its way of asking until there is an answer."""

    def __init__(self, work: Workload, subject: str) -> None:
        self._work = work
        claims: dict[str, Any] = {"subject": subject, "businesses": [work.business_id], "ttl_seconds": 86_400}
        self._rest = work.tenant.rest(**claims)
        self._rest.timeout = httpx.Timeout(CALL_SECONDS)
        self._grpc: Any = work.tenant.calls(CustomersServiceStub, **claims)

    async def close(self) -> None:
        """Closes its connections."""
        await self._rest.aclose()

    async def create(self, fields: dict[str, str], by_rest: bool) -> dict[str, Any]:
        """Creates a customer, however long it takes. Raises Refused."""
        request_id = new_id().hex

        async def over_rest() -> dict[str, Any]:
            headers = {"idempotency-key": request_id}
            return await self._http("POST", "/api/v1/customers", headers, as_json(fields), 201)

        async def over_grpc() -> dict[str, Any]:
            customer = pb.Customer(email=fields["email"], first_name=fields["first_name"])
            request = pb.CreateCustomerRequest(customer=customer, request_id=request_id)
            return from_message(await self._call(self._grpc.CreateCustomer, request, ()))

        return await self._until_answered(over_rest if by_rest else over_grpc)

    async def update(self, person: Person, fields: dict[str, str], by_rest: bool) -> dict[str, Any]:
        """Changes a customer of a version that is known, however long it takes. Raises Refused."""
        request_id = new_id().hex

        async def over_rest() -> dict[str, Any]:
            headers = {"idempotency-key": request_id, "if-match": f'"{person.version}"'}
            path = f"/api/v1/customers/{person.id}"
            return await self._http("PATCH", path, headers, as_json(fields), 200)

        async def over_grpc() -> dict[str, Any]:
            status = pb.CustomerStatus.Value(f"CUSTOMER_STATUS_{fields['status']}")
            customer = pb.Customer(first_name=fields["first_name"], status=status)
            request = pb.UpdateCustomerRequest(id=person.id, customer=customer, etag=str(person.version))
            metadata = (("x-request-id", request_id),)
            return from_message(await self._call(self._grpc.UpdateCustomer, request, metadata))

        return await self._until_answered(over_rest if by_rest else over_grpc)

    async def _until_answered(self, ask: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for attempt in itertools.count():
                try:
                    found: dict[str, Any] = await ask()
                except Again:
                    self._work.repeats += 1
                    await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
                else:
                    return found
        raise AssertionError("unreachable")

    async def _http(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, str], wanted: int
    ) -> dict[str, Any]:
        try:
            answer = await self._rest.request(method, path, headers=headers, json=body)
        except httpx.TransportError as error:
            raise Again from error
        if answer.status_code == wanted:
            found = answer.json()
            return {
                "id": found["id"],
                "email": found["email"],
                "first_name": found["firstName"],
                "version": int(found["etag"]),
            }
        told = answer.json()["error"]
        if answer.status_code in AWAY_HTTP or told["reason"] == "CONFLICT":
            raise Again
        if answer.status_code >= 500:
            raise AssertionError(f"{method}: {answer.status_code} {told}")
        raise Refused(told["reason"])

    async def _call(self, rpc: Any, request: Any, metadata: Any) -> pb.Customer:
        try:
            found: pb.Customer = await rpc(request, metadata=metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            if error.code() in AWAY or refusal.reason == "CONFLICT":
                raise Again from error
            if not refusal.reason or error.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}:
                raise AssertionError(f"{error.code()}: {error.details()}") from error
            raise Refused(refusal.reason) from error
        return found


async def open_business(tenant: TenantOfTest) -> str:
    """Id of a business of the tenant."""
    business = Business(name="Corner Shop", currency="USD", country="US")
    made = await tenant.calls(BusinessesServiceStub).CreateBusiness(CreateBusinessRequest(business=business))
    return made.id


def as_json(fields: dict[str, str]) -> dict[str, str]:
    """Fields as REST has them."""
    return {"firstName" if name == "first_name" else name: value for name, value in fields.items()}


def from_message(customer: pb.Customer) -> dict[str, Any]:
    """What is compared of an answer."""
    return {
        "id": customer.id,
        "email": customer.email,
        "first_name": customer.first_name,
        "version": int(customer.etag),
    }
