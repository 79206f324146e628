"""Filters, orders and pages of searches over gRPC."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import insert

from libs.caller import Caller, acting_as
from libs.instants import stamp
from regulars.customers.v1 import businesses_pb2
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.addresses_pb2 import Address, CreateAddressRequest, DeleteAddressRequest
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.search_pb2 import AttributeCondition, SearchCustomersResponse
from services.customers.orders.tables import customer_metrics
from services.customers.search import queries
from tests.customers.shop import Shop, refused

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def bought(shop: Shop, customer: pb.Customer, orders: int, spent: int, days_ago: float | None) -> None:
    """Writes the customer's metrics, as orders do."""
    tenant = shop.tenant.id
    row = {
        "tenant_id": tenant,
        "business_id": UUID(shop.id),
        "customer_id": UUID(customer.id),
        "orders_recorded": orders,
        "orders_completed": orders,
        "orders_cancelled": 0,
        "orders_refunded": 0,
        "total_spent_minor": spent,
        "refunded_minor": 0,
        "net_minor": spent,
        "average_order_minor": spent // orders if orders else 0,
        "first_order_at": None,
        "last_order_at": None if days_ago is None else NOW - timedelta(days=days_ago),
        "items": orders,
        "visits": orders,
        "lifecycle_stage": 0,
        "updated_at": NOW,
    }
    with acting_as(Caller(tenant_id=tenant, subject="test")):
        async with shop.tenant.stack.runtimes["customers"].db.tx() as tx:
            await tx.execute(insert(customer_metrics).values(row))


def first_names(answer: SearchCustomersResponse) -> list[str]:
    return [customer.first_name for customer in answer.customers]


async def declare(shop: Shop, name: str, type_: Any, *, not_personal: bool = True) -> None:
    attribute = businesses_pb2.AttributeDefinition(
        name=name, type=type_, label=name, not_personal=not_personal
    )
    await shop.tenant.calls(BusinessesServiceStub).CreateAttribute(
        businesses_pb2.CreateAttributeRequest(business_id=shop.id, attribute=attribute)
    )


