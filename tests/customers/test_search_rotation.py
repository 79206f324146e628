"""Search keys rotate while people search and write."""

import asyncio
from uuid import UUID

from sqlalchemy import delete, select

from libs.caller import Caller, acting_as
from libs.crypto import Kind, live_versions
from libs.crypto.rotation import rotate
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.addresses_pb2 import Address, CreateAddressRequest
from services.customers.search.rotation import rotation_of_search
from services.customers.search.tables import customer_search
from tests.customers.shop import Shop

GRACE_SECONDS = 0.2


async def test_everybody_is_found_all_the_while(shop: Shop) -> None:
    runtime = shop.tenant.stack.runtimes["customers"]
    source = pb.Source(name="shopify", external_id="77-a")
    ann = await shop.create(first_name="Ann", last_name="Steady", phone="+14155552671", sources=[source])
    place = Address(street_lines=["Weg 1"], city="Köln", postal_code="50667", country="DE")
    await shop.addresses.CreateAddress(CreateAddressRequest(customer_id=ann.id, address=place))
    gone = await shop.create(first_name="Gone", last_name="Person")
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=gone.id))
    for i in range(30):
        await shop.create(first_name="Many", last_name=f"Others{i}")
    over = asyncio.Event()
    misses: list[str] = []

    async def search() -> None:
        while not over.is_set():
            for query in ("ann steady", "2671", "77-a", "staedy"):
                found = await shop.search(query, city="koln", country=["DE"])
                if [customer.id for customer in found.customers] != [ann.id]:
                    misses.append(query)

    async def write() -> None:
        for i in range(100_000):
            if over.is_set():
                return
            made = await shop.create(first_name="Fresh", last_name=f"Written{i}x")
            change = pb.UpdateCustomerRequest(id=made.id, customer=pb.Customer(last_name=f"Changed{i}y"))
            await shop.customers.UpdateCustomer(change)
            for query, expected in ((f"written{i}x fresh", []), (f"changed{i}y fresh", [made.id])):
                found = await shop.search(query, page_size=1)
                right = [c.id for c in found.customers if c.last_name == f"Changed{i}y"] if expected else []
                if right != expected:
                    misses.append(query)

    with acting_as(Caller(tenant_id=shop.tenant.id, subject="operator")):
        async with runtime.db.read() as tx:
            first = (await live_versions(tx)).current[Kind.SEARCH]
        busy = [asyncio.create_task(search()), asyncio.create_task(write())]
        try:
            for leaving in (first, first + 1):
                rotation = rotation_of_search(runtime.keys, runtime.audit, leaving)
                await rotate(runtime.db, runtime.keys, rotation, grace_seconds=GRACE_SECONDS)
        finally:
            over.set()
            await asyncio.gather(*busy)
        async with runtime.db.read() as tx:
            assert (await live_versions(tx)).written[Kind.SEARCH] == (first + 2,)
            rows = (
                await tx.execute(select(customer_search.c.customer_id, customer_search.c.key_version))
            ).all()
    assert not misses
    assert {row.key_version for row in rows} == {first + 2}
    assert UUID(gone.id) not in {row.customer_id for row in rows}


async def test_a_rotation_makes_the_rows_that_are_missing(shop: Shop) -> None:
    runtime = shop.tenant.stack.runtimes["customers"]
    made = await shop.create(first_name="Ann", last_name="Early")
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="operator")):
        async with runtime.db.tx() as tx:
            await tx.execute(delete(customer_search))
        assert not (await shop.search("early")).customers
        rotation = rotation_of_search(runtime.keys, runtime.audit, 1)
        await rotate(runtime.db, runtime.keys, rotation, grace_seconds=GRACE_SECONDS)
    assert [customer.id for customer in (await shop.search("early")).customers] == [made.id]
