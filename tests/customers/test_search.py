"""Finding customers over gRPC by what a person types."""

import asyncio
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from libs.ids import new_id
from regulars.customers.v1 import businesses_pb2
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.search_pb2 import SearchCustomersRequest, SearchCustomersResponse
from regulars.customers.v1.search_pb2_grpc import SearchServiceStub
from tests.customers.shop import Shop, refused
from tests.platform import Stack, TenantOfTest

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def names(answer: SearchCustomersResponse) -> list[str]:
    return [customer.full_name for customer in answer.customers]


PEOPLE: list[dict[str, Any]] = [
    {"first_name": "John", "last_name": "Smith", "email": "john.smith@acme.example", "phone": "+14155552671"},
    {"first_name": "Johanna", "last_name": "Smithers", "email": "jo@other.example"},
    {"first_name": "Zoë", "last_name": "Ångström", "email": "zoe@north.example", "phone": "+46701740605"},
    {"first_name": "Γιώργος", "last_name": "Παπαδόπουλος", "email": "gp@south.example"},
    {"first_name": "Сергей", "last_name": "Кузнецов", "email": "sk@east.example"},
    {"full_name": "王小明", "email": "wang@east.example"},
    {"first_name": "さくら", "last_name": "田中"},
    {"first_name": "민준", "last_name": "김"},
    {"first_name": "小龙", "last_name": "李"},
    {"first_name": "Siobhán", "last_name": "O’Brien", "email": "shiv@west.example"},
    {"first_name": "محمد", "last_name": "أحمد", "email": "ma@south.example"},
    {
        "first_name": "Maria",
        "last_name": "Fernandez Lopez",
        "phone": "+34612345678",
        "sources": [pb.Source(name="shopify", external_id="A-10042")],
    },
]


async def people(shop: Shop) -> None:
    for fields in PEOPLE:
        await shop.create(**fields)


TYPED = [
    ("John Smith", "John Smith"),
    ("smith john", "John Smith"),
    ("SMITH", "John Smith"),
    ("joh smi", "John Smith"),
    ("mithe", "Johanna Smithers"),
    ("Jhon Smiht", "John Smith"),
    ("smyth jon", "John Smith"),
    ("john.smith@acme.example", "John Smith"),
    ("JOHN.SMITH@ACME.EXAMPLE", "John Smith"),
    ("john.smi", "John Smith"),
    ("hn.smith@ac", "John Smith"),
    ("@acme.example", "John Smith"),
    ("(415) 555-2671", "John Smith"),
    ("+1 415 555 2671", "John Smith"),
    ("001 415 555 2671", "John Smith"),
    ("2671", "John Smith"),
    ("5552", "John Smith"),
    ("smith 2671", "John Smith"),
    ("0701 740 605", "Zoë Ångström"),
    ("zoe angstrom", "Zoë Ångström"),
    ("ÅNGSTRÖM", "Zoë Ångström"),
    ("angstrm", "Zoë Ångström"),
    ("papadopoulos", "Γιώργος Παπαδόπουλος"),
    ("παπαδοπουλος", "Γιώργος Παπαδόπουλος"),
    ("giorgos papadopulos", "Γιώργος Παπαδόπουλος"),
    ("кузнецов", "Сергей Кузнецов"),
    ("kuznetsov sergei", "Сергей Кузнецов"),
    ("小明", "王小明"),
    ("王", "王小明"),
    ("wang", "王小明"),
    ("obrien", "Siobhán O’Brien"),
    ("O'Brien siobhan", "Siobhán O’Brien"),
    ("احمد", "محمد أحمد"),
    ("a-10042", "Maria Fernandez Lopez"),
    ("lopez maria", "Maria Fernandez Lopez"),
    ("fernandes lopes", "Maria Fernandez Lopez"),
    ("612 345", "Maria Fernandez Lopez"),
    ("ferxandxz maria", "Maria Fernandez Lopez"),
    ("smixhx john", "John Smith"),
    ("田中さくら", "さくら 田中"),
    ("김민준", "민준 김"),
    ("李小龙", "小龙 李"),
]


async def test_search_finds_people_as_they_are_typed(shop: Shop) -> None:
    await people(shop)
    found = {query: (await shop.search(query)).customers for query, _ in TYPED}
    wrong = {query: first for query, first in TYPED if not found[query] or found[query][0].full_name != first}
    assert not wrong


async def test_the_best_match_comes_first(shop: Shop) -> None:
    for first, last in (("Anna", "Smithson"), ("Anna", "Smith"), ("Hanna", "Smith"), ("Ana", "Smith")):
        await shop.create(first_name=first, last_name=last)
    found = names(await shop.search("anna smith"))
    assert found[:3] == ["Anna Smith", "Anna Smithson", "Hanna Smith"]
    assert found[3:] == ["Ana Smith"]


