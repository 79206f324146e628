"""Creating, reading and changing customers over gRPC."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from libs.ids import new_id
from regulars.customers.v1 import businesses_pb2, events_pb2
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.customers.shop import Shop, refused
from tests.platform import Stack, TenantOfTest

INVALID, EXISTS = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS
ABSENT, ABORTED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED
EVERYTHING: dict[str, Any] = {
    "first_name": "Zoë",
    "last_name": "Ångström",
    "email": "Zoe@Example.com",
    "email_verified": True,
    "phone": "(415) 555-2671",
    "born_on": "1988-02-29",
    "gender": "woman",
    "language": "sv-se",
    "time_zone": "Europe/Stockholm",
    "company": "Ångström AB",
    "handles": pb.Handles(telegram="@zoe", x="zoe"),
    "preferred_categories": ["tea", "books"],
    "status": pb.CUSTOMER_STATUS_VIP,
    "type": pb.CUSTOMER_TYPE_WHOLESALE,
    "tags": ["Early", "early", "west"],
    "sources": [pb.Source(name="shopify", external_id="77")],
}


def as_fields(name: str, value: Any) -> dict[str, Any]:
    return {name: value}


def update(customer: pb.Customer, *paths: str, **fields: Any) -> pb.UpdateCustomerRequest:
    return pb.UpdateCustomerRequest(
        id=customer.id, customer=pb.Customer(**fields), update_mask=FieldMask(paths=paths)
    )


async def test_create_gives_back_every_field(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    assert (made.first_name, made.last_name, made.full_name) == ("Zoë", "Ångström", "Zoë Ångström")
    assert (made.email, made.phone, made.phone_last_digits) == ("Zoe@Example.com", "+14155552671", "2671")
    assert (made.email_verified, made.phone_verified) == (True, False)
    assert (made.language, made.born_on) == ("sv-SE", "1988-02-29")
    assert {f.name: v for f, v in made.handles.ListFields()} == {"telegram": "zoe", "x": "zoe"}
    assert list(made.tags) == ["Early", "west"]
    assert [(s.name, s.external_id) for s in made.sources] == [("shopify", "77")]
    assert (made.business_id, list(made.business_ids), made.etag) == (shop.id, [shop.id], "1")
    got = await shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id))
    assert got == made


async def test_a_guest_needs_no_contact_and_others_do(shop: Shop) -> None:
    guest = await shop.create(type=pb.CUSTOMER_TYPE_GUEST)
    assert guest.type == pb.CUSTOMER_TYPE_GUEST
    problem = await refused(
        shop.customers.CreateCustomer(pb.CreateCustomerRequest(customer=pb.Customer(first_name="A")))
    )
    assert problem.code is INVALID
    assert set(problem.fields) == {"customer.email", "customer.phone"}


async def test_create_names_every_wrong_field_at_once(shop: Shop) -> None:
    wrong = pb.Customer(
        first_name="x" * 101,
        last_name="a\nb",
        email="nobody",
        phone="+1 000",
        born_on="2999-01-01",
        language="english!",
        time_zone="Mars/Olympus",
        tags=["ok", "x" * 65, ""],
        sources=[pb.Source(name="No Such")],
    )
    problem = await refused(shop.customers.CreateCustomer(pb.CreateCustomerRequest(customer=wrong)))
    assert (problem.code, problem.reason) == (INVALID, "INVALID_FIELDS")
    assert set(problem.fields) == {
        f"customer.{name}"
        for name in "first_name last_name email phone born_on language time_zone tags[1] tags[2]".split()  # noqa: SIM905
    } | {"customer.sources[0].name"}


async def test_a_national_phone_is_judged_by_the_business_country(shop: Shop, other_shop: Shop) -> None:
    assert (await other_shop.create(phone="030 901820")).phone == "+4930901820"
    problem = await refused(
        shop.customers.CreateCustomer(pb.CreateCustomerRequest(customer=pb.Customer(phone="030 901820")))
    )
    assert set(problem.fields) == {"customer.phone"}


@pytest.mark.parametrize(
    ("field", "first", "second", "reason"),
    [
        ("email", "Taken@Example.com", "taken@example.COM", "EMAIL_TAKEN"),
        ("phone", "+1 415 555 2671", "(415) 555-2671", "PHONE_TAKEN"),
    ],
)
async def test_contact_data_is_unique_in_the_tenant(
    shop: Shop, other_shop: Shop, field: str, first: str, second: str, reason: str
) -> None:
    holder = await shop.create(**{field: first})
    again = pb.CreateCustomerRequest(customer=pb.Customer(**as_fields(field, second)))
    problem = await refused(shop.customers.CreateCustomer(again))
    assert (problem.code, problem.reason) == (EXISTS, reason)
    assert problem.metadata == {"field": f"customer.{field}", "customer_id": holder.id}
    # A caller who may not see the holder learns of the field alone.
    if field == "email":
        hidden = await refused(other_shop.customers.CreateCustomer(again))
        assert hidden.metadata == {"field": f"customer.{field}"}


async def test_external_ids_are_unique_per_business_and_source(shop: Shop, other_shop: Shop) -> None:
    def source(name: str) -> dict[str, Any]:
        return {"sources": [pb.Source(name=name, external_id="1")], "type": pb.CUSTOMER_TYPE_GUEST}

    await shop.create(**source("shopify"))
    await shop.create(**source("klaviyo"))
    await other_shop.create(**source("shopify"))
    problem = await refused(
        shop.customers.CreateCustomer(pb.CreateCustomerRequest(customer=pb.Customer(**source("shopify"))))
    )
    assert (problem.code, problem.reason) == (EXISTS, "EXTERNAL_ID_TAKEN")


async def test_of_many_who_want_one_email_exactly_one_wins(shop: Shop) -> None:
    wanted = pb.CreateCustomerRequest(customer=pb.Customer(email="race@example.com", phone="+14155552671"))
    other = pb.CreateCustomerRequest(customer=pb.Customer(phone="+14155552671", email="race@example.com"))
    results = await asyncio.gather(
        *(shop.customers.CreateCustomer(each) for each in [wanted, other] * 6), return_exceptions=True
    )
    won = [r for r in results if isinstance(r, pb.Customer)]
    lost = [r.code() for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert len(won) == 1
    assert set(lost) == {EXISTS}


async def test_a_request_id_makes_one_customer_however_often_it_comes(shop: Shop) -> None:
    request = pb.CreateCustomerRequest(customer=pb.Customer(email="once@example.com"), request_id="r-1")
    results = await asyncio.gather(*(shop.customers.CreateCustomer(request) for _ in range(8)))
    assert len({r.id for r in results}) == 1
    request.customer.first_name = "Other"
    problem = await refused(shop.customers.CreateCustomer(request))
    assert (problem.code, problem.reason) == (INVALID, "REQUEST_ID_REUSED")


async def test_update_changes_what_the_mask_names_and_clears_what_is_left_out(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    after = await shop.customers.UpdateCustomer(
        update(made, "first_name", "last_name", "handles.x", "tags", first_name="Ann", tags=["new"])
    )
    assert (after.first_name, after.HasField("last_name"), after.full_name) == ("Ann", False, "Ann")
    assert (after.handles.telegram, after.handles.x) == ("zoe", "")
    assert list(after.tags) == ["new"]
    assert (after.email, after.etag) == (made.email, "2")


async def test_an_empty_mask_means_the_fields_that_are_there(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    after = await shop.customers.UpdateCustomer(update(made, company="New AB"))
    assert (after.company, after.first_name) == ("New AB", "Zoë")


async def test_the_mask_star_replaces_everything(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    after = await shop.customers.UpdateCustomer(update(made, "*", email="zoe@example.com"))
    kept = {f.name for f, _ in after.ListFields()}
    assert not kept & {"first_name", "last_name", "phone", "born_on", "handles", "tags", "sources", "company"}


async def test_a_mask_of_unknown_or_output_only_fields_is_refused(shop: Shop) -> None:
    made = await shop.create()
    problem = await refused(shop.customers.UpdateCustomer(update(made, "nope", "created_at", "handles.icq")))
    assert (problem.code, set(problem.fields)) == (INVALID, {"update_mask"})


async def test_what_was_read_can_be_written_back_unchanged(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    after = await shop.customers.UpdateCustomer(
        pb.UpdateCustomerRequest(
            id=made.id, customer=made, update_mask=FieldMask(paths=["*"]), etag=made.etag
        )
    )
    assert after == made


async def test_a_changed_email_is_not_verified_any_more(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    after = await shop.customers.UpdateCustomer(update(made, email="new@example.com"))
    assert after.email_verified is False
    assert (await shop.customers.UpdateCustomer(update(after, email_verified=True))).email_verified is True


async def test_a_freed_email_can_be_taken(shop: Shop) -> None:
    made = await shop.create(email="old@example.com")
    await shop.customers.UpdateCustomer(update(made, email="new@example.com"))
    await shop.create(email="old@example.com")
    problem = await refused(shop.customers.UpdateCustomer(update(made, email="OLD@example.com")))
    assert (problem.code, problem.reason) == (EXISTS, "EMAIL_TAKEN")


async def test_the_last_contact_cannot_be_cleared(shop: Shop) -> None:
    made = await shop.create(email="only@example.com")
    problem = await refused(shop.customers.UpdateCustomer(update(made, "email")))
    assert (problem.code, set(problem.fields)) == (INVALID, {"customer.email", "customer.phone"})


async def test_a_stale_etag_is_refused_and_of_two_writers_one_wins(shop: Shop) -> None:
    made = await shop.create()

    def rename(name: str) -> pb.UpdateCustomerRequest:
        return pb.UpdateCustomerRequest(id=made.id, customer=pb.Customer(first_name=name), etag=made.etag)

    results = await asyncio.gather(
        *(shop.customers.UpdateCustomer(rename(f"N{i}")) for i in range(6)), return_exceptions=True
    )
    assert sum(isinstance(r, pb.Customer) for r in results) == 1
    problem = await refused(shop.customers.UpdateCustomer(rename("late")))
    assert (problem.code, problem.reason) == (ABORTED, "ETAG_MISMATCH")


async def test_many_writers_lose_no_update(shop: Shop) -> None:
    made = await shop.create()
    await asyncio.gather(
        *(
            shop.customers.AddCustomerTags(pb.AddCustomerTagsRequest(id=made.id, tags=[f"t{i}"]))
            for i in range(20)
        )
    )
    got = await shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id))
    assert set(got.tags) == {f"t{i}" for i in range(20)}
    assert got.etag == "21"


async def test_attributes_are_checked_against_their_declaration(shop: Shop) -> None:
    declare = shop.calls(BusinessesServiceStub).CreateAttribute
    for name, type_, clear in [
        ("shoe_size", businesses_pb2.ATTRIBUTE_TYPE_NUMBER, True),
        ("nickname", businesses_pb2.ATTRIBUTE_TYPE_TEXT, False),
    ]:
        definition = businesses_pb2.AttributeDefinition(name=name, type=type_, not_personal=clear)
        await declare(businesses_pb2.CreateAttributeRequest(attribute=definition))
    attributes = Struct()
    attributes.update({"shoe_size": 41, "nickname": "Zo"})
    made = await shop.create(attributes=attributes)
    assert dict(made.attributes) == {"shoe_size": 41, "nickname": "Zo"}
    wrong = Struct()
    wrong.update({"shoe_size": "big", "unknown": 1})
    problem = await refused(shop.customers.UpdateCustomer(update(made, attributes=wrong)))
    assert problem.fields == {
        "customer.attributes.shoe_size": "INVALID",
        "customer.attributes.unknown": "UNKNOWN_ATTRIBUTE",
    }
    one = Struct()
    one.update({"shoe_size": 42})
    after = await shop.customers.UpdateCustomer(update(made, attributes=one))
    assert dict(after.attributes) == {"shoe_size": 42, "nickname": "Zo"}
    after = await shop.customers.UpdateCustomer(update(made, "attributes.nickname"))
    assert dict(after.attributes) == {"shoe_size": 42}


async def test_a_read_mask_leaves_the_rest_out(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    got = await shop.customers.GetCustomer(
        pb.GetCustomerRequest(id=made.id, read_mask=FieldMask(paths=["status", "tags"]))
    )
    assert {f.name for f, _ in got.ListFields()} == {"id", "status", "tags"}
    problem = await refused(
        shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id, read_mask=FieldMask(paths=["nope"])))
    )
    assert set(problem.fields) == {"read_mask"}


async def test_delete_hides_frees_and_restore_brings_back(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    for _ in range(2):
        await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    problem = await refused(shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id)))
    assert (problem.code, problem.reason) == (ABSENT, "CUSTOMER_NOT_FOUND")
    assert (await refused(shop.customers.UpdateCustomer(update(made, first_name="X")))).code is ABSENT
    gone = await shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id, show_deleted=True))
    days = (gone.erase_due_at.seconds - gone.deleted_at.seconds) / 86400
    assert days == 14
    back = await shop.customers.RestoreCustomer(pb.RestoreCustomerRequest(id=made.id))
    assert (back.email, back.HasField("deleted_at")) == (made.email, False)
    lookup = pb.LookupCustomerRequest(external_id="77", source="shopify")
    assert (await shop.customers.LookupCustomer(lookup)).id == made.id


async def test_restore_is_refused_once_the_email_is_taken(shop: Shop) -> None:
    made = await shop.create(email="mine@example.com")
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id, mode=pb.DELETION_MODE_SOFT))
    other = await shop.create(email="mine@example.com")
    problem = await refused(shop.customers.RestoreCustomer(pb.RestoreCustomerRequest(id=made.id)))
    assert (problem.code, problem.reason) == (EXISTS, "EMAIL_TAKEN")
    assert problem.metadata["customer_id"] == other.id


async def test_deletion_at_one_business_leaves_the_other_alone(shop: Shop, other_shop: Shop) -> None:
    made = await shop.create(email="both@example.com")
    both = shop.tenant.calls(CustomersServiceStub)
    await both.JoinBusiness(pb.JoinBusinessRequest(id=made.id, business_id=other_shop.id))
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    assert (await refused(shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id)))).code is ABSENT
    left = await other_shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id))
    assert left.email == "both@example.com"
    problem = await refused(
        other_shop.customers.CreateCustomer(
            pb.CreateCustomerRequest(customer=pb.Customer(email="both@example.com"))
        )
    )
    assert problem.code is EXISTS
    await other_shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    await shop.create(email="both@example.com")


async def test_leaving_the_last_business_is_refused(shop: Shop, other_shop: Shop) -> None:
    made = await shop.create()
    leave = pb.LeaveBusinessRequest(id=made.id, business_id=shop.id)
    problem = await refused(shop.customers.LeaveBusiness(leave))
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_MEMBERSHIP")
    both = shop.tenant.calls(CustomersServiceStub)
    joined = await both.JoinBusiness(pb.JoinBusinessRequest(id=made.id, business_id=other_shop.id))
    assert set(joined.business_ids) == {shop.id, other_shop.id}
    await both.LeaveBusiness(leave)
    await both.LeaveBusiness(leave)
    assert (await refused(shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id)))).code is ABSENT


async def test_upsert_finds_by_each_identifier_and_joins(shop: Shop, other_shop: Shop) -> None:
    first = await shop.customers.UpsertCustomer(
        pb.UpsertCustomerRequest(customer=pb.Customer(email="u@example.com", first_name="Una"))
    )
    assert first.created
    again = await shop.customers.UpsertCustomer(
        pb.UpsertCustomerRequest(customer=pb.Customer(email="U@EXAMPLE.com", last_name="Two"))
    )
    assert (again.created, again.customer.id) == (False, first.customer.id)
    assert (again.customer.first_name, again.customer.last_name) == ("Una", "Two")
    there = await other_shop.customers.UpsertCustomer(
        pb.UpsertCustomerRequest(customer=pb.Customer(email="u@example.com"))
    )
    assert (there.created, there.customer.id) == (False, first.customer.id)
    assert list(there.customer.business_ids) == [other_shop.id]


async def test_of_many_upserts_at_once_one_creates(shop: Shop) -> None:
    request = pb.UpsertCustomerRequest(customer=pb.Customer(email="many@example.com", first_name="M"))
    results = await asyncio.gather(*(shop.customers.UpsertCustomer(request) for _ in range(8)))
    assert sum(r.created for r in results) == 1
    assert len({r.customer.id for r in results}) == 1


async def test_look_up_by_any_form_of_the_phone(shop: Shop) -> None:
    made = await shop.create(phone="+14155552671")
    for form in ("(415) 555-2671", "+1-415-555-2671", "0014155552671"):
        assert (await shop.customers.LookupCustomer(pb.LookupCustomerRequest(phone=form))).id == made.id
    problem = await refused(
        shop.customers.LookupCustomer(pb.LookupCustomerRequest(email="nobody@example.com"))
    )
    assert (problem.code, problem.reason) == (ABSENT, "CUSTOMER_NOT_FOUND")


async def test_batch_get_keeps_order_and_names_the_missing(shop: Shop, other_shop: Shop) -> None:
    mine = [await shop.create() for _ in range(3)]
    theirs = await other_shop.create()
    unknown = str(new_id())
    ids = [mine[2].id, theirs.id, mine[0].id, unknown]
    got = await shop.customers.BatchGetCustomers(pb.BatchGetCustomersRequest(ids=ids))
    assert [c.id for c in got.customers] == [mine[2].id, mine[0].id]
    assert list(got.missing_ids) == [theirs.id, unknown]


async def test_pages_hold_each_customer_once_while_others_come_and_go(shop: Shop) -> None:
    made = [(await shop.create()).id for _ in range(7)]
    seen: list[str] = []
    token = ""
    while True:
        page = await shop.customers.ListCustomers(pb.ListCustomersRequest(page_size=3, page_token=token))
        seen += [c.id for c in page.customers]
        if not token:
            assert (page.total_size, page.total_estimated) == (7, False)
            await shop.create()  # newer than the first page: must not shift the others
            await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made[0]))
        token = page.next_page_token
        if not token:
            break
    assert seen == made[:0:-1]
    upward = await shop.customers.ListCustomers(pb.ListCustomersRequest(order_by="created_at asc"))
    assert [c.id for c in upward.customers][:6] == made[1:]


async def test_a_page_token_of_another_list_is_refused(shop: Shop) -> None:
    for _ in range(3):
        await shop.create()
    page = await shop.customers.ListCustomers(pb.ListCustomersRequest(page_size=1))
    for wrong in ("x", page.next_page_token[:-4] + "AAAA"):
        problem = await refused(shop.customers.ListCustomers(pb.ListCustomersRequest(page_token=wrong)))
        assert (problem.code, problem.reason) == (INVALID, "PAGE_TOKEN_INVALID")
    other = pb.ListCustomersRequest(page_token=page.next_page_token, order_by="created_at asc")
    assert (await refused(shop.customers.ListCustomers(other))).reason == "PAGE_TOKEN_INVALID"


async def test_lists_are_bounded_by_creation(shop: Shop) -> None:
    made = [await shop.create() for _ in range(3)]
    since: Timestamp = made[1].created_at
    later = await shop.customers.ListCustomers(pb.ListCustomersRequest(created_after=since))
    assert {c.id for c in later.customers} == {made[1].id, made[2].id}
    earlier = await shop.customers.ListCustomers(pb.ListCustomersRequest(created_before=since))
    assert {c.id for c in earlier.customers} == {made[0].id}


async def test_the_stream_gives_everyone_with_their_version(shop: Shop, other_shop: Shop) -> None:
    made = [await shop.create() for _ in range(4)]
    await other_shop.create()
    await shop.customers.UpdateCustomer(update(made[1], first_name="V"))
    seen: dict[str, int] = {}
    async for chunk in shop.customers.StreamCustomers(pb.StreamCustomersRequest()):
        seen |= {entry.customer.id: entry.version for entry in chunk.customers}
    assert seen == {c.id: (2 if c.id == made[1].id else 1) for c in made}
    rest = [
        entry.customer.id
        async for chunk in shop.customers.StreamCustomers(pb.StreamCustomersRequest(after_id=made[1].id))
        for entry in chunk.customers
    ]
    assert rest == [made[2].id, made[3].id]


async def test_tags_are_counted_renamed_and_removed(shop: Shop) -> None:
    first = await shop.create(tags=["Gold", "west"])
    second = await shop.create(tags=["gold", "Silver"])
    listed = await shop.customers.ListTags(pb.ListTagsRequest())
    assert {t.tag.lower(): t.customers for t in listed.tags} == {"gold": 2, "west": 1, "silver": 1}
    done = await shop.customers.RenameTag(pb.RenameTagRequest(tag="GOLD", new_tag="silver"))
    assert done.customers == 2
    got = [await shop.customers.GetCustomer(pb.GetCustomerRequest(id=c.id)) for c in (first, second)]
    assert [sorted(t.lower() for t in c.tags) for c in got] == [["silver", "west"], ["silver"]]
    assert [c.etag for c in got] == ["2", "2"]
    await shop.customers.RemoveCustomerTag(pb.RemoveCustomerTagRequest(id=first.id, tag="WEST"))
    assert list((await shop.customers.GetCustomer(pb.GetCustomerRequest(id=first.id))).tags) == ["silver"]


async def test_a_hundred_tags_are_the_most(shop: Shop) -> None:
    made = await shop.create(tags=[f"t{i}" for i in range(100)])
    problem = await refused(
        shop.customers.AddCustomerTags(pb.AddCustomerTagsRequest(id=made.id, tags=["one more"]))
    )
    assert (problem.code, set(problem.fields)) == (INVALID, {"tags"})


async def test_stats_count_the_business(shop: Shop, other_shop: Shop) -> None:
    await shop.create()
    await shop.create(status=pb.CUSTOMER_STATUS_BLOCKED)
    guest = await shop.create(type=pb.CUSTOMER_TYPE_GUEST)
    await other_shop.create()
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=guest.id))
    stats = await shop.customers.GetCustomerStats(pb.GetCustomerStatsRequest())
    assert (stats.total, stats.deleted, stats.new_last_30_days) == (2, 1, 2)
    assert dict(stats.by_status) == {"ACTIVE": 1, "BLOCKED": 1}
    assert dict(stats.by_type) == {"REGISTERED": 2}


async def test_the_business_must_be_named_where_there_are_several(shop: Shop, other_shop: Shop) -> None:
    both = shop.tenant.calls(CustomersServiceStub)
    create = pb.CreateCustomerRequest(customer=pb.Customer(email="a@example.com"))
    problem = await refused(both.CreateCustomer(create))
    assert (problem.code, problem.fields) == (INVALID, {"business_id": "REQUIRED"})
    create.business_id = shop.id
    assert (await both.CreateCustomer(create)).business_id == shop.id


async def test_masked_roles_see_and_write_less(shop: Shop) -> None:
    made = await shop.create(**EVERYTHING)
    support = await shop.calls(CustomersServiceStub, "support").GetCustomer(pb.GetCustomerRequest(id=made.id))
    assert not support.HasField("phone")
    assert (support.phone_last_digits, support.email) == ("2671", made.email)
    assert "phone" in support.masked_fields
    analyst = await shop.calls(CustomersServiceStub, "analyst").GetCustomer(pb.GetCustomerRequest(id=made.id))
    assert not {f.name for f, _ in analyst.ListFields()} & {
        "first_name",
        "last_name",
        "full_name",
        "email",
        "phone",
    }
    problem = await refused(
        shop.calls(CustomersServiceStub, "support").UpdateCustomer(update(made, phone="+14155552672"))
    )
    assert problem.code is grpc.StatusCode.PERMISSION_DENIED


async def test_an_archived_business_is_read_only(shop: Shop) -> None:
    made = await shop.create()
    admin = shop.tenant.calls(BusinessesServiceStub)
    await admin.ArchiveBusiness(businesses_pb2.ArchiveBusinessRequest(id=shop.id))
    problem = await refused(shop.customers.UpdateCustomer(update(made, first_name="X")))
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUSINESS_ARCHIVED")
    assert (await shop.customers.GetCustomer(pb.GetCustomerRequest(id=made.id))).id == made.id


async def test_events_tell_facts_and_no_personal_data(shop: Shop, stack: Stack, tenant: TenantOfTest) -> None:
    made = await shop.create(**EVERYTHING)
    await shop.customers.UpdateCustomer(update(made, first_name="Sentinel"))
    await shop.customers.DeleteCustomer(pb.DeleteCustomerRequest(id=made.id))
    heard: dict[str, Any] = {}
    js = stack.runtimes["customers"].js
    subject = f"{stack.settings.prefix}customers.customer.*.{tenant.id}"
    sub = await js.subscribe(subject, ordered_consumer=True)
    bodies = b""
    while "regulars.customers.v1.CustomerDeleted" not in heard:
        msg = await sub.next_msg(timeout=20)
        heard[msg.headers["ce-type"]] = msg
        bodies += msg.data + str(msg.headers).encode()
    created = heard["regulars.customers.v1.CustomerCreated"]
    assert created.headers["aggregateversion"] == "1"
    assert created.headers["ce-subject"] == made.id
    assert created.headers["business"] == shop.id
    updated = events_pb2.CustomerUpdated.FromString(heard["regulars.customers.v1.CustomerUpdated"].data)
    assert list(updated.changed_fields) == ["first_name"]
    for secret in (
        "Zoë",
        "Ångström",
        "Sentinel",
        "zoe@example.com",
        "Zoe@Example.com",
        "4155552671",
        "1988-02-29",
    ):
        assert secret.encode() not in bodies
    await sub.unsubscribe()
