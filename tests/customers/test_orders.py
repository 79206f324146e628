"""Recording orders: revisions, refunds, completion, matching, metrics."""

import grpc
from sqlalchemy import text

from libs import clock
from libs.caller import Caller, acting_as
from regulars.customers.v1 import businesses_pb2
from regulars.customers.v1 import customers_pb2 as customers
from regulars.customers.v1 import orders_pb2 as pb
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.customers.purchases import (
    DAY,
    NOON,
    calls,
    differences,
    get,
    item,
    metrics_of,
    money,
    order,
    record,
    refund,
)
from tests.customers.shop import Shop, open_shop, refused
from tests.platform import TenantOfTest

INVALID, ABSENT = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
CREATED, UPDATED = pb.RECORD_OUTCOME_CREATED, pb.RECORD_OUTCOME_UPDATED
UNCHANGED, STALE = pb.RECORD_OUTCOME_UNCHANGED, pb.RECORD_OUTCOME_STALE
WAITING, REFUSED = pb.RECORD_OUTCOME_WAITING, pb.RECORD_OUTCOME_REFUSED


async def test_an_order_is_recorded_with_all_that_it_says(shop: Shop) -> None:
    said = order(
        external_id="#1001",
        source="shopify",
        revision=7,
        channel="web",
        store="Berlin",
        items=[
            item(1500, 2, sku="A-1", name="Shirt", category="Shirts", brand="Acme", discount=money(500)),
            item(1000, 1, sku="B-1", name="Sock"),
        ],
        discount=money(300),
        shipping=money(490),
        tax=money(700),
        total=money(4390),
        tags=["gift"],
        payments=[pb.OrderPayment(method="card", status=pb.PAYMENT_STATUS_PAID, amount=money(4390))],
        shipping_address=pb.OrderAddress(
            recipient="Ann", street_lines=["Main St 1"], city="Reno", country="US"
        ),
        deliveries=[pb.OrderDelivery(carrier="UPS", tracking_number="1Z999")],
        email="Ann@Example.com",
    )
    (result,) = await record(shop, said)
    assert (result.outcome, result.revision, result.guest_created) == (CREATED, 7, True)
    got = await get(shop, result.order_id)
    assert (got.external_id, got.source, got.channel, got.store) == ("#1001", "shopify", "web", "Berlin")
    assert [(i.sku, i.amount.amount_minor) for i in got.items] == [("A-1", 2500), ("B-1", 1000)]
    assert (got.subtotal.amount_minor, got.total.amount_minor, got.total.currency) == (3500, 4390, "USD")
    assert got.shipping_address == said.shipping_address
    assert (got.deliveries[0].tracking_number, got.payments[0].method, list(got.tags)) == (
        "1Z999",
        "card",
        ["gift"],
    )
    assert got.HasField("completed_at")
    guest = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=got.customer_id))
    assert (guest.type, guest.email, guest.etag) == (customers.CUSTOMER_TYPE_GUEST, "Ann@Example.com", "1")
    assert guest.lifecycle_stage == customers.LIFECYCLE_STAGE_NEW
    counted = await metrics_of(shop, got.customer_id)
    assert (counted.orders_completed, counted.total_spent.amount_minor, counted.items) == (1, 4390, 3)
    assert (counted.visits, counted.favourite_category, counted.favourite_brand) == (1, "Shirts", "Acme")
    assert not await differences(shop)


async def test_the_newest_revision_holds_in_whatever_order_they_come(shop: Shop) -> None:
    first = order(external_id="1", revision=1, email="a@example.com")
    second = order(external_id="1", revision=2, email="a@example.com", items=[item(500, 3)])
    (made,) = await record(shop, second)
    (late,) = await record(shop, first)
    (again,) = await record(shop, second)
    assert [each.outcome for each in (made, late, again)] == [CREATED, STALE, UNCHANGED]
    assert (late.order_id, late.revision) == (made.order_id, 2)
    assert (await get(shop, made.order_id)).total.amount_minor == 1500
    newest = order(external_id="1", revision=3, email="a@example.com", items=[item(100)])
    (changed,) = await record(shop, newest)
    assert changed.outcome == UPDATED
    counted = await metrics_of(shop, made.customer_id)
    assert (counted.orders_recorded, counted.total_spent.amount_minor, counted.items) == (1, 100, 1)
    assert not await differences(shop)


