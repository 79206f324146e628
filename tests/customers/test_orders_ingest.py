"""Orders by stream and by NATS, and the events that they leave."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc.status_pb2 import Status
from nats.aio.msg import Msg

from libs import status
from regulars.customers.v1 import events_pb2 as events
from regulars.customers.v1 import orders_pb2 as pb
from tests.customers.purchases import calls, differences, get, item, money, order, record, refund
from tests.customers.shop import Shop, refused
from tests.platform import Stack, TenantOfTest

CREATED, REFUSED = pb.RECORD_OUTCOME_CREATED, pb.RECORD_OUTCOME_REFUSED


async def test_a_stream_answers_for_each_record_in_order(shop: Shop) -> None:
    said = [order(email=f"p{i % 7}@example.com", day=i % 3) for i in range(1200)]
    said[5].currency = "EUR"

    async def requests() -> AsyncIterator[pb.RecordOrderStreamRequest]:
        for each in said:
            yield pb.RecordOrderStreamRequest(record=pb.OrderRecord(order=each))
        yield pb.RecordOrderStreamRequest(record=refund(said[0].external_id, 100))

    answers = [answer async for answer in calls(shop).RecordOrderStream(requests())]
    assert [answer.index for answer in answers] == list(range(1201))
    outcomes = Counter(answer.result.outcome for answer in answers)
    assert outcomes == {CREATED: 1199, REFUSED: 1, pb.RECORD_OUTCOME_UPDATED: 1}
    assert answers[5].result.error.violations[0].field == "order.currency"
    assert len({answer.result.customer_id for answer in answers}) == 8  # seven people and nobody
    assert not await differences(shop)


async def test_a_stream_is_answered_before_it_ends(shop: Shop) -> None:
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[pb.RecordOrderStreamRequest]:
        yield pb.RecordOrderStreamRequest(record=pb.OrderRecord(order=order()))
        await answered.wait()
        yield pb.RecordOrderStreamRequest(record=pb.OrderRecord(order=order()))

    seen = []
    async for answer in calls(shop).RecordOrderStream(requests()):
        seen.append(answer.result.outcome)
        answered.set()
    assert seen == [CREATED, CREATED]


async def test_a_stream_is_for_one_business(shop: Shop, other_shop: Shop) -> None:
    async def requests() -> AsyncIterator[pb.RecordOrderStreamRequest]:
        for business in (shop, other_shop):
            yield pb.RecordOrderStreamRequest(
                business_id=business.id, record=pb.OrderRecord(order=order(currency=""))
            )

    async def all_of_it() -> None:
        async for _ in calls(shop).RecordOrderStream(requests()):
            pass

    problem = await refused(all_of_it())
    assert problem.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


async def _ask(
    stack: Stack, tenant: TenantOfTest, token: str, request: pb.RecordOrdersRequest, subject: str = ""
) -> Msg:
    nc = stack.runtimes["customers"].nats
    subject = subject or f"{stack.settings.prefix}ingest.orders.{tenant.id}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    found: Msg = await nc.request(subject, request.SerializeToString(), timeout=20, headers=headers or None)
    return found


def _refusal(answer: Msg) -> tuple[str, str]:
    problem = status.from_status(Status.FromString(answer.data))
    return problem.code.value, problem.reason


async def test_orders_come_by_nats_and_are_answered_one_by_one(shop: Shop, stack: Stack) -> None:
    tenant = shop.tenant
    said = [order(email="n@example.com"), order(currency="EUR"), order(email="n@example.com")]
    request = pb.RecordOrdersRequest(records=[pb.OrderRecord(order=each) for each in said])
    token = tenant.token("service", businesses=[shop.id])
    for wanted in (CREATED, pb.RECORD_OUTCOME_UNCHANGED):
        answer = await _ask(stack, tenant, token, request)
        assert (answer.headers or {})["grpc-status"] == "0"
        results = pb.RecordOrdersResponse.FromString(answer.data).results
        assert [each.outcome for each in results] == [wanted, REFUSED, wanted]
        assert (await get(shop, results[0].order_id)).external_id == said[0].external_id
    assert not await differences(shop)


async def test_nats_is_no_way_round_the_checks(shop: Shop, stack: Stack, other_tenant: TenantOfTest) -> None:
    tenant = shop.tenant
    request = pb.RecordOrdersRequest(records=[pb.OrderRecord(order=order())])
    assert _refusal(await _ask(stack, tenant, "", request)) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert _refusal(await _ask(stack, tenant, "x.y.z", request))[0] == "UNAUTHENTICATED"
    stranger = other_tenant.token("service")
    assert _refusal(await _ask(stack, tenant, stranger, request))[0] == "PERMISSION_DENIED"
    analyst = tenant.token("analyst", businesses=[shop.id])
    assert _refusal(await _ask(stack, tenant, analyst, request))[0] == "PERMISSION_DENIED"
    admin = tenant.token(businesses=[shop.id])
    empty = await _ask(stack, tenant, admin, pb.RecordOrdersRequest())
    assert _refusal(empty)[0] == "INVALID_ARGUMENT"
    foreign = pb.RecordOrdersRequest(business_id=str(tenant.id), records=request.records)
    assert _refusal(await _ask(stack, tenant, admin, foreign)) == ("NOT_FOUND", "BUSINESS_NOT_FOUND")
    assert not (await calls(shop).ListOrders(pb.ListOrdersRequest())).orders


async def _events(stack: Stack, tenant: TenantOfTest, last: str) -> list[tuple[dict[str, str], bytes]]:
    """Headers and bodies of the order events of a tenant until one is about the order `last`."""
    js = stack.runtimes["customers"].js
    heard = []
    sub = await js.subscribe(f"{stack.settings.prefix}customers.order.*.{tenant.id}", ordered_consumer=True)
    while True:
        msg = await sub.next_msg(timeout=20)
        if msg.headers["ce-subject"] == last:
            break
        heard.append((dict(msg.headers), msg.data))
    await sub.unsubscribe()
    return heard


async def test_each_event_goes_out_once_with_the_whole_state_and_nothing_personal(
    shop: Shop, stack: Stack
) -> None:
    person: dict[str, Any] = {"email": "secret@example.com"}
    lines = [item(500, 2, sku="S", name="Secret name", category="C", brand="B")]
    steps: list[pb.Order | pb.OrderRecord] = [
        order(pb.ORDER_STATUS_PENDING, external_id="1", revision=1, items=lines, **person),
        order(pb.ORDER_STATUS_PAID, external_id="1", revision=2, items=lines, **person),
        order(pb.ORDER_STATUS_PAID, external_id="1", revision=2, items=lines, **person),
        order(pb.ORDER_STATUS_FULFILLED, external_id="1", revision=3, items=lines, **person),
        order(pb.ORDER_STATUS_DELIVERED, external_id="1", revision=5, items=lines, tags=["x y"], **person),
        order(pb.ORDER_STATUS_FULFILLED, external_id="1", revision=4, items=lines, **person),
        refund("1", 300),
        refund("1", 300),
        order(
            pb.ORDER_STATUS_CANCELLED,
            external_id="1",
            revision=6,
            items=lines,
            refunded=money(1000),
            **person,
        ),
    ]
    for each in steps:
        (result,) = await record(shop, each)
    (end,) = await record(shop, order(email="end@example.com"))
    heard = await _events(stack, shop.tenant, end.order_id)
    kinds = Counter(headers["ce-type"].rpartition(".Order")[2] for headers, _ in heard)
    assert kinds == {
        "Recorded": 6,
        "Completed": 1,
        "Fulfilled": 1,
        "Delivered": 1,
        "Refunded": 2,
        "Cancelled": 1,
    }
    assert len({headers["ce-id"] for headers, _ in heard}) == len(heard)
    versions = [int(headers["aggregateversion"]) for headers, _ in heard]
    assert versions == sorted(versions)
    (body,) = (body for headers, body in heard if headers["ce-type"].endswith("Cancelled"))
    state = events.OrderCancelled.FromString(body).order
    assert (state.order_id, state.business_id, state.customer_id) == (
        result.order_id,
        shop.id,
        result.customer_id,
    )
    assert (state.status, state.revision, state.total_minor, state.refunded_total_minor) == (
        pb.ORDER_STATUS_CANCELLED,
        6,
        1000,
        1000,
    )
    assert state.HasField("completed_at")
    assert [(i.sku, i.category, i.brand, i.quantity, i.amount_minor) for i in state.items] == [
        ("S", "C", "B", 2, 1000)
    ]
    told = b"".join(body + str(headers).encode() for headers, body in heard)
    for secret in (b"secret@example.com", b"Secret name", b"x y"):
        assert secret not in told