def attributes(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


ADDRESSES: Mapping[str, Address] = {
    "ann": Address(
        street_lines=["1 Main St"], city="Springfield", state="IL", postal_code="62701", country="US"
    ),
    "bob": Address(street_lines=["Weg 1"], city="Köln", postal_code="50667", country="DE"),
    "cid": Address(street_lines=["Weg 2"], city="KOELN", postal_code="50667", country="DE"),
}


@pytest.fixture
async def crowd(shop: Shop) -> dict[str, pb.Customer]:
    """Five people who differ in everything that can be filtered."""
    await declare(shop, "shoe_size", businesses_pb2.ATTRIBUTE_TYPE_NUMBER)
    await declare(shop, "member_since", businesses_pb2.ATTRIBUTE_TYPE_DATE)
    await declare(shop, "club", businesses_pb2.ATTRIBUTE_TYPE_TEXT)
    await declare(shop, "secret", businesses_pb2.ATTRIBUTE_TYPE_TEXT, not_personal=False)
    people: dict[str, dict[str, Any]] = {
        "ann": {"tags": ["Early", "west"], "attributes": attributes(shoe_size=38, member_since="2020-05-01")},
        "bob": {
            "tags": ["west"],
            "status": pb.CUSTOMER_STATUS_VIP,
            "attributes": attributes(shoe_size=44, club="a"),
        },
        "cid": {
            "type": pb.CUSTOMER_TYPE_WHOLESALE,
            "email": "cid@c.example",
            "attributes": attributes(club="b", member_since="2024-01-01"),
        },
        "dan": {"sources": [pb.Source(name="shopify", external_id="1")], "tags": ["early"]},
        "eve": {"status": pb.CUSTOMER_STATUS_BLOCKED},
    }
    made = {name: await shop.create(first_name=name, last_name="Person", **f) for name, f in people.items()}
    for name, address in ADDRESSES.items():
        await shop.addresses.CreateAddress(CreateAddressRequest(customer_id=made[name].id, address=address))
    await bought(shop, made["ann"], 3, 3000, 10)
    await bought(shop, made["bob"], 1, 5000, 90)
    await bought(shop, made["cid"], 5, 2500, 1)
    await bought(shop, made["dan"], 0, 0, None)
    return made


def equals(name: str, *values: Any) -> AttributeCondition:
    condition = AttributeCondition(name=name)
    for value in values:
        target = getattr(condition, "in").add()
        target.CopyFrom(value_of(value))
    return condition


def between(name: str, least: Any = None, most: Any = None) -> AttributeCondition:
    return AttributeCondition(
        name=name,
        min=None if least is None else value_of(least),
        max=None if most is None else value_of(most),
    )


def value_of(plain: Any) -> Value:
    return Value(string_value=plain) if isinstance(plain, str) else Value(number_value=plain)


def at(days_ago: float) -> Timestamp:
    return stamp(NOW - timedelta(days=days_ago))


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"status": [pb.CUSTOMER_STATUS_VIP, pb.CUSTOMER_STATUS_BLOCKED]}, "bob eve"),
    ({"type": [pb.CUSTOMER_TYPE_WHOLESALE]}, "cid"),
    ({"tags_any": ["EARLY"]}, "ann dan"),
    ({"tags_any": ["early", "west"]}, "ann bob dan"),
    ({"tags_all": ["early", "West"]}, "ann"),
    ({"source": ["shopify"]}, "dan"),
    ({"source": ["manual"]}, "ann bob cid eve"),
    ({"country": ["DE"]}, "bob cid"),
    ({"country": ["de", "us"]}, "ann bob cid"),
    ({"city": "koln"}, "bob"),
    ({"city": "KÖLN", "country": ["US"]}, ""),
    ({"last_order_after": at(30)}, "ann cid"),
    ({"last_order_before": at(5)}, "ann bob"),
    ({"last_order_after": at(95), "last_order_before": at(5)}, "ann bob"),
    ({"total_spent_min": 2600}, "ann bob"),
    ({"total_spent_max": 2500}, "cid dan eve"),
    ({"order_count_min": 1, "order_count_max": 3}, "ann bob"),
    ({"order_count_max": 0}, "dan eve"),
    ({"attributes": [equals("shoe_size", 38, 39)]}, "ann"),
    ({"attributes": [equals("club", "a", "b")]}, "bob cid"),
    ({"attributes": [between("shoe_size", least=40)]}, "bob"),
    ({"attributes": [between("shoe_size", 38, 44), equals("club", "a")]}, "bob"),
    ({"attributes": [between("member_since", "2020-05-01", "2023-12-31")]}, "ann"),
    ({"tags_any": ["west"], "total_spent_min": 1, "country": ["US"]}, "ann"),
    (
        {
            "status": [pb.CUSTOMER_STATUS_ACTIVE],
            "last_order_after": at(30),
            "type": [pb.CUSTOMER_TYPE_REGISTERED],
        },
        "ann",
    ),
]


async def test_filters_agree_with_and_without_a_query_and_in_any_order(
    shop: Shop, crowd: dict[str, pb.Customer]
) -> None:
    for filters, expected in FILTERS:
        for order in ("", "created_at asc", "total_spent desc", "last_order_at asc, created_at desc"):
            for query in ("", "person", "persno"):
                found = await shop.search(query, order_by=order, **filters)
                assert sorted(first_names(found)) == expected.split(), (filters, order, query)
                assert found.total_size == len(expected.split()), (filters, order, query)


async def test_instants_of_creation_filter(shop: Shop) -> None:
    first = await shop.create(first_name="ann")
    second = await shop.create(first_name="bob")
    for query in ("", "bob"):
        found = await shop.search(query, created_after=second.created_at)
        assert first_names(found) == ["bob"]
    found = await shop.search(created_after=first.created_at, created_before=second.created_at)
    assert first_names(found) == ["ann"]


async def test_the_default_address_decides_and_may_change(shop: Shop, crowd: dict[str, pb.Customer]) -> None:
    made = await shop.addresses.CreateAddress(
        CreateAddressRequest(
            customer_id=crowd["ann"].id,
            address=Address(
                street_lines=["Weg 3"], city="Köln", postal_code="50667", country="DE", default=True
            ),
        )
    )
    assert sorted(first_names(await shop.search(city="Köln"))) == ["ann", "bob"]
    await shop.addresses.DeleteAddress(DeleteAddressRequest(customer_id=crowd["ann"].id, id=made.id))
    assert first_names(await shop.search(city="Köln")) == ["bob"]
    assert first_names(await shop.search(country=["US"])) == ["ann"]