async def test_a_revision_is_told_once(shop: Shop) -> None:
    (made,) = await record(shop, order(external_id="1"))
    (other,) = await record(shop, order(external_id="1", channel="pos"))
    assert (other.outcome, other.error.code, other.error.reason) == (
        REFUSED,
        "ALREADY_EXISTS",
        "REVISION_REUSED",
    )
    single = pb.RecordOrderRequest(order=order(external_id="1", channel="pos"))
    problem = await refused(calls(shop).RecordOrder(single))
    assert (problem.code, problem.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REVISION_REUSED")
    got = await get(shop, made.order_id)
    got.ClearField("customer_id")  # what was answered may be sent back
    assert got.channel == ""


async def test_refunds_are_cumulative_and_only_grow(shop: Shop) -> None:
    (made,) = await record(shop, order(external_id="1", items=[item(1000, 3)]))
    outcomes = [(await record(shop, refund("1", minor)))[0].outcome for minor in (500, 500, 300, 900)]
    assert outcomes == [UPDATED, UNCHANGED, UNCHANGED, UPDATED]
    assert (await get(shop, made.order_id)).refunded.amount_minor == 900
    counted = await metrics_of(shop, made.customer_id)
    assert (counted.total_spent.amount_minor, counted.refunded.amount_minor) == (3000, 900)
    assert (counted.net.amount_minor, counted.orders_refunded, counted.orders_completed) == (2100, 1, 1)
    (above,) = await record(shop, refund("1", 99_000))
    assert above.outcome == UPDATED
    assert (await get(shop, made.order_id)).refunded.amount_minor == 3000
    assert not await differences(shop)


async def test_a_refund_waits_for_its_order(shop: Shop) -> None:
    (kept,) = await record(shop, refund("later", 400))
    assert (kept.outcome, kept.order_id, kept.customer_id) == (WAITING, "", "")
    (more,) = await record(shop, refund("later", 600))
    assert more.outcome == WAITING
    assert not (await calls(shop).ListOrders(pb.ListOrdersRequest())).orders
    (made,) = await record(shop, order(external_id="later", email="a@example.com"))
    assert made.outcome == CREATED
    got = await get(shop, made.order_id)
    assert (got.refunded.amount_minor, got.total.amount_minor) == (600, 1000)
    assert (await metrics_of(shop, made.customer_id)).net.amount_minor == 400
    assert not await differences(shop)


async def test_a_cancelled_order_counts_for_nothing(shop: Shop) -> None:
    (made, _) = await record(
        shop, order(external_id="1", email="a@example.com"), order(email="a@example.com", day=1)
    )
    await record(shop, order(pb.ORDER_STATUS_CANCELLED, external_id="1", revision=2, email="a@example.com"))
    counted = await metrics_of(shop, made.customer_id)
    assert (counted.orders_recorded, counted.orders_completed, counted.orders_cancelled) == (2, 1, 1)
    assert (counted.total_spent.amount_minor, counted.visits) == (1000, 1)
    assert (await get(shop, made.order_id)).HasField("completed_at")
    assert not await differences(shop)


async def test_what_completes_an_order_is_the_businesss_to_say(tenant: TenantOfTest) -> None:
    shop = await open_shop(tenant, order_completion=businesses_pb2.ORDER_COMPLETION_DELIVERED)
    (paid,) = await record(shop, order(external_id="1", email="a@example.com"))
    assert not (await get(shop, paid.order_id)).HasField("completed_at")
    assert (await metrics_of(shop, paid.customer_id)).orders_completed == 0
    arrived = pb.OrderDelivery(carrier="UPS", delivered_at=order().placed_at)
    await record(shop, order(external_id="1", revision=2, email="a@example.com", deliveries=[arrived]))
    got = await get(shop, paid.order_id)
    assert got.HasField("completed_at")
    assert got.HasField("delivered_at")
    await record(shop, order(pb.ORDER_STATUS_PENDING, external_id="1", revision=3, email="a@example.com"))
    assert (await get(shop, paid.order_id)).completed_at == got.completed_at
    assert (await metrics_of(shop, paid.customer_id)).orders_completed == 1
    assert not await differences(shop)


async def test_what_a_late_revision_proves_is_kept(shop: Shop) -> None:
    (made,) = await record(shop, order(pb.ORDER_STATUS_PENDING, external_id="1", revision=2))
    (late,) = await record(shop, order(pb.ORDER_STATUS_PAID, external_id="1", revision=1))
    assert late.outcome == STALE
    got = await get(shop, made.order_id)
    assert (got.status, got.HasField("completed_at"), got.version) == (pb.ORDER_STATUS_PENDING, True, 2)
    assert not await differences(shop)


async def test_customers_are_found_by_id_external_id_email_and_phone(shop: Shop) -> None:
    known = await shop.create(
        email="ann@example.com",
        phone="+14155552671",
        sources=[customers.Source(name="shopify", external_id="c-1")],
    )
    said = [
        pb.OrderCustomer(external_id="c-1"),
        pb.OrderCustomer(email="ANN@example.com"),
        pb.OrderCustomer(phone="(415) 555-2671"),
    ]
    results = await record(
        shop, order(customer_id=known.id), *(order(source="shopify", customer=each) for each in said)
    )
    assert {each.customer_id for each in results} == {known.id}
    same = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=known.id))
    assert (same.etag, same.lifecycle_stage) == ("1", customers.LIFECYCLE_STAGE_REPEAT)
    (nobody,) = await record(shop, order())
    assert nobody.guest_created
    assert nobody.customer_id != known.id
    (unknown,) = await record(shop, order(customer_id=nobody.order_id))
    assert (unknown.error.violations[0].field, unknown.error.violations[0].reason) == (
        "order.customer_id",
        "CUSTOMER_NOT_FOUND",
    )