async def test_of_mistyped_names_the_frequent_one_comes_first(shop: Shop) -> None:
    """And the rare ones are there too, however many bear the frequent one."""
    await shop.create(first_name="Eve", last_name="Wakr")
    for _ in range(40):
        await shop.create(first_name="Ann", last_name="Walker")
    for _ in range(3):
        await shop.create(first_name="Bob", last_name="Walk")
    found = [name.rpartition(" ")[2] for name in names(await shop.search("walkr", page_size=20))]
    assert found[:3] == ["Walker", "Walk", "Wakr"]
    assert set(found[3:]) == {"Walker", "Walk"}


async def test_of_equal_matches_the_newest_comes_first(shop: Shop) -> None:
    made = [await shop.create(first_name="Ann", last_name="Lee") for _ in range(3)]
    found = await shop.search("ann lee")
    assert [customer.id for customer in found.customers] == [customer.id for customer in reversed(made)]


async def test_a_page_that_is_full_says_so(shop: Shop) -> None:
    for _ in range(4):
        await shop.create(first_name="Ann", last_name="Lee")
    found = await shop.search("ann", page_size=3)
    assert (len(found.customers), found.truncated, found.total_estimated) == (3, True, True)
    assert not found.next_page_token
    found = await shop.search("ann", page_size=10)
    assert (len(found.customers), found.truncated, found.total_size) == (4, False, 4)


async def test_changes_are_found_at_once(shop: Shop) -> None:
    made = await shop.create(
        first_name="Ann", last_name="Before", email="before@a.example", phone="+14155552671"
    )
    change = pb.UpdateCustomerRequest(
        id=made.id, customer=pb.Customer(last_name="After", email="after@b.example", phone="+14155550123")
    )
    await shop.customers.UpdateCustomer(change)
    for query in ("before", "before@a.example", "2671", "@a.example", "befroe"):
        assert not (await shop.search(query)).customers, query
    for query in ("after", "after@b.example", "0123", "@b.example", "ann", "afer"):
        assert [c.id for c in (await shop.search(query)).customers] == [made.id], query


async def test_a_deleted_customer_is_gone_at_once_and_back_after_a_restore(shop: Shop) -> None:
    source = pb.Source(name="shopify", external_id="77-a")
    made = await shop.create(first_name="Ann", last_name="Lee", phone="+14155552671", sources=[source])
    queries = ("ann lee", "2671", "77-a", made.email, "lee")
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    for query in queries:
        assert not (await shop.search(query)).customers, query
    assert not (await shop.search()).customers
    await shop.customers.RestoreCustomer(pb.RestoreCustomerRequest(id=made.id))
    for query in queries:
        assert [c.id for c in (await shop.search(query)).customers] == [made.id], query


async def test_a_read_mask_leaves_fields_out(shop: Shop) -> None:
    await shop.create(first_name="Ann", last_name="Lee", tags=["one"])
    found = await shop.search("ann lee", read_mask=FieldMask(paths=["last_name", "tags"]))
    assert [(c.first_name, c.last_name, list(c.tags)) for c in found.customers] == [("", "Lee", ["one"])]
    refusal = await refused(shop.search("ann", read_mask=FieldMask(paths=["nothing"])))
    assert refusal.fields == {"read_mask": "INVALID"}


async def test_another_business_finds_its_own_customers_alone(shop: Shop, other_shop: Shop) -> None:
    source = pb.Source(name="shopify", external_id="10-77")
    made = await shop.create(first_name="Ann", last_name="Lee", phone="+14155552671", sources=[source])
    queries = ("ann lee", "2671", "10-77", made.email, "+14155552671", "anm lee", "")
    for query in queries:
        found = await other_shop.search(query)
        assert (len(found.customers), found.total_size, found.truncated) == (0, 0, False), query
    for query in queries[:-1]:
        assert not (await other_shop.search(query, order_by="created_at desc")).customers, query
    refusal = await refused(other_shop.search("ann", business_id=shop.id))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    everywhere = shop.tenant.calls(CustomersServiceStub)
    await everywhere.JoinBusiness(pb.JoinBusinessRequest(id=made.id, business_id=other_shop.id))
    assert len((await other_shop.search("ann lee")).customers) == 1
    # What one business knows a customer by is nothing to another.
    assert not (await other_shop.search("10-77")).customers
    await other_shop.customers.LeaveBusiness(pb.LeaveBusinessRequest(id=made.id, business_id=other_shop.id))
    assert not (await other_shop.search("ann lee")).customers
    assert len((await shop.search("10-77")).customers) == 1


