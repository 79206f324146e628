"""Addresses over gRPC."""

import asyncio
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from regulars.customers.v1 import addresses_pb2 as pb
from regulars.customers.v1 import customers_pb2
from tests.customers.shop import Shop, refused

BERLIN: dict[str, Any] = {
    "street_lines": ["Platz der Republik 1"],
    "city": "Berlin",
    "postal_code": "11011",
    "country": "de",
}


async def add(shop: Shop, customer_id: str, **fields: Any) -> pb.Address:
    return await shop.addresses.CreateAddress(
        pb.CreateAddressRequest(customer_id=customer_id, address=pb.Address(**BERLIN | fields))
    )


async def listed(shop: Shop, customer_id: str) -> list[pb.Address]:
    found = await shop.addresses.ListAddresses(pb.ListAddressesRequest(customer_id=customer_id))
    return list(found.addresses)


async def test_the_first_address_is_the_default_and_is_formatted(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id, label="home", latitude=52.5, longitude=13.4)
    assert (made.default, made.type, made.country, made.city) == (True, pb.ADDRESS_TYPE_BOTH, "DE", "Berlin")
    assert list(made.formatted) == ["Platz der Republik 1", "11011 BERLIN", "GERMANY"]
    got = await shop.addresses.GetAddress(pb.GetAddressRequest(customer_id=customer.id, id=made.id))
    assert got == made


async def test_everything_wrong_is_named_at_once(shop: Shop) -> None:
    customer = await shop.create()
    wrong = pb.Address(country="US", postal_code="1", state="ZZ", latitude=1, time_zone="Nope/Nope")
    problem = await refused(
        shop.addresses.CreateAddress(pb.CreateAddressRequest(customer_id=customer.id, address=wrong))
    )
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "address.time_zone" in problem.fields
    wrong.time_zone = ""
    problem = await refused(
        shop.addresses.CreateAddress(pb.CreateAddressRequest(customer_id=customer.id, address=wrong))
    )
    assert set(problem.fields) == {
        f"address.{name}" for name in ("street_lines", "city", "state", "postal_code", "longitude")
    }


async def test_there_is_always_exactly_one_default(shop: Shop) -> None:
    customer = await shop.create()
    first, second, third = [await add(shop, customer.id) for _ in range(3)]
    await shop.addresses.UpdateAddress(
        pb.UpdateAddressRequest(customer_id=customer.id, id=second.id, address=pb.Address(default=True))
    )
    assert [a.id for a in await listed(shop, customer.id)] == [second.id, third.id, first.id]
    problem = await refused(
        shop.addresses.UpdateAddress(
            pb.UpdateAddressRequest(customer_id=customer.id, id=second.id, address=pb.Address(default=False))
        )
    )
    assert problem.reason == "DEFAULT_ADDRESS_NEEDED"
    await shop.addresses.DeleteAddress(pb.DeleteAddressRequest(customer_id=customer.id, id=second.id))
    left = await listed(shop, customer.id)
    assert [(a.id, a.default) for a in left] == [(third.id, True), (first.id, False)]


async def test_a_race_for_the_default_leaves_one(shop: Shop) -> None:
    customer = await shop.create()
    made = [await add(shop, customer.id) for _ in range(4)]
    await asyncio.gather(
        *(
            shop.addresses.UpdateAddress(
                pb.UpdateAddressRequest(customer_id=customer.id, id=each.id, address=pb.Address(default=True))
            )
            for each in made
        ),
        *(add(shop, customer.id, default=True) for _ in range(4)),
    )
    assert sum(a.default for a in await listed(shop, customer.id)) == 1


async def test_an_address_is_part_of_the_customers_etag(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    assert made.etag == "2"
    got = await shop.customers.GetCustomer(customers_pb2.GetCustomerRequest(id=customer.id))
    assert got.etag == "2"
    stale = pb.UpdateAddressRequest(
        customer_id=customer.id, id=made.id, address=pb.Address(label="x"), etag=customer.etag
    )
    assert (await refused(shop.addresses.UpdateAddress(stale))).reason == "ETAG_MISMATCH"


async def test_a_mask_clears_what_the_body_leaves_out(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id, label="home", recipient="Front desk")
    after = await shop.addresses.UpdateAddress(
        pb.UpdateAddressRequest(
            customer_id=customer.id,
            id=made.id,
            address=pb.Address(label="office"),
            update_mask=FieldMask(paths=["label", "recipient"]),
        )
    )
    assert (after.label, after.HasField("recipient"), after.city) == ("office", False, "Berlin")


async def test_another_business_reaches_no_address(shop: Shop, other_shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    get = pb.GetAddressRequest(customer_id=customer.id, id=made.id)
    assert (await refused(other_shop.addresses.GetAddress(get))).code is grpc.StatusCode.NOT_FOUND
    stranger = await other_shop.create()
    mixed = pb.GetAddressRequest(customer_id=stranger.id, id=made.id)
    assert (await refused(other_shop.addresses.GetAddress(mixed))).reason == "ADDRESS_NOT_FOUND"
