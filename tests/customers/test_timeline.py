"""The timeline of a customer over gRPC and REST."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.caller import Caller, acting_as
from libs.contracts import event_subject
from libs.envelope import Event
from libs.ids import new_id
from libs.instants import instant, stamp
from regulars.customers.v1 import activities_pb2, customers_pb2, events_pb2, notes_pb2, orders_pb2
from regulars.customers.v1 import timeline_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.timeline_pb2_grpc import TimelineServiceStub
from regulars.type.v1 import audit_pb2
from services.customers.timeline.consumers import SHOWN, reports, show
from tests.customers import purchases
from tests.customers.shop import Shop, open_shop, refused
from tests.customers.visits import activity, item, on, record, record_one
from tests.platform import Stack, TenantOfTest

ACTIVITY, ORDER, PROFILE = pb.TIMELINE_KIND_ACTIVITY, pb.TIMELINE_KIND_ORDER, pb.TIMELINE_KIND_PROFILE
MEMBERSHIP, NOTE, REPORT = pb.TIMELINE_KIND_MEMBERSHIP, pb.TIMELINE_KIND_NOTE, pb.TIMELINE_KIND_REPORT


async def page(shop: Shop, customer_id: str, *roles: str, **asked: Any) -> pb.ListTimelineResponse:
    request = pb.ListTimelineRequest(customer_id=customer_id, **asked)
    found: pb.ListTimelineResponse = await shop.calls(TimelineServiceStub, *roles).ListTimeline(request)
    return found


async def entries(shop: Shop, customer_id: str, *roles: str, **asked: Any) -> list[pb.TimelineEntry]:
    """All pages."""
    found: list[pb.TimelineEntry] = []
    token = ""
    while True:
        answer = await page(shop, customer_id, *roles, page_token=token, **asked)
        found += answer.entries
        token = answer.next_page_token
        if not token:
            return found


async def rename(shop: Shop, customer_id: str, name: str) -> None:
    request = customers_pb2.UpdateCustomerRequest(
        id=customer_id,
        customer=customers_pb2.Customer(first_name=name),
        update_mask=FieldMask(paths=["first_name"]),
    )
    await shop.calls(CustomersServiceStub, subject="editor").UpdateCustomer(request)


async def write_note(shop: Shop, customer_id: str, text: str) -> notes_pb2.Note:
    request = notes_pb2.CreateNoteRequest(customer_id=customer_id, note=notes_pb2.Note(text=text))
    made: notes_pb2.Note = await shop.notes.CreateNote(request)
    return made


async def test_everything_stands_in_one_list_newest_first(shop: Shop) -> None:
    customer = await shop.create(email="line@example.com")
    words = Struct()
    words.update({"page": "tea"})
    await record_one(shop, customer.id, activity(on(2026, 1, 1), properties=words))
    bought = purchases.order(email="line@example.com", external_id="A-1")
    await purchases.record(shop, bought)
    note = await write_note(shop, customer.id, "likes tea")
    await rename(shop, customer.id, "Ann")
    found = await entries(shop, customer.id, kinds=[ACTIVITY, ORDER, PROFILE, MEMBERSHIP, NOTE])
    assert [entry.kind for entry in found] == [PROFILE, NOTE, MEMBERSHIP, ACTIVITY, ORDER]
    profile, noted, membership, visit, order = found
    assert (list(profile.change.changed_fields), profile.change.actor.subject) == (["first_name"], "editor")
    assert (noted.note.text, noted.id) == ("likes tea", note.id)
    assert membership.change.kind == pb.CUSTOMER_CHANGE_KIND_CREATED
    assert visit.activity.properties["page"] == "tea"
    assert (order.order.external_id, order.order.total_minor, order.order.currency) == ("A-1", 1000, "USD")
    assert order.order.status == orders_pb2.ORDER_STATUS_PAID
    assert [instant(entry.occurred_at) for entry in found] == sorted(
        (instant(entry.occurred_at) for entry in found), reverse=True
    )


async def test_changes_name_fields_and_never_values(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create(tags=["Early"])
    await rename(shop, customer.id, "Unmistakable")
    await shop.customers.AddCustomerTags(customers_pb2.AddCustomerTagsRequest(id=customer.id, tags=["Hush"]))
    await shop.customers.RenameTag(customers_pb2.RenameTagRequest(tag="Hush", new_tag="Quiet"))
    found = await page(shop, customer.id, kinds=[PROFILE])
    assert [list(entry.change.changed_fields) for entry in found.entries] == [
        ["tags"],
        ["tags"],
        ["first_name"],
    ]
    assert b"Unmistakable" not in found.SerializeToString()
    assert b"Hush" not in found.SerializeToString()


async def test_deletion_restore_and_joining_show(shop: Shop, other_shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    await shop.customers.DeleteCustomer(customers_pb2.DeleteCustomerRequest(id=customer.id))
    assert (await refused(page(shop, customer.id))).reason == "CUSTOMER_NOT_FOUND"
    assert [e.change.kind for e in (await page(shop, customer.id, show_deleted=True)).entries] == [
        pb.CUSTOMER_CHANGE_KIND_DELETED,
        pb.CUSTOMER_CHANGE_KIND_CREATED,
    ]
    await shop.customers.RestoreCustomer(customers_pb2.RestoreCustomerRequest(id=customer.id))
    newest = (await page(shop, customer.id)).entries[0]
    assert newest.change.kind == pb.CUSTOMER_CHANGE_KIND_RESTORED
    joins = customers_pb2.JoinBusinessRequest(id=customer.id, business_id=other_shop.id)
    await tenant.calls(CustomersServiceStub).JoinBusiness(joins)
    (joined,) = (await page(other_shop, customer.id)).entries
    assert joined.change.kind == pb.CUSTOMER_CHANGE_KIND_JOINED
    leaves = customers_pb2.LeaveBusinessRequest(id=customer.id, business_id=other_shop.id)
    await tenant.calls(CustomersServiceStub).LeaveBusiness(leaves)
    assert (await refused(page(other_shop, customer.id))).code is grpc.StatusCode.NOT_FOUND


async def test_filters(shop: Shop) -> None:
    customer = await shop.create()
    view, cart = activities_pb2.ACTIVITY_KIND_PRODUCT_VIEW, activities_pb2.ACTIVITY_KIND_ADD_TO_CART
    days = [item(customer.id, on(2026, 3, day), kind=view if day % 2 else cart) for day in range(1, 11)]
    await record(shop, days)
    await write_note(shop, customer.id, "hello")
    assert len(await entries(shop, customer.id, kinds=[ACTIVITY], page_size=3)) == 10
    odd = await entries(shop, customer.id, kinds=[ACTIVITY], activity_kinds=[view])
    assert [instant(e.occurred_at).day for e in odd] == [9, 7, 5, 3, 1]
    assert {e.kind for e in await entries(shop, customer.id, activity_kinds=[view])} == {
        *(ACTIVITY, NOTE, MEMBERSHIP)
    }
    some = await entries(
        shop, customer.id, occurred_from=stamp(on(2026, 3, 4)), occurred_before=stamp(on(2026, 3, 7))
    )
    assert [instant(e.occurred_at).day for e in some] == [6, 5, 4]
    wrong = await refused(page(shop, customer.id, kinds=[0]))
    assert wrong.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_pages_hold_while_new_things_arrive(shop: Shop) -> None:
    customer = await shop.create()
    batch = [item(customer.id, on(2026, 2, 1) + timedelta(hours=n)) for n in range(40)]
    await record(shop, batch)
    first = await page(shop, customer.id, page_size=15)
    seen = [entry.id for entry in first.entries]
    token = first.next_page_token
    while token:
        late = item(customer.id, on(2026, 2, 1) - timedelta(days=1))
        await asyncio.gather(
            record(shop, [item(customer.id), late]), write_note(shop, customer.id, "meanwhile")
        )
        answer = await page(shop, customer.id, page_size=7, page_token=token)
        seen += [entry.id for entry in answer.entries]
        token = answer.next_page_token
        if len(seen) > 80:
            break
    assert len(set(seen)) == len(seen)
    assert {one.activity.id for one in batch} <= set(seen)


async def test_entries_of_one_instant_are_neither_lost_nor_shown_twice(shop: Shop) -> None:
    customer = await shop.create()
    when = on(2026, 4, 1)
    batch = [item(customer.id, when) for _ in range(23)]
    await record(shop, batch)
    for size in (1, 2, 5, 22, 23, 24):
        found = await entries(shop, customer.id, kinds=[ACTIVITY], page_size=size)
        assert sorted(e.id for e in found) == sorted(one.activity.id for one in batch)


async def test_another_business_and_another_tenant_see_nothing(
    shop: Shop, other_shop: Shop, tenant: TenantOfTest, other_tenant: TenantOfTest
) -> None:
    customer = await shop.create()
    await record(shop, [item(customer.id)])
    joins = customers_pb2.JoinBusinessRequest(id=customer.id, business_id=other_shop.id)
    await tenant.calls(CustomersServiceStub).JoinBusiness(joins)
    await write_note(shop, customer.id, "ours alone")
    assert [entry.kind for entry in (await page(other_shop, customer.id)).entries] == [MEMBERSHIP]
    theirs = await open_shop(other_tenant)
    for asked in ({}, {"business_id": shop.id}):
        assert (await refused(page(theirs, customer.id, **asked))).code is grpc.StatusCode.NOT_FOUND
    named = await refused(page(other_shop, customer.id, business_id=shop.id))
    assert named.reason == "BUSINESS_NOT_FOUND"


async def test_a_token_is_for_its_own_list(shop: Shop) -> None:
    customer, other = await shop.create(), await shop.create()
    await record(shop, [item(customer.id) for _ in range(3)])
    token = (await page(shop, customer.id, page_size=1)).next_page_token
    for asked in ({"customer_id": other.id}, {"customer_id": customer.id, "kinds": [NOTE]}):
        problem = await refused(page(shop, page_token=token, **asked))
        assert problem.reason == "PAGE_TOKEN_INVALID"


async def test_who_may_not_read_notes_sees_none(shop: Shop) -> None:
    customer = await shop.create()
    await write_note(shop, customer.id, "for staff")
    assert NOTE in {e.kind for e in (await page(shop, customer.id, "support")).entries}
    assert NOTE not in {e.kind for e in (await page(shop, customer.id, "marketer")).entries}
    assert not (await page(shop, customer.id, "marketer", kinds=[NOTE])).entries
    problem = await refused(page(shop, customer.id, "analyst"))
    assert problem.code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_is_opened_is_noted_and_what_is_not_is_not(
    shop: Shop, stack: Stack, tenant: TenantOfTest
) -> None:
    plain, secret = await shop.create(), await shop.create()
    await record(shop, [item(plain.id)])
    words = Struct()
    words.update({"answer": 42})
    await record(shop, [item(secret.id, properties=words)])
    subject = f"{stack.settings.prefix}customers.access.recorded.{tenant.id}"
    sub = await stack.runtimes["customers"].js.subscribe(subject, ordered_consumer=True)
    await page(shop, plain.id)
    await page(shop, secret.id)
    read: list[audit_pb2.Access] = []
    while not any(entry.method.endswith("ListTimeline") for entry in read):
        msg = await sub.next_msg(timeout=20)
        read += audit_pb2.AccessRecorded.FromString(msg.data).entries
    (entry,) = [entry for entry in read if entry.method.endswith("ListTimeline")]
    assert [str(id_.hex()) for id_ in entry.customer_ids] == [secret.id.replace("-", "")]
    assert list(entry.categories) == ["user.behavior", "user.content"]


def happened(tenant: TenantOfTest, message: Message) -> Event[Any]:
    """An event as it is heard."""
    kind = message.DESCRIPTOR
    return Event(
        id=new_id(),
        type=kind.full_name,
        source="regulars/customers",
        subject=event_subject(kind),
        tenant_id=tenant.id,
        business_id=None,
        aggregate_id=new_id(),
        version=1,
        time=on(2026, 5, 5),
        actor="service:customers",
        cause=None,
        replay=False,
        message=message,
    )


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.__name__)
def test_every_event_that_is_shown_says_whose_it_is_and_what(
    kind: type[Message], tenant: TenantOfTest
) -> None:
    message = kind()
    wholes: list[Any] = [message]
    wholes += [
        getattr(message, f.name) for f in kind.DESCRIPTOR.fields if f.message_type and not f.is_repeated
    ]
    for whole in wholes:
        for field in whole.DESCRIPTOR.fields:
            if field.name in ("customer_id", "referrer_id", "friend_id", "business_id"):
                setattr(whole, field.name, str(new_id()))
            elif field.name in SHOWN[kind]:
                setattr(whole, field.name, 7 if field.type != field.TYPE_STRING else "seven")
    told = reports(happened(tenant, message))
    assert len(told) == (2 if "referral_id" in SHOWN[kind] else 1)
    assert all(each.facts.keys() == set(SHOWN[kind]) for each in told)
    assert all(value in (7, "seven") for each in told for value in each.facts.values())


async def test_what_events_report_shows_once(shop: Shop, stack: Stack, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    rt = stack.runtimes["customers"]
    state = events_pb2.OrderState(
        order_id=str(new_id()), customer_id=customer.id, business_id=shop.id, total_minor=700
    )
    left = events_pb2.OrderState(order_id=str(new_id()), customer_id=str(new_id()), business_id=shop.id)
    told = [happened(tenant, events_pb2.OrderCompleted(order=each)) for each in (state, left)]
    for _ in range(2):
        with acting_as(Caller(tenant_id=tenant.id, subject="customers", kind="service")):
            async with rt.db.tx() as tx:
                await show(tx, rt, told)
    (shown_once,) = (await page(shop, customer.id, kinds=[REPORT])).entries
    assert shown_once.report.event == "customers.order.completed"
    assert dict(shown_once.report.facts) == {"order_id": state.order_id, "total_minor": 700}
    assert instant(shown_once.occurred_at) == on(2026, 5, 5)


async def test_a_completed_order_is_heard_of_by_the_stream(shop: Shop) -> None:
    customer = await shop.create(email="heard@example.com")
    await purchases.record(shop, purchases.order(email="heard@example.com"))
    async with asyncio.timeout(20):
        while not (found := (await page(shop, customer.id, kinds=[REPORT])).entries):  # noqa: ASYNC110 – nobody tells us
            await asyncio.sleep(0.05)
    reported = {each.report.event: dict(each.report.facts) for each in found}
    assert reported["customers.order.completed"]["total_minor"] == 1000


minutes = st.lists(st.integers(0, 5), min_size=1, max_size=25)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seen=minutes, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@pytest.mark.parametrize("kinds", [(), (ACTIVITY,)])
async def test_the_pages_together_are_the_whole_list_sorted(
    shop: Shop, kinds: tuple[int, ...], seen: list[int], sizes: list[int]
) -> None:
    customer = await shop.create()
    start = on(2026, 1, 31, 23) + timedelta(minutes=57)  # over the border of a month
    ids = {str(new_id()): start + timedelta(minutes=minute) for minute in seen}
    await record(shop, [item(customer.id, at, id=id_) for id_, at in ids.items()])
    await write_note(shop, customer.id, "one")
    pages: list[pb.TimelineEntry] = []
    token = ""
    for turn in range(100):
        answer = await page(
            shop, customer.id, kinds=kinds, page_size=sizes[turn % len(sizes)], page_token=token
        )
        pages += answer.entries
        token = answer.next_page_token
        if not token:
            break
    whole = list((await page(shop, customer.id, kinds=kinds, page_size=200)).entries)
    assert pages == whole
    keys: list[tuple[datetime, str]] = [(instant(e.occurred_at), e.id) for e in whole]
    assert keys == sorted(keys, reverse=True)
    assert {e.id: instant(e.occurred_at) for e in whole if e.kind == ACTIVITY} == ids
    assert len(whole) == len(ids) + (0 if kinds else 2)


async def test_over_rest(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    await record(shop, [item(customer.id, on(2026, 3, day)) for day in (1, 2, 3)])
    async with tenant.rest(businesses=[shop.id]) as client:
        asked: dict[str, str | int] = {
            "kinds": "ACTIVITY",
            "occurredFrom": "2026-03-02T00:00:00Z",
            "pageSize": 1,
        }
        first = await client.get(f"/api/v1/customers/{customer.id}/timeline", params=asked)
        assert first.status_code == 200, first.text
        assert first.json()["entries"][0]["occurredAt"] == "2026-03-03T12:00:00Z"
        asked["pageToken"] = first.json()["nextPageToken"]
        second = await client.get(f"/api/v1/customers/{customer.id}/timeline", params=asked)
        assert [entry["kind"] for entry in second.json()["entries"]] == ["ACTIVITY"]
        assert not second.json().get("nextPageToken")
