"""Orders for tests, and the recount that the metrics must equal."""

import itertools
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from libs.caller import Caller, acting_as
from regulars.customers.v1 import orders_pb2 as pb
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from regulars.type.v1.money_pb2 import Money
from services.customers.orders import metrics
from tests.customers.shop import Shop

_numbers = itertools.count(1)
DAY = 86_400
NOON = 1_750_000_000 // DAY * DAY + DAY // 2


def money(minor: int) -> Money:
    """An amount in the order's currency."""
    return Money(amount_minor=minor)


def item(minor: int = 1000, quantity: int = 1, **fields: Any) -> pb.OrderItem:
    """A line of an order."""
    return pb.OrderItem(quantity=quantity, unit_price=money(minor), **fields)


def order(
    status: "pb.OrderStatus.ValueType" = pb.ORDER_STATUS_PAID, *, day: int = 0, **fields: Any
) -> pb.Order:
    """An order of one piece for 10.00, placed at noon (UTC) of a day counted from one in June 2025."""
    fields.setdefault("external_id", f"o{next(_numbers)}")
    fields.setdefault("placed_at", Timestamp(seconds=NOON + day * DAY))
    if "items" not in fields and "total" not in fields:
        fields["items"] = [item()]
    if email := fields.pop("email", None):
        fields["customer"] = pb.OrderCustomer(email=email)
    return pb.Order(status=status, **fields)


def refund(external_id: str, minor: int) -> pb.OrderRecord:
    """All that was refunded of an order so far."""
    return pb.OrderRecord(refund=pb.OrderRefund(external_id=external_id, refunded_total=money(minor)))


def calls(shop: Shop, *roles: str, **claims: Any) -> OrdersServiceStub:
    """Calls about orders."""
    found: OrdersServiceStub = shop.calls(OrdersServiceStub, *roles, **claims)
    return found


async def record(shop: Shop, *records: pb.Order | pb.OrderRecord) -> list[pb.RecordResult]:
    """What becomes of these records, sent in one batch."""
    wrapped = [each if isinstance(each, pb.OrderRecord) else pb.OrderRecord(order=each) for each in records]
    answer = await calls(shop).RecordOrders(pb.RecordOrdersRequest(records=wrapped))
    return list(answer.results)


async def get(shop: Shop, order_id: str) -> pb.Order:
    """An order."""
    return await calls(shop).GetOrder(pb.GetOrderRequest(id=order_id))


async def metrics_of(shop: Shop, customer_id: str) -> pb.CustomerMetrics:
    """What is counted of a customer."""
    return await calls(shop).GetCustomerMetrics(pb.GetCustomerMetricsRequest(customer_id=customer_id))


async def differences(shop: Shop) -> list[Any]:
    """Where the metrics of the shop differ from a recount."""
    runtime = shop.tenant.stack.runtimes["customers"]
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="checker")):
        async with runtime.db.read() as tx:
            return [tuple(row) for row in await metrics.differences(tx, UUID(shop.id))]