async def test_orders_of_one_stranger_make_one_guest(shop: Shop) -> None:
    results = await record(shop, *(order(email="new@example.com", day=day) for day in range(5)))
    assert len({each.customer_id for each in results}) == 1
    assert [each.guest_created for each in results].count(True) == 1
    (by_external,) = await record(
        shop, order(source="shop", customer=pb.OrderCustomer(external_id="x", email="x@example.com"))
    )
    (again,) = await record(shop, order(source="shop", customer=pb.OrderCustomer(external_id="x")))
    assert by_external.customer_id == again.customer_id


async def test_somebody_of_another_business_becomes_a_member(shop: Shop, other_shop: Shop) -> None:
    known = await other_shop.create(email="ann@example.com")
    (made,) = await record(shop, order(email="ann@example.com"))
    assert made.customer_id == known.id
    seen = await shop.tenant.calls(CustomersServiceStub).GetCustomer(
        customers.GetCustomerRequest(id=known.id, business_id=shop.id)
    )
    assert set(seen.business_ids) == {shop.id, other_shop.id}
    assert (await metrics_of(other_shop, known.id)).orders_recorded == 0


async def test_a_deleted_customer_gets_their_orders_and_stays_deleted(shop: Shop) -> None:
    known = await shop.create(email="ann@example.com")
    (made,) = await record(shop, order(external_id="1", email="ann@example.com"))
    await shop.customers.DeleteCustomer(customers.DeleteCustomerRequest(id=known.id))
    (later,) = await record(shop, order(external_id="1", revision=2, email="ann@example.com", channel="web"))
    assert (later.outcome, later.customer_id) == (UPDATED, known.id)
    listed = pb.ListCustomerOrdersRequest(customer_id=known.id)
    assert (await refused(calls(shop).ListCustomerOrders(listed))).code is ABSENT
    (new,) = await record(shop, order(email="ann@example.com"))
    assert new.guest_created
    assert new.customer_id != made.customer_id


async def test_a_steady_customer_is_loyal(shop: Shop) -> None:
    results = await record(shop, *(order(email="a@example.com", day=day) for day in (0, 30, 61)))
    got = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=results[0].customer_id))
    assert got.lifecycle_stage == customers.LIFECYCLE_STAGE_LOYAL
    erratic = await record(shop, *(order(email="b@example.com", day=day) for day in (0, 1, 61)))
    got = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=erratic[0].customer_id))
    assert got.lifecycle_stage == customers.LIFECYCLE_STAGE_REPEAT
    assert not await differences(shop)