async def test_a_customer_who_is_deleted_at_one_business_is_found_at_the_other(
    shop: Shop, other_shop: Shop
) -> None:
    made = await shop.create(first_name="Ann", last_name="Lee")
    everywhere = shop.tenant.calls(CustomersServiceStub)
    await everywhere.JoinBusiness(pb.JoinBusinessRequest(id=made.id, business_id=other_shop.id))
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    assert not (await shop.search("ann lee")).customers
    assert len((await other_shop.search("ann lee")).customers) == 1
    back = await shop.customers.RestoreCustomer(pb.RestoreCustomerRequest(id=made.id))
    assert list(back.business_ids) == [shop.id]
    assert len((await shop.search("ann lee")).customers) == 1


async def test_a_restored_customer_does_not_show_other_businesses(shop: Shop, other_shop: Shop) -> None:
    made = await shop.create(first_name="Ann", last_name="Lee")
    everywhere = shop.tenant.calls(CustomersServiceStub)
    await everywhere.JoinBusiness(pb.JoinBusinessRequest(id=made.id, business_id=other_shop.id))
    await everywhere.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    back = await shop.customers.RestoreCustomer(pb.RestoreCustomerRequest(id=made.id))
    assert list(back.business_ids) == [shop.id]
    assert not (await other_shop.search("ann lee")).customers


async def test_another_tenant_finds_nothing(shop: Shop, other_tenant: TenantOfTest) -> None:
    made = await shop.create(first_name="Ann", last_name="Lee")
    stranger = other_tenant.calls(SearchServiceStub)
    refusal = await refused(
        stranger.SearchCustomers(SearchCustomersRequest(query="ann", business_id=shop.id))
    )
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    theirs = await other_tenant.calls(BusinessesServiceStub).CreateBusiness(
        businesses_pb2.CreateBusinessRequest(business=businesses_pb2.Business(name="B", currency="USD"))
    )
    for query in ("ann lee", made.email, made.id):
        found = await stranger.SearchCustomers(SearchCustomersRequest(query=query, business_id=theirs.id))
        assert not found.customers


async def test_an_analyst_cannot_probe_names_and_contact_data(shop: Shop) -> None:
    source = pb.Source(name="shopify", external_id="77-a")
    made = await shop.create(
        first_name="Ann", last_name="Lee", email="ann@a.example", phone="+14155552671", sources=[source]
    )
    for query in ("ann", "lee", "anm", "ann@a.example", "@a.example", "+14155552671", "5552", "ann lee"):
        for order in ("", "created_at desc"):
            found = await shop.search(query, "analyst", order_by=order)
            assert (len(found.customers), found.total_size) == (0, 0), query
            assert set(found.not_compared.paths) == {"first_name", "last_name", "full_name", "email", "phone"}
    # What an analyst may read finds: the last digits and external ids.
    for query in ("2671", "77-a"):
        found = await shop.search(query, "analyst")
        assert [c.id for c in found.customers] == [made.id], query
        assert not found.customers[0].first_name
    refusal = await refused(shop.search("", "analyst", city="Berlin"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FIELDS_MASKED")


async def test_support_finds_by_the_last_digits_alone(shop: Shop) -> None:
    await shop.create(first_name="Ann", last_name="Lee", phone="+14155552671")
    found = await shop.search("2671", "support")
    assert len(found.customers) == 1
    assert list(found.not_compared.paths) == ["phone"]
    for query in ("5552", "52671", "+14155552671", "lee 5552"):
        assert not (await shop.search(query, "support")).customers, query
    assert len((await shop.search("lee 2671", "support")).customers) == 1


async def test_only_who_is_shown_is_noted_as_read(shop: Shop, stack: Stack) -> None:
    shown = await shop.create(first_name="Ann", last_name="Lee")
    for _ in range(5):
        await shop.create(first_name="Ann", last_name="Leeson")
    audit = stack.runtimes["customers"].audit
    noted: list[list[str]] = []
    record = audit.record

    def watch(caller: Any, categories: Any, ids: Any) -> None:
        whom = list(ids)
        if caller.service is None:  # loyalty asks about the new ones meanwhile
            noted.append([str(each) for each in whom])
        record(caller, categories, whom)

    audit.record = watch
    try:
        await shop.search("ann lee", page_size=1)
    finally:
        del audit.record
    assert noted == [[shown.id]]


async def test_hostile_queries_are_answered(shop: Shop) -> None:
    await shop.create(first_name="Ann", last_name="Lee")
    hostile = [
        "'",
        "%",
        "\\",
        "a" * 200,
        "@",
        "@@",
        "+",
        "0" * 200,
        "{}",
        "a@",
        "$$",
        "--",
        "١٢٣٤",
        "🙂",
        "ﷺ" * 40,
    ]
    hostile += [
        " ".join("ab" for _ in range(60)),
        ("x" * 9 + " ") * 20,
        "'; drop table customers",
        "null",
        "\ufeff",
    ]
    await asyncio.gather(*(shop.search(query) for query in hostile))
    assert len((await shop.search("ann")).customers) == 1
    refusal = await refused(shop.search("a" * 201))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    refusal = await refused(shop.search("ann", business_id=str(new_id())))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
