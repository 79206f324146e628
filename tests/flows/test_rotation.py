"""New keys for a tenant while people write, change and look up: everybody is found, nobody twice."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx

from libs.caller import Caller, acting_as
from libs.crypto import Kind
from libs.crypto.rotation import step
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from services.customers.profiles.rotation import rotation_of_identifiers
from tests.customers.shop import Shop, refusal_of
from tests.flows.looking import rows
from tests.libs.rooms import becomes
from tests.platform import Stack
from tests.scan.sentinels import Sentinels


class People:
    """Customers of one shop by the e-mail that they have now, and those who keep changing and finding them."""

    def __init__(self, shop: Shop, sentinels: Sentinels) -> None:
        self.shop = shop
        self.by_email: dict[str, pb.Customer] = {}
        self.counts = dict.fromkeys(("created", "moved", "found", "refused"), 0)
        self._sentinels = sentinels
        self._busy: set[str] = set()

    async def add(self) -> None:
        """One more customer."""
        email = self._sentinels.email()
        self.by_email[email] = await self.shop.create(email=email)
        self.counts["created"] += 1

    async def move(self) -> None:
        """Another e-mail for somebody; the old one finds nobody from then on and is free."""
        old = self._take()
        new = self._sentinels.email()
        customer = self.by_email[old]
        request = pb.UpdateCustomerRequest(id=customer.id, customer=pb.Customer(email=new))
        self.by_email[new] = await self.shop.customers.UpdateCustomer(request)
        self._busy.add(new)
        del self.by_email[old]
        assert await self.holder(old) is None
        self._busy -= {old, new}
        self.counts["moved"] += 1

    async def find(self) -> None:
        """Everybody is found by the e-mail that they have."""
        email = self._take()
        assert await self.holder(email) == self.by_email[email].id
        self._busy.remove(email)
        self.counts["found"] += 1

    async def double(self) -> None:
        """Nobody gets an e-mail that somebody has, and the refusal names the holder."""
        email = self._take()
        try:
            await self.shop.create(email=email.upper())
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
        else:
            raise AssertionError("two customers have one e-mail")
        assert (refusal.reason, refusal.metadata.get("customer_id")) == (
            "EMAIL_TAKEN",
            self.by_email[email].id,
        )
        self._busy.remove(email)
        self.counts["refused"] += 1

    async def holder(self, email: str) -> str | None:
        """Id of the one whom an e-mail finds."""
        try:
            found = await self.shop.customers.LookupCustomer(pb.LookupCustomerRequest(email=email))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return found.id

    def _take(self) -> str:
        """Somebody whom nobody else works on."""
        email = next(email for email in reversed(self.by_email) if email not in self._busy)
        # The one taken goes to the front, so that everybody's turn comes.
        self.by_email = {email: self.by_email.pop(email)} | self.by_email
        self._busy.add(email)
        return email


@asynccontextmanager
async def at_work(people: People) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Has four of them do everything over and over. What is given waits until each has been done so often more."""
    stop = asyncio.Event()

    async def worker(first: int) -> None:
        kinds = (people.add, people.find, people.move, people.double)
        for do in itertools.cycle(kinds[first:] + kinds[:first]):
            if stop.is_set():
                return
            await do()

    tasks = [asyncio.create_task(worker(n)) for n in range(4)]

    async def more(times: int) -> None:
        wanted = {name: count + times for name, count in people.counts.items()}
        async with asyncio.timeout(60):
            while any(people.counts[name] < count for name, count in wanted.items()):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    try:
        yield more
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def test_keys_rotate_while_everybody_works(
    stack: Stack, shop: Shop, rest: httpx.AsyncClient, sentinels: Sentinels
) -> None:
    people = People(shop, sentinels)
    await asyncio.gather(*(people.add() for _ in range(40)))
    customers = stack.runtimes["customers"]
    rotation = rotation_of_identifiers(customers.keys, customers.audit, 1)

    async def versions(table: str, column: str) -> set[int]:
        query = f"select distinct {column} as v from customers.{table} where tenant_id = %s"
        return {row["v"] for row in await rows(stack, query, shop.tenant.id)}

    async with at_work(people) as more:
        await more(5)
        # A rotation begins and dies after its first step: from now on two versions are written.
        with acting_as(
            Caller(tenant_id=shop.tenant.id, subject="tester", kind="service", service="customers")
        ):
            await step(customers.db, customers.keys, rotation)
        await more(10)
        assert await versions("customer_identifiers", "key_version") == {1, 2}

        admin: Any = shop.tenant.calls(CustomersServiceStub, "platform")
        job = (await admin.RotateKeys(pb.RotateKeysRequest())).job_id

        async def state() -> str:
            found = await rest.get(f"/api/v1/jobs/customers/{job}")
            assert found.status_code == 200, found.text
            return str(found.json()["state"])

        await becomes(state, "SUCCEEDED", seconds=60)
        await more(5)

    assert await versions("customer_identifiers", "key_version") == {2}
    assert await versions("subject_keys", "epoch") == {2}
    kept = customers.keys.keystore.versions(shop.tenant.id)
    assert (kept[Kind.IDENTIFIER], kept[Kind.KEK]) == ((2,), (2,))
    query = "select count(*) as n from customers.customer_identifiers where tenant_id = %s"
    assert (await rows(stack, query, shop.tenant.id))[0]["n"] == len(people.by_email)
    for email, customer in people.by_email.items():
        assert await people.holder(email) == customer.id