async def test_an_order_is_activity_from_when_it_was_placed(shop: Shop) -> None:
    known = await shop.create(email="ann@example.com")

    async def active() -> int:
        got = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=known.id))
        assert got.etag == known.etag
        return got.last_active_at.seconds if got.HasField("last_active_at") else 0

    assert await active() == 0
    await record(shop, refund("1", 100))
    assert await active() == 0
    pending = order(pb.ORDER_STATUS_PENDING, external_id="1", revision=2, day=5, customer_id=known.id)
    await record(shop, pending, order(day=3, customer_id=known.id))
    assert await active() == NOON + 5 * DAY
    await record(shop, order(day=4, customer_id=known.id), refund("1", 300))
    assert await active() == NOON + 5 * DAY
    pending.revision, pending.placed_at.seconds = 3, NOON + 6 * DAY
    await record(shop, pending)
    assert await active() == NOON + 6 * DAY
    pending.revision, pending.placed_at.seconds = 1, NOON + 7 * DAY
    (late,) = await record(shop, pending)
    assert (late.outcome, await active()) == (STALE, NOON + 6 * DAY)
    tomorrow = order(customer_id=known.id)
    tomorrow.placed_at.FromSeconds(int(clock.now().timestamp()) + DAY - 60)
    await record(shop, tomorrow)
    assert abs(await active() - clock.now().timestamp()) < 60


async def test_a_guests_order_is_their_first_activity(shop: Shop) -> None:
    (result,) = await record(shop, order(email="new@example.com", day=1))
    got = await shop.customers.GetCustomer(customers.GetCustomerRequest(id=result.customer_id))
    assert got.last_active_at.seconds == NOON + DAY


async def test_an_order_is_activity_at_its_own_business_alone(shop: Shop, other_shop: Shop) -> None:
    known = await other_shop.create(email="ann@example.com")
    await record(shop, order(email="ann@example.com"))
    for where, active in ((shop, True), (other_shop, False)):
        got = await where.customers.GetCustomer(customers.GetCustomerRequest(id=known.id))
        assert got.HasField("last_active_at") == active


async def test_a_visit_is_a_day_of_the_business(tenant: TenantOfTest) -> None:
    shop = await open_shop(tenant, time_zone="Pacific/Auckland")
    noon = order().placed_at.seconds // DAY * DAY + DAY // 2  # midnight in Auckland
    placed = [order(email="a@example.com") for _ in range(3)]
    for each, offset in zip(placed, (-3600, 3600, 7200), strict=True):
        each.placed_at.seconds = noon + offset
    results = await record(shop, *placed)
    assert (await metrics_of(shop, results[0].customer_id)).visits == 2


async def test_every_wrong_field_of_each_record_is_told_and_the_others_are_recorded(shop: Shop) -> None:
    wrong = order(
        external_id=" ",
        currency="EUR",
        items=[item(-5, 2), item(100, 0), item(100, 1, discount=money(200)), item(100, sku="x" * 101)],
        customer=pb.OrderCustomer(email="nobody", phone="12"),
        tags=["\n"],
    )
    sums = order(items=[item(1000)], shipping=money(100), total=money(1000), refunded=money(5))
    future = order(day=100_000)
    results = await record(
        shop,
        wrong,
        order(external_id="right"),
        sums,
        future,
        pb.OrderRecord(),
        order(items=[item()] * 501),
        order(pb.ORDER_STATUS_UNSPECIFIED),
        pb.OrderRecord(order=pb.Order(external_id="empty", status=pb.ORDER_STATUS_PAID)),
        order(total=money(100), refunded=money(200)),
        refund("", -1),
    )
    assert [each.outcome == REFUSED for each in results] == [True, False] + [True] * 8
    fields = {violation.field: violation.reason for violation in results[0].error.violations}
    assert set(fields) >= {
        "order.external_id",
        "order.currency",
        "order.items[0].unit_price.amount_minor",
        "order.items[1].quantity",
        "order.items[2].discount",
        "order.items[3].sku",
        "order.customer.email",
        "order.customer.phone",
        "order.tags[0]",
    }
    told = [[(v.field, v.reason) for v in each.error.violations] for each in results[2:]]
    assert told[0] == [("order.total", "SUM_MISMATCH")]
    assert told[1] == [("order.placed_at", "TIME_RANGE")]
    assert told[2] == [("", "REQUIRED")]
    assert told[3] == [("order.items", "REPEATED_MAX_ITEMS")]
    assert told[4][0][0] == "order.status"
    assert {field for field, _ in told[5]} == {"order.placed_at", "order.total"}
    assert told[6] == [("order.refunded", "REFUND_ABOVE_TOTAL")]
    assert {field for field, _ in told[7]} == {"refund.external_id", "refund.refunded_total.amount_minor"}
    assert not await differences(shop)


