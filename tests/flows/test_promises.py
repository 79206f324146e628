"""One test for each promise of the product that crosses its services."""

import asyncio
import time
from functools import partial
from typing import Any

import grpc
import httpx

from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2
from regulars.customers.v1.addresses_pb2 import Address, CreateAddressRequest
from regulars.customers.v1.businesses_pb2 import (
    ATTRIBUTE_TYPE_TEXT,
    AttributeDefinition,
    CreateAttributeRequest,
)
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.notes_pb2 import CreateNoteRequest, Note
from regulars.customers.v1.notes_pb2_grpc import NotesServiceStub
from regulars.customers.v1.timeline_pb2 import TIMELINE_KIND_REPORT, ListTimelineRequest
from regulars.customers.v1.timeline_pb2_grpc import TimelineServiceStub
from regulars.loyalty.v1 import loyalty_pb2 as loyalty
from regulars.loyalty.v1.loyalty_pb2_grpc import LoyaltyServiceStub
from tests.customers import purchases
from tests.customers.shop import Shop, refusal_of
from tests.flows.looking import as_stored, events, letters, rows
from tests.libs.rooms import becomes
from tests.platform import Stack
from tests.scan.at_the_end import patterns_of
from tests.scan.scanning import scan_bytes
from tests.scan.sentinels import Sentinels

ACTIVE, FROZEN = loyalty.MEMBERSHIP_STATUS_ACTIVE, loyalty.MEMBERSHIP_STATUS_FROZEN


async def membership(shop: Shop, customer_id: str) -> loyalty.Membership | None:
    """The loyalty service's view of a customer; None if it knows of no membership."""
    stub: Any = shop.calls(LoyaltyServiceStub)
    try:
        found: loyalty.Membership = await stub.GetMembership(
            loyalty.GetMembershipRequest(customer_id=customer_id)
        )
    except grpc.aio.AioRpcError as error:
        if refusal_of(error).reason == "MEMBERSHIP_NOT_FOUND":
            return None
        raise
    return found


async def standing(shop: Shop, customer_id: str) -> int:
    """Status of the membership, 0 without one."""
    found = await membership(shop, customer_id)
    return found.status if found else 0


async def test_a_customer_created_over_rest_is_a_member_of_the_program_within_two_seconds(
    shop: Shop, rest: httpx.AsyncClient, sentinels: Sentinels
) -> None:
    took = []
    for _ in range(3):  # the machine may be busy with something else, but not three times
        began = time.monotonic()
        answer = await rest.post(
            "/api/v1/customers", json={"email": sentinels.email(), "firstName": sentinels.name()}
        )
        assert answer.status_code == 201, answer.text
        customer = answer.json()
        assert answer.headers["location"] == f"/api/v1/customers/{customer['id']}"
        await becomes(partial(standing, shop, customer["id"]), ACTIVE)
        took.append(time.monotonic() - began)
    assert min(took) < 2
    found = await rest.get(f"/api/v1/customers/{customer['id']}/loyalty")
    assert (found.status_code, found.json()["status"]) == (200, "ACTIVE")
    assert found.json()["joinedAt"] == customer["joinedAt"]


async def test_personal_data_is_sealed_in_every_row_and_in_no_event(
    stack: Stack, shop: Shop, sentinels: Sentinels
) -> None:
    run = sentinels
    word = run.word()
    definition = AttributeDefinition(name="shoe_maker", type=ATTRIBUTE_TYPE_TEXT)
    admin = shop.tenant.calls(BusinessesServiceStub)
    await admin.CreateAttribute(CreateAttributeRequest(business_id=shop.id, attribute=definition))
    fields: dict[str, Any] = {
        "first_name": run.name(),
        "last_name": run.name(),
        "email": run.email(),
        "phone": run.phone(),
        "born_on": run.birth_date,
        "gender": run.word(),
        "company": run.name(),
        "handles": pb.Handles(telegram=run.word(), instagram=run.word()),
        "preferred_categories": [run.word()],
        "sources": [pb.Source(name="shopify", external_id=run.word())],
    }
    customer = pb.Customer(**fields)
    customer.attributes["shoe_maker"] = word
    made = await shop.customers.CreateCustomer(pb.CreateCustomerRequest(customer=customer))
    assert made.attributes["shoe_maker"] == word
    writer: Any = shop.calls(NotesServiceStub, name=run.name())
    note = await writer.CreateNote(CreateNoteRequest(customer_id=made.id, note=Note(text=run.text())))
    address = Address(
        street_lines=[f"{run.name()} Street 12"],
        city="Springfield",
        state="IL",
        postal_code="62701",
        country="US",
        label=run.word(),
    )
    await shop.addresses.CreateAddress(CreateAddressRequest(customer_id=made.id, address=address))
    await shop.customers.UpdateCustomer(
        pb.UpdateCustomerRequest(id=made.id, customer=pb.Customer(last_name=run.name()))
    )
    got = await shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id))
    assert got.email == fields["email"]

    patterns = patterns_of(run)
    for schema in ("customers", "loyalty"):
        stored = await as_stored(stack, schema, shop.tenant.id)
        assert not list(scan_bytes(schema, stored.encode(), patterns))
        # and it is this customer that was looked at
        assert made.id in stored
    assert note.id in await as_stored(stack, "customers", shop.tenant.id)

    async def published() -> int:
        return len(await events(stack, shop.tenant.id, events_pb2.CustomerUpdated))

    await becomes(published, 2)
    sent = await letters(stack, shop.tenant.id)
    for letter in sent:
        whole = letter.body + repr(letter.headers).encode() + letter.subject.encode()
        assert not list(scan_bytes(letter.subject, whole, patterns)), letter.subject
    assert any(made.id.encode() in letter.body for letter in sent)


