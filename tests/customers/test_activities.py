"""Recording activities over gRPC."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from sqlalchemy import func, select, text, update

from libs import clock
from libs.caller import Caller, acting_as
from libs.ids import new_id
from libs.instants import instant
from regulars.customers.v1 import activities_pb2 as pb
from regulars.customers.v1 import businesses_pb2, customers_pb2, events_pb2
from regulars.customers.v1.activities_pb2_grpc import ActivitiesServiceStub
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from services.customers.activities import jobs
from services.customers.activities.tables import activities, activity_ids
from services.customers.tables import customers
from tests.customers.shop import Shop, open_shop, refused
from tests.customers.visits import activity, item, on, record, record_one
from tests.platform import Stack, TenantOfTest

RECORDED, DUPLICATE = pb.ACTIVITY_OUTCOME_RECORDED, pb.ACTIVITY_OUTCOME_DUPLICATE
NOT_FOUND, INVALID = pb.ACTIVITY_OUTCOME_NOT_FOUND, pb.ACTIVITY_OUTCOME_INVALID


def outcomes(answer: pb.RecordActivitiesResponse) -> list[Any]:
    return [result.outcome for result in answer.results]


async def stored(tenant: TenantOfTest, *columns: Any) -> list[Any]:
    """What the tenant's rows of activities hold."""
    rt = tenant.stack.runtimes["customers"]
    with acting_as(Caller(tenant_id=tenant.id, subject="test")):
        async with rt.db.read() as tx:
            rows = await tx.execute(select(*columns).where(activities.c.tenant_id == tenant.id))
            return list(rows.all())


def properties(**values: Any) -> Struct:
    found = Struct()
    found.update(values)
    return found


async def test_an_activity_comes_back_whole(shop: Shop) -> None:
    customer = await shop.create()
    given = activity(
        on(2026, 3, 4),
        kind=pb.ACTIVITY_KIND_CUSTOM,
        name="quiz.finished",
        session="visit 7",
        utm=pb.Utm(source="newsletter", medium="email", campaign="spring", term="tea", content="top"),
        referrer="https://example.com/search?q=green+tea",
        device=pb.DEVICE_TYPE_TABLET,
        country="de",
        product=pb.ActivityProduct(sku="T-1", name="Sencha", category="tea", brand="Uji", quantity=2),
        value_minor=1250,
        properties=properties(score=7, tags=["a", "b"], deep={"yes": True}),
        ip_address="203.0.113.9",
        user_agent="Mozilla/5.0",
    )
    made = await record_one(shop, customer.id, given)
    assert made.customer_id == customer.id
    assert made.HasField("recorded_at")
    given.country, given.currency, given.customer_id = "DE", "USD", customer.id
    given.recorded_at.CopyFrom(made.recorded_at)
    given.ip_address = given.user_agent = ""  # not kept unless the business says so
    assert made == given