async def test_a_single_order_is_refused_as_a_call(shop: Shop) -> None:
    problem = await refused(calls(shop).RecordOrder(pb.RecordOrderRequest(order=order(currency="EUR"))))
    assert (problem.code, problem.fields) == (INVALID, {"order.currency": "CURRENCY_MISMATCH"})
    too_many = pb.RecordOrdersRequest(records=[pb.OrderRecord(order=order())] * 1001)
    assert (await refused(calls(shop).RecordOrders(too_many))).fields == {"records": "REPEATED_MAX_ITEMS"}


async def test_an_order_without_an_id_is_recorded_once_for_its_request_id(shop: Shop) -> None:
    said = order(external_id="")
    results = [
        await calls(shop).RecordOrder(pb.RecordOrderRequest(order=said, request_id="r-1")) for _ in range(2)
    ]
    assert [each.result.outcome for each in results] == [CREATED, UNCHANGED]
    assert (await get(shop, results[0].result.order_id)).external_id == "r-1"


async def test_lists_are_paged_filtered_and_newest_first(shop: Shop) -> None:
    results = await record(
        shop,
        *(order(email="a@example.com", day=day) for day in range(5)),
        order(pb.ORDER_STATUS_PENDING, email="b@example.com", external_id="mine"),
    )
    whose = results[0].customer_id
    first = await calls(shop).ListCustomerOrders(pb.ListCustomerOrdersRequest(customer_id=whose, page_size=3))
    second = await calls(shop).ListCustomerOrders(
        pb.ListCustomerOrdersRequest(customer_id=whose, page_size=3, page_token=first.next_page_token)
    )
    assert [o.id for o in (*first.orders, *second.orders)] == [r.order_id for r in results[4::-1]]
    assert not second.next_page_token
    pending = await calls(shop).ListOrders(pb.ListOrdersRequest(status=[pb.ORDER_STATUS_PENDING]))
    assert [o.id for o in pending.orders] == [results[5].order_id]
    named = await calls(shop).ListOrders(pb.ListOrdersRequest(external_id="mine"))
    assert [o.id for o in named.orders] == [results[5].order_id]
    later = await calls(shop).ListOrders(pb.ListOrdersRequest(placed_after=order(day=3).placed_at))
    assert [o.id for o in later.orders] == [r.order_id for r in results[4:2:-1]]


async def test_customers_see_their_own_orders_without_tags(shop: Shop) -> None:
    (mine, _) = await record(shop, order(email="a@example.com", tags=["vip"]), order(email="b@example.com"))
    async with shop.tenant.rest(customer=mine.customer_id, businesses=[shop.id]) as client:
        answer = await client.get("/api/v1/me/orders")
        assert answer.status_code == 200
        (got,) = answer.json()["orders"]
        assert (got["id"], "tags" in got and bool(got["tags"])) == (mine.order_id, False)
        assert (await client.get(f"/api/v1/orders/{mine.order_id}")).status_code == 403