ORDERS = [
    ("created_at asc", "ann bob cid dan eve"),
    ("created_at desc", "eve dan cid bob ann"),
    ("", "eve dan cid bob ann"),
    ("total_spent desc", "bob ann cid dan eve"),
    ("total_spent asc", "dan cid ann bob eve"),
    ("order_count desc", "cid ann bob dan eve"),
    ("average_order desc, created_at asc", "bob ann cid dan eve"),
    ("last_order_at desc", "cid ann bob eve dan"),
    ("last_order_at asc, created_at asc", "bob ann cid dan eve"),
    ("Total_Spent DESC , created_at", "bob ann cid dan eve"),
]


@pytest.fixture(params=[queries.WALKED_FROM, 1], ids=["looked up", "walked"])
def walked_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of candidates in both ways."""
    monkeypatch.setattr(queries, "WALKED_FROM", request.param)


@pytest.mark.usefixtures("walked_from")
async def test_orders_and_their_pages(shop: Shop, crowd: dict[str, pb.Customer]) -> None:
    for order, expected in ORDERS:
        for query, size in itertools.product(("", "person") if order else ("",), (1, 2, 3, 5, 200)):
            seen: list[str] = []
            token = ""
            for _ in range(7):
                found = await shop.search(query, order_by=order, page_size=size, page_token=token)
                seen += first_names(found)
                token = found.next_page_token
                if not token:
                    break
            assert seen == expected.split(), (order, query, size)
            assert not found.truncated


async def test_pages_hold_while_others_write(shop: Shop) -> None:
    made = [await shop.create(first_name=f"p{i}", last_name="Person") for i in range(12)]
    for i, customer in enumerate(made[:8]):
        await bought(shop, customer, 1, 100 * (i % 3), i)
    for query in ("", "person"):
        seen: list[str] = []
        token, page = "", 0
        while page == 0 or token:
            found = await shop.search(query, order_by="total_spent desc", page_size=3, page_token=token)
            seen += [customer.id for customer in found.customers]
            token, page = found.next_page_token, page + 1
            await shop.create(first_name="new", last_name="Person")
            await shop.create(first_name="another", last_name="One")
        before = [customer.id for customer in made]
        assert [each for each in seen if each in set(before)] == [each for each in seen if each in before]
        assert set(before) <= set(seen)
        assert len(seen) == len(set(seen))


async def test_wrong_requests_name_every_fault(shop: Shop) -> None:
    await declare(shop, "secret", businesses_pb2.ATTRIBUTE_TYPE_TEXT, not_personal=False)
    await declare(shop, "club", businesses_pb2.ATTRIBUTE_TYPE_TEXT)
    wrong = await refused(
        shop.search(
            order_by="name desc",
            attributes=[
                equals("secret", "x"),
                equals("other", "x"),
                between("club", "a"),
                AttributeCondition(name="club"),
            ],
        )
    )
    assert wrong.code is grpc.StatusCode.INVALID_ARGUMENT
    assert wrong.fields == {
        "order_by": "INVALID",
        "attributes[0].name": "PERSONAL_ATTRIBUTE",
        "attributes[1].name": "UNKNOWN_ATTRIBUTE",
        "attributes[2].min": "INVALID",
        "attributes[3]": "REQUIRED",
    }
    assert (await refused(shop.search(order_by="relevance"))).fields == {"order_by": "INVALID"}
    assert (await refused(shop.search(country=["XX"]))).fields == {"country[0]": "FORMAT_COUNTRY"}
    assert (await refused(shop.search(total_spent_min=-1))).code is grpc.StatusCode.INVALID_ARGUMENT
    token = await refused(shop.search("ann", order_by="created_at desc", page_token="nonsense"))
    assert token.reason == "PAGE_TOKEN_INVALID"


async def test_a_page_token_holds_for_its_own_search_alone(shop: Shop) -> None:
    for _ in range(3):
        await shop.create(first_name="Ann")
    found = await shop.search("ann", order_by="created_at desc", page_size=2)
    other = await refused(
        shop.search("bob", order_by="created_at desc", page_size=2, page_token=found.next_page_token)
    )
    assert other.reason == "PAGE_TOKEN_INVALID"
