"""What a refusal says was expected."""

import pytest

from libs import validation
from libs.problems import InvalidArgument
from regulars.customers.v1 import addresses_pb2, orders_pb2


def test_values_of_enums_are_told_by_name() -> None:
    payment = orders_pb2.OrderPayment(status=orders_pb2.PAYMENT_STATUS_UNSPECIFIED)
    order = orders_pb2.Order(status=orders_pb2.ORDER_STATUS_PAID, payments=[payment])
    with pytest.raises(InvalidArgument) as caught:
        validation.check(orders_pb2.RecordOrderRequest(order=order))
    told = {each.field: each.description for each in caught.value.violations}
    assert (
        told["order.payments[0].status"]
        == "must be one of PENDING, AUTHORIZED, PAID, FAILED, REFUNDED, VOIDED"
    )
    with pytest.raises(InvalidArgument) as caught:
        validation.check(addresses_pb2.VerifyAddressRequest())
    told = {each.field: each.description for each in caught.value.violations}
    assert told["decision"] == "must be one of VERIFIED, REJECTED"