async def test_orders_are_their_businesss_alone(
    shop: Shop, other_shop: Shop, other_tenant: TenantOfTest
) -> None:
    (made,) = await record(shop, order(external_id="1", email="a@example.com"))
    for stranger in (other_shop, await open_shop(other_tenant)):
        problem = await refused(calls(stranger).GetOrder(pb.GetOrderRequest(id=made.order_id)))
        assert (problem.code, problem.reason) == (ABSENT, "ORDER_NOT_FOUND")
        assert not (await calls(stranger).ListOrders(pb.ListOrdersRequest())).orders
        listed = pb.ListCustomerOrdersRequest(customer_id=made.customer_id)
        assert (await refused(calls(stranger).ListCustomerOrders(listed))).code is ABSENT
        counted = pb.GetCustomerMetricsRequest(customer_id=made.customer_id)
        assert (await refused(calls(stranger).GetCustomerMetrics(counted))).code is ABSENT
        foreign = pb.RecordOrdersRequest(business_id=shop.id, records=[pb.OrderRecord(order=order())])
        assert (await refused(calls(stranger).RecordOrders(foreign))).code is ABSENT
        (own,) = await record(stranger, order(external_id="1", currency="", items=[], total=money(5)))
        assert own.outcome == CREATED
        assert own.order_id != made.order_id
    (theirs,) = await record(other_shop, order(customer_id=made.customer_id))
    assert theirs.error.violations[0].reason == "CUSTOMER_NOT_FOUND"
    assert (await get(shop, made.order_id)).version == 1


async def test_an_archived_business_takes_no_orders(shop: Shop) -> None:
    await shop.tenant.calls(BusinessesServiceStub).ArchiveBusiness(
        businesses_pb2.ArchiveBusinessRequest(id=shop.id)
    )
    problem = await refused(calls(shop).RecordOrder(pb.RecordOrderRequest(order=order())))
    assert problem.reason == "BUSINESS_ARCHIVED"


async def test_orders_over_rest(shop: Shop) -> None:
    body = {
        "externalId": "r1",
        "status": "PAID",
        "placedAt": "2026-01-05T10:00:00Z",
        "customer": {"email": "rest@example.com"},
        "items": [{"sku": "A", "quantity": "2", "unitPrice": {"amountMinor": "1250"}}],
    }
    async with shop.tenant.rest(businesses=[shop.id]) as client:
        made = await client.post("/api/v1/orders", json=body)
        assert made.status_code == 200, made.text
        result = made.json()["result"]
        assert result["outcome"] == "CREATED"
        got = (await client.get(f"/api/v1/orders/{result['orderId']}")).json()
        assert got["total"] == {"amountMinor": "2500", "currency": "USD"}
        back = await client.post(
            "/api/v1/orders/refunds", json={"externalId": "r1", "refundedTotal": {"amountMinor": "500"}}
        )
        assert back.json()["result"]["outcome"] == "UPDATED"
        batch = await client.post(
            "/api/v1/orders/batch", json={"records": [{"order": {**body, "items": []}}, {"order": body}]}
        )
        assert [each["outcome"] for each in batch.json()["results"]] == ["REFUSED", "UNCHANGED"]
        counted = (await client.get(f"/api/v1/customers/{result['customerId']}/metrics")).json()
        assert counted["net"] == {"amountMinor": "2000", "currency": "USD"}
        listed = (await client.get(f"/api/v1/customers/{result['customerId']}/orders")).json()
        assert [each["id"] for each in listed["orders"]] == [result["orderId"]]
        wrong = await client.post("/api/v1/orders", json={**body, "total": {"amountMinor": "1"}})
        assert wrong.status_code == 400
        assert wrong.json()["error"]["violations"][0]["field"] == "order.total"


async def test_the_recount_finds_what_is_wrong(shop: Shop) -> None:
    (made,) = await record(shop, order(email="a@example.com", items=[item(category="C", brand="B")]))
    assert not await differences(shop)
    runtime = shop.tenant.stack.runtimes["customers"]
    wrong = {
        "customer_metrics": "net_minor = net_minor + 1",
        "customer_daily": "spent_minor = spent_minor + 1",
        "customer_favourites": "quantity = quantity + 1",
    }
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="vandal")):
        async with runtime.db.tx() as tx:
            for table, change in wrong.items():
                await tx.execute(text(f"update {table} set {change}"))
    found = await differences(shop)
    assert {(table, side) for table, side, *_ in found} == {
        (table, side) for table in wrong for side in ("kept", "counted")
    }
    assert {str(customer) for _, _, customer, _ in found} == {made.customer_id}
