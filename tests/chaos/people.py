"""Clients that create and change customers, over REST and gRPC, and repeat what was not answered until it is."""

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from libs.ids import new_id
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.businesses_pb2 import Business, CreateBusinessRequest
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.chaos.work import CALL_SECONDS, Refused, Work, called, posted
from tests.platform import Stack, TenantOfTest
from tests.scan.sentinels import Sentinels

CLIENTS = 3
PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class Person:
    """A customer as the last acknowledged answer had it. `version` counts the changes from 1."""

    id: str
    email: str
    first_name: str
    status: str
    version: int = 1


@dataclass
class People(Work):
    """The customers that were asked for and acknowledged so far."""

    stack: Stack
    tenant: TenantOfTest
    business_id: str
    sentinels: Sentinels
    people: dict[str, Person] = field(default_factory=dict)
    duels: int = 0

    async def run(self) -> None:
        """Works until `stop`; every client finishes what it has begun. Raises what must not happen."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number))

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
                await asyncio.sleep(PAUSE_SECONDS * dice.random())
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

    def __init__(self, work: People, subject: str) -> None:
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
            return await self._http("POST", "/api/v1/customers", headers, as_json(fields))

        async def over_grpc() -> dict[str, Any]:
            customer = pb.Customer(email=fields["email"], first_name=fields["first_name"])
            request = pb.CreateCustomerRequest(customer=customer, request_id=request_id)
            return from_message(await called(self._grpc.CreateCustomer(request, timeout=CALL_SECONDS)))

        return await self._work.until_answered(over_rest if by_rest else over_grpc)

    async def update(self, person: Person, fields: dict[str, str], by_rest: bool) -> dict[str, Any]:
        """Changes a customer of a version that is known, however long it takes. Raises Refused."""
        request_id = new_id().hex

        async def over_rest() -> dict[str, Any]:
            headers = {"idempotency-key": request_id, "if-match": f'"{person.version}"'}
            path = f"/api/v1/customers/{person.id}"
            return await self._http("PATCH", path, headers, as_json(fields))

        async def over_grpc() -> dict[str, Any]:
            status = pb.CustomerStatus.Value(f"CUSTOMER_STATUS_{fields['status']}")
            customer = pb.Customer(first_name=fields["first_name"], status=status)
            request = pb.UpdateCustomerRequest(id=person.id, customer=customer, etag=str(person.version))
            options: dict[str, Any] = {"metadata": (("x-request-id", request_id),), "timeout": CALL_SECONDS}
            return from_message(await called(self._grpc.UpdateCustomer(request, **options)))

        return await self._work.until_answered(over_rest if by_rest else over_grpc)

    async def _http(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, str]
    ) -> dict[str, Any]:
        found = await posted(self._rest.request(method, path, headers=headers, json=body))
        return {
            "id": found["id"],
            "email": found["email"],
            "first_name": found["firstName"],
            "version": int(found["etag"]),
        }


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