async def test_a_blocked_customer_is_frozen_until_unblocked(shop: Shop) -> None:
    made = await shop.create()
    await becomes(lambda: standing(shop, made.id), ACTIVE)
    for status, wanted in (
        (pb.CUSTOMER_STATUS_BLOCKED, FROZEN),
        (pb.CUSTOMER_STATUS_VIP, ACTIVE),
    ):
        await shop.customers.UpdateCustomer(
            pb.UpdateCustomerRequest(id=made.id, customer=pb.Customer(status=status))
        )
        await becomes(lambda: standing(shop, made.id), wanted)


async def test_a_deleted_customer_is_frozen_until_restored(shop: Shop, rest: httpx.AsyncClient) -> None:
    made = await shop.create()
    await becomes(lambda: standing(shop, made.id), ACTIVE)
    gone = await rest.delete(f"/api/v1/customers/{made.id}")
    assert (gone.status_code, gone.content) == (204, b"")
    await becomes(lambda: standing(shop, made.id), FROZEN)
    back = await rest.post(f"/api/v1/customers/{made.id}/restore", json={})
    assert (back.status_code, "deletedAt" in back.json()) == (200, False)
    await becomes(lambda: standing(shop, made.id), ACTIVE)


async def test_who_joins_and_leaves_a_business_is_and_is_no_member_there(
    shop: Shop, other_shop: Shop
) -> None:
    made = await shop.create()
    both = shop.tenant.calls(CustomersServiceStub)
    await both.JoinBusiness(pb.JoinBusinessRequest(id=made.id, business_id=other_shop.id))
    await becomes(lambda: standing(other_shop, made.id), ACTIVE)
    await both.LeaveBusiness(pb.LeaveBusinessRequest(id=made.id, business_id=other_shop.id))
    await becomes(lambda: standing(other_shop, made.id), 0)
    await becomes(lambda: standing(shop, made.id), ACTIVE)


async def test_what_loyalty_tells_is_on_the_timeline(shop: Shop) -> None:
    member = await shop.create(email="lena@example.com")
    await purchases.record(shop, purchases.order(email="lena@example.com"))
    timeline: Any = shop.calls(TimelineServiceStub)
    request = ListTimelineRequest(customer_id=member.id, kinds=[TIMELINE_KIND_REPORT])

    async def told() -> dict[str, Any]:
        found = (await timeline.ListTimeline(request)).entries
        return {
            each.report.event: each.report.facts["points"] for each in found if "points" in each.report.facts
        }

    await becomes(told, {"customers.points.earned": 10})


async def test_every_committed_event_is_handled_once(stack: Stack, shop: Shop) -> None:
    people = await asyncio.gather(*(shop.create() for _ in range(20)))
    await asyncio.gather(
        *(
            shop.customers.UpdateCustomer(
                pb.UpdateCustomerRequest(id=each.id, customer=pb.Customer(tags=[f"tag{n}"]))
            )
            for n, each in enumerate(people)
        )
    )

    async def handled() -> int:
        query = "select event_id from loyalty.inbox where tenant_id = %s and consumer = 'loyalty'"
        return len(await rows(stack, query, shop.tenant.id))

    # One event of each creation and each change, and the tenant's and the business's own.
    await becomes(handled, 42)
    for schema in ("customers", "loyalty"):
        for table in ("outbox", "parked", "dead_letters"):
            left = await rows(stack, f"select 1 from {schema}.{table} where tenant_id = %s", shop.tenant.id)
            assert not left, (schema, table)