async def test_what_a_customer_said_is_not_in_clear(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    given = activity(
        referrer="https://example.com/u/ann?token=secret", properties=properties(answer="forty-two")
    )
    await record_one(shop, customer.id, given)
    (row,) = await stored(tenant, activities)
    assert row.referrer == "https://example.com"
    assert row.sealed_ip is None
    for value in row:
        assert b"forty-two" not in value if isinstance(value, bytes) else "secret" not in str(value)


async def test_each_item_gets_its_own_answer(shop: Shop, other_shop: Shop) -> None:
    customer, stranger = await shop.create(), await other_shop.create()
    now = clock.now()
    twice = activity()
    answer = await record(
        shop,
        [
            pb.ActivityItem(customer_id=customer.id, activity=twice),
            pb.ActivityItem(customer_id=customer.id, activity=twice),
            item(stranger.id),
            item(str(new_id())),
            item(customer.id, now + timedelta(hours=2)),
            item(customer.id, on(1999, 12, 31)),
            item(customer.id, kind=pb.ACTIVITY_KIND_CUSTOM),
            item(customer.id, name="named"),
            item(customer.id, ip_address="nowhere"),
            item(customer.id, properties=properties(much="x" * 9000)),
            item(customer.id, properties=Struct(fields={"n": Value(number_value=float("inf"))})),
            pb.ActivityItem(email="no mail", activity=activity()),
            item(customer.id, now + timedelta(minutes=30)),
        ],
    )
    assert outcomes(answer) == [
        *(RECORDED, DUPLICATE, NOT_FOUND, NOT_FOUND),
        *[INVALID] * 8,
        RECORDED,
    ]
    assert [result.field for result in answer.results if result.outcome == INVALID] == [
        "activity.occurred_at",
        "activity.occurred_at",
        "activity.name",
        "activity.name",
        "activity.ip_address",
        "activity.properties",
        "activity.properties",
        "email",
    ]
    assert (answer.recorded, answer.duplicates, answer.refused) == (2, 1, 10)
    assert [bool(result.id) for result in answer.results] == [True] * 13


async def test_a_customer_is_named_by_whatever_finds_them(shop: Shop, other_shop: Shop) -> None:
    customer = await shop.create(
        email="Ann@Example.com",
        phone="+14155552671",
        sources=[customers_pb2.Source(name="shopify", external_id="77")],
    )
    await other_shop.create(email="elsewhere@example.com")
    answer = await record(
        shop,
        [
            pb.ActivityItem(email="ann@example.COM", activity=activity()),
            pb.ActivityItem(phone="(415) 555-2671", activity=activity()),
            pb.ActivityItem(external=pb.SourceRef(source="shopify", external_id="77"), activity=activity()),
            pb.ActivityItem(external=pb.SourceRef(source="klaviyo", external_id="77"), activity=activity()),
            pb.ActivityItem(email="elsewhere@example.com", activity=activity()),
        ],
    )
    assert outcomes(answer) == [RECORDED, RECORDED, RECORDED, NOT_FOUND, NOT_FOUND]
    assert {result.customer_id for result in answer.results[:3]} == {customer.id}


async def test_a_batch_that_comes_twice_is_recorded_once(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    batch = [item(customer.id, on(2026, 5, 1) + timedelta(minutes=n)) for n in range(50)]
    assert (await record(shop, batch)).recorded == 50
    again = await record(shop, batch[::-1])
    assert (again.recorded, again.duplicates) == (0, 50)
    assert len(await stored(tenant, activities.c.activity_id)) == 50


async def test_batches_that_share_ids_at_once_record_each_id_once(shop: Shop, tenant: TenantOfTest) -> None:
    people = [await shop.create() for _ in range(4)]
    batch = [item(people[n % 4].id) for n in range(200)]
    answers = await asyncio.gather(
        record(shop, batch), record(shop, batch[::-1]), record(shop, batch[100:] + batch[:100])
    )
    assert sum(answer.recorded for answer in answers) == 200
    assert sum(answer.duplicates for answer in answers) == 400
    assert len(await stored(tenant, activities.c.activity_id)) == 200


async def test_an_id_counts_once_over_the_border_of_a_month(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    one = str(new_id())
    answers = await asyncio.gather(
        record(shop, [item(customer.id, on(2025, 1, 31, 23), id=one)]),
        record(shop, [item(customer.id, on(2025, 2, 1, 0), id=one)]),
    )
    assert sorted(answer.recorded for answer in answers) == [0, 1]
    assert len(await stored(tenant, activities.c.activity_id)) == 1


async def test_another_business_may_use_the_same_id(shop: Shop, other_shop: Shop) -> None:
    one = str(new_id())
    for each in (shop, other_shop):
        customer = await each.create()
        assert outcomes(await record(each, [item(customer.id, id=one)])) == [RECORDED]


async def test_a_thousand_at_once_and_no_more(shop: Shop, tenant: TenantOfTest) -> None:
    people = [await shop.create() for _ in range(5)]
    batch = [item(people[n % 5].id, on(2026, 1 + n % 6, 1 + n % 28)) for n in range(1000)]
    assert (await record(shop, batch)).recorded == 1000
    problem = await refused(record(shop, [*batch, item(people[0].id)]))
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(record(shop, []))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_past_month_gets_a_partition_when_it_is_needed(
    shop: Shop, tenant: TenantOfTest, stack: Stack
) -> None:
    customer = await shop.create()
    when = on(2019, 7, 15)
    assert outcomes(await record(shop, [item(customer.id, when)])) == [RECORDED]
    (home,) = await stored(tenant, text("tableoid::regclass::text"))
    assert home[0].endswith("activities_2019_07")
    # What is older than ten years shares one partition.
    assert outcomes(await record(shop, [item(customer.id, on(2001, 7, 15))])) == [RECORDED]
    homes = {row[0].rpartition(".")[2] for row in await stored(tenant, text("tableoid::regclass::text"))}
    assert homes == {"activities_2019_07", "activities_other"}


async def test_what_waited_in_the_default_partition_moves_to_its_month(
    shop: Shop, tenant: TenantOfTest, stack: Stack
) -> None:
    customer = await shop.create()
    await record(shop, [item(customer.id, on(2003, 2, 28, 23)), item(customer.id, on(2003, 3, 1, 0))])
    rt = stack.runtimes["customers"]
    async with rt.db.worker() as tx:
        assert await tx.scalar(text("select make_activity_month('2003-02-10')")) is True
        assert await tx.scalar(text("select make_activity_month('2003-02-20')")) is False
    homes = await stored(tenant, activities.c.occurred_at, text("tableoid::regclass::text"))
    assert {at.month: home.rpartition(".")[2] for at, home in homes} == {
        2: "activities_2003_02",
        3: "activities_other",
    }


async def test_a_month_that_cannot_be_made_refuses_nothing(
    shop: Shop, tenant: TenantOfTest, stack: Stack
) -> None:
    customer = await shop.create()
    when = on(2017, 5, 15)
    url = stack.admin_url.rpartition("/")[0] + "/" + stack.env["REGULARS_DATABASE"]
    async with await psycopg.AsyncConnection.connect(url) as backup:
        await backup.execute("lock table customers.activities_other in access share mode")
        assert outcomes(await record(shop, [item(customer.id, when)])) == [RECORDED]
        ((home,),) = await stored(tenant, text("tableoid::regclass::text"))
        assert home.endswith("activities_other")
        await backup.rollback()
    async with stack.runtimes["customers"].db.worker() as tx:
        assert await tx.scalar(text("select make_activity_month('2017-05-01')")) is True
    ((home,),) = await stored(tenant, text("tableoid::regclass::text"))
    assert home.endswith("activities_2017_05")


async def test_months_are_made_ahead(stack: Stack) -> None:
    rt = stack.runtimes["customers"]
    await jobs.make_months_ahead(rt)
    month = clock.now()
    async with rt.db.worker() as tx:
        for _ in range(4):
            there = text(f"select to_regclass('activities_{month:%Y_%m}') is not null")
            assert await tx.scalar(there)
            month = (month.replace(day=1) + timedelta(days=32)).replace(day=1)


async def test_nobody_reads_a_partition_past_the_walls(
    shop: Shop, stack: Stack, tenant: TenantOfTest
) -> None:
    customer = await shop.create()
    await record(shop, [item(customer.id, on(2018, 1, 5)), item(customer.id, on(2001, 1, 5))])
    rt = stack.runtimes["customers"]
    for partition in ("activities_2018_01", "activities_other"):
        with acting_as(Caller(tenant_id=tenant.id, subject="test")), pytest.raises(Exception, match="denied"):
            async with rt.db.read() as tx:
                await tx.execute(text(f"select 1 from {partition}"))
    with acting_as(Caller(tenant_id=tenant.id, businesses=frozenset(), subject="test")):
        async with rt.db.read() as tx:
            for table in (activities, activity_ids):
                assert await tx.scalar(select(func.count()).select_from(table)) == 0
    with acting_as(Caller(tenant_id=new_id(), subject="test")):
        async with rt.db.read() as tx:
            assert await tx.scalar(select(func.count()).select_from(activities)) == 0


async def test_another_tenant_reaches_nobody_of_ours(shop: Shop, other_tenant: TenantOfTest) -> None:
    customer = await shop.create(email="here@example.com")
    theirs = await open_shop(other_tenant)
    answer = await record(
        theirs, [item(customer.id), pb.ActivityItem(email="here@example.com", activity=activity())]
    )
    assert outcomes(answer) == [NOT_FOUND, NOT_FOUND]
    request = pb.RecordActivitiesRequest(business_id=shop.id, items=[item(customer.id)])
    problem = await refused(theirs.calls(ActivitiesServiceStub).RecordActivities(request))
    assert problem.reason == "BUSINESS_NOT_FOUND"


async def test_one_activity_may_be_sent_again(shop: Shop) -> None:
    customer, other = await shop.create(), await shop.create()
    given = activity(on(2026, 2, 3))
    first = await record_one(shop, customer.id, given)
    changed = pb.Activity()
    changed.CopyFrom(given)
    changed.session = "other"
    assert await record_one(shop, customer.id, changed) == first
    problem = await refused(record_one(shop, other.id, given))
    assert (problem.code, problem.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ACTIVITY_ID_TAKEN")
    assert (await refused(record_one(shop, str(new_id()), activity()))).reason == "CUSTOMER_NOT_FOUND"
    wrong = await refused(record_one(shop, customer.id, activity(on(1990, 1, 1))))
    assert set(wrong.fields) == {"activity.occurred_at"}


async def test_a_request_id_stands_for_an_activity_without_id(shop: Shop) -> None:
    customer = await shop.create()
    given = pb.Activity(kind=pb.ACTIVITY_KIND_PAGE_VIEW)
    first = await record_one(shop, customer.id, given, request_id="r-1")
    assert await record_one(shop, customer.id, given, request_id="r-1") == first
    assert (await record_one(shop, customer.id, given)).id != first.id


async def test_last_activity_only_moves_forward_and_is_no_change(shop: Shop) -> None:
    customer = await shop.create()

    async def seen() -> customers_pb2.Customer:
        got: customers_pb2.Customer = await shop.customers.GetCustomer(
            customers_pb2.GetCustomerRequest(id=customer.id)
        )
        return got

    await record(shop, [item(customer.id, on(2026, 4, 2)), item(customer.id, on(2026, 4, 1))])
    assert instant((await seen()).last_active_at) == on(2026, 4, 2)
    await record(shop, [item(customer.id, on(2026, 3, 1))])
    sent = item(customer.id, on(2026, 5, 1), kind=pb.ACTIVITY_KIND_EMAIL_SENT)
    await record(shop, [sent])
    assert instant((await seen()).last_active_at) == on(2026, 4, 2)
    assert (await seen()).etag == customer.etag


async def test_many_batches_at_once_leave_the_latest_activity(shop: Shop) -> None:
    people = [await shop.create() for _ in range(3)]
    batches = [
        [item(person.id, on(2026, 1 + n, 1) + timedelta(seconds=k)) for k, person in enumerate(order)]
        for n, order in enumerate([people, people[::-1], people[1:] + people[:1]] * 2)
    ]
    await asyncio.gather(*(record(shop, batch) for batch in batches))
    for person in people:
        got = await shop.customers.GetCustomer(customers_pb2.GetCustomerRequest(id=person.id))
        assert instant(got.last_active_at).month == 6


async def test_ip_addresses_are_kept_sealed_for_thirty_days(
    shop: Shop, tenant: TenantOfTest, stack: Stack
) -> None:
    await tenant.calls(BusinessesServiceStub).UpdateBusiness(
        businesses_pb2.UpdateBusinessRequest(
            id=shop.id, business=businesses_pb2.Business(keep_visitor_details=True)
        )
    )
    customer = await shop.create()
    given = activity(ip_address="2001:DB8::1", user_agent="Mozilla/5.0")
    bare = activity(ip_address="203.0.113.9")
    made = await record_one(shop, customer.id, given)
    assert (made.ip_address, made.user_agent) == ("2001:db8::1", "Mozilla/5.0")
    await record_one(shop, customer.id, bare)
    rt = stack.runtimes["customers"]
    await jobs.forget_ips(rt)
    assert (await record_one(shop, customer.id, bare)).ip_address == "203.0.113.9"
    with acting_as(Caller(tenant_id=tenant.id, subject="test")):
        async with rt.db.tx() as tx:
            await tx.execute(
                update(activities)
                .where(activities.c.tenant_id == tenant.id)
                .values(recorded_at=tx.now - timedelta(days=31))
            )
    await jobs.forget_ips(rt)
    after = await record_one(shop, customer.id, given)
    assert (after.ip_address, after.user_agent) == ("", "Mozilla/5.0")
    assert (await record_one(shop, customer.id, bare)).ip_address == ""


async def test_activities_go_with_the_membership(shop: Shop, other_shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    both = tenant.calls(CustomersServiceStub)
    await both.JoinBusiness(customers_pb2.JoinBusinessRequest(id=customer.id, business_id=other_shop.id))
    await record(shop, [item(customer.id)])
    await record(other_shop, [item(customer.id)])
    await both.LeaveBusiness(customers_pb2.LeaveBusinessRequest(id=customer.id, business_id=shop.id))
    assert [str(row[0]) for row in await stored(tenant, activities.c.business_id)] == [other_shop.id]


async def test_who_leaves_while_activities_come_leaves_none_behind(
    shop: Shop, other_shop: Shop, tenant: TenantOfTest
) -> None:
    people = [await shop.create() for _ in range(6)]
    both = tenant.calls(CustomersServiceStub)
    for each in people:
        await both.JoinBusiness(customers_pb2.JoinBusinessRequest(id=each.id, business_id=other_shop.id))
    batches = [[item(each.id) for each in people] for _ in range(4)]
    answers = await asyncio.gather(
        *(record(shop, batch) for batch in batches[:2]),
        *(
            both.LeaveBusiness(customers_pb2.LeaveBusinessRequest(id=each.id, business_id=shop.id))
            for each in people
        ),
        *(record(shop, batch) for batch in batches[2:]),
        return_exceptions=True,
    )
    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    assert not await stored(tenant, activities.c.activity_id)


async def test_a_deleted_customer_gets_no_activities(shop: Shop) -> None:
    customer = await shop.create()
    await shop.customers.DeleteCustomer(customers_pb2.DeleteCustomerRequest(id=customer.id))
    assert outcomes(await record(shop, [item(customer.id)])) == [NOT_FOUND]


async def test_a_merged_id_leads_to_the_survivor(shop: Shop, stack: Stack, tenant: TenantOfTest) -> None:
    old, survivor = await shop.create(), await shop.create()
    rt = stack.runtimes["customers"]
    with acting_as(Caller(tenant_id=tenant.id, subject="test")):
        async with rt.db.tx() as tx:
            mine = customers.c.tenant_id == tenant.id, customers.c.customer_id == old.id
            await tx.execute(update(customers).where(*mine).values(merged_into=survivor.id))
            await tx.execute(
                text("delete from memberships where tenant_id = :t and customer_id = :c"),
                {"t": tenant.id, "c": old.id},
            )
    (result,) = (await record(shop, [item(old.id)])).results
    assert (result.outcome, result.customer_id) == (RECORDED, survivor.id)


async def test_each_new_activity_is_told_once_and_without_what_it_holds(
    shop: Shop, stack: Stack, tenant: TenantOfTest
) -> None:
    customer = await shop.create(email="quiet@example.com")
    given = activity(
        on(2026, 6, 1),
        kind=pb.ACTIVITY_KIND_ADD_TO_CART,
        product=pb.ActivityProduct(sku="T-1", category="tea"),
        value_minor=500,
        referrer="https://example.com/u/ann",
        properties=properties(word="unspoken"),
    )
    batch = [pb.ActivityItem(email="quiet@example.com", activity=given), item(customer.id)]
    await record(shop, batch)
    await record(shop, batch)
    last = await record_one(shop, customer.id, activity())
    subject = f"{stack.settings.prefix}customers.activity.recorded.{tenant.id}"
    sub = await stack.runtimes["customers"].js.subscribe(subject, ordered_consumer=True)
    heard: list[events_pb2.ActivityRecorded] = []
    said = b""
    while not heard or heard[-1].activity_id != last.id:
        msg = await sub.next_msg(timeout=20)
        heard.append(events_pb2.ActivityRecorded.FromString(msg.data))
        said += msg.data + str(msg.headers).encode()
    assert len(heard) == 3
    (first,) = [event for event in heard if event.activity_id == given.id]
    assert (first.customer_id, first.business_id, first.kind) == (customer.id, shop.id, given.kind)
    assert (first.sku, first.product_category, first.value_minor, first.currency) == (
        "T-1",
        "tea",
        500,
        "USD",
    )
    assert instant(first.occurred_at) == on(2026, 6, 1)
    for secret in (b"quiet", b"unspoken", b"ann"):
        assert secret not in said


async def test_only_who_may_records(shop: Shop) -> None:
    customer = await shop.create()
    request = pb.RecordActivitiesRequest(items=[item(customer.id)])
    for role in ("marketer", "support", "analyst"):
        problem = await refused(shop.calls(ActivitiesServiceStub, role).RecordActivities(request))
        assert problem.code is grpc.StatusCode.PERMISSION_DENIED
    assert (await shop.calls(ActivitiesServiceStub, "service").RecordActivities(request)).recorded == 1


async def test_over_rest(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create(email="rest@example.com")
    async with tenant.rest(businesses=[shop.id]) as client:
        one = await client.post(
            f"/api/v1/customers/{customer.id}/activities",
            json={"kind": "PRODUCT_VIEW", "product": {"sku": "T-1"}, "properties": {"a": [1]}},
        )
        assert one.status_code == 200, one.text
        assert (one.json()["product"]["sku"], one.json()["properties"]) == ("T-1", {"a": [1]})
        many = await client.post(
            "/api/v1/activities",
            json={
                "items": [
                    {"email": "rest@example.com", "activity": {"kind": "PAGE_VIEW"}},
                    {"customerId": str(new_id()), "activity": {"kind": "PAGE_VIEW"}},
                ]
            },
        )
        assert many.status_code == 200, many.text
        assert [r["outcome"] for r in many.json()["results"]] == [
            "RECORDED",
            "NOT_FOUND",
        ]
