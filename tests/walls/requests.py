"""Requests made from descriptors: every id filled in, and whatever else the rules of the fields ask for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from libs import clock, validation
from libs.contracts import Method
from libs.ids import new_id
from libs.problems import InvalidArgument
from protos.rules import inputs
from regulars.customers.v1.activities_pb2 import ACTIVITY_KIND_PAGE_VIEW, Activity
from regulars.customers.v1.addresses_pb2 import Address
from regulars.customers.v1.businesses_pb2 import ATTRIBUTE_TYPE_TEXT, AttributeDefinition, Business
from regulars.customers.v1.customers_pb2 import Customer
from regulars.customers.v1.imports_pb2 import UploadImportRequest
from regulars.customers.v1.orders_pb2 import ORDER_STATUS_PAID, Order, OrderRecord
from regulars.customers.v1.views_pb2 import SavedView
from regulars.loyalty.v1.programs_pb2 import (
    BONUS_TRIGGER_SIGN_UP,
    Bonus,
    EarningRule,
    Program,
    SimulatedOrder,
)
from regulars.loyalty.v1.rewards_pb2 import REWARD_KIND_CUSTOM, CodePool, Reward
from regulars.loyalty.v1.tiers_pb2 import Tier, TierConfiguration
from regulars.type.v1.money_pb2 import Money

Ids = Callable[[FieldDescriptor], str]


def _order() -> Order:
    placed = Timestamp()
    placed.FromDatetime(clock.now())
    return Order(
        external_id=new_id().hex,
        status=ORDER_STATUS_PAID,
        placed_at=placed,
        currency="USD",
        total=Money(amount_minor=100, currency="USD"),
    )


# What a resource needs beyond the rules of its fields. Made anew each time: nothing of it is taken.
RESOURCES: Mapping[str, Callable[[], Message]] = {
    "Activity": lambda: Activity(kind=ACTIVITY_KIND_PAGE_VIEW),
    "Address": lambda: Address(
        street_lines=["1 Wall St"], city="New York", state="NY", postal_code="10005", country="US"
    ),
    "AttributeDefinition": lambda: AttributeDefinition(name=f"a{new_id().hex}", type=ATTRIBUTE_TYPE_TEXT),
    "Business": lambda: Business(name="Next Door", currency="USD"),
    "CodePool": lambda: CodePool(name="Codes"),
    "Customer": lambda: Customer(first_name="Ann", email=f"{new_id().hex}@example.com"),
    "EarningRule": lambda: EarningRule(name="A rule", bonus=Bonus(trigger=BONUS_TRIGGER_SIGN_UP, points=5)),
    "Order": _order,
    "OrderRecord": lambda: OrderRecord(order=_order()),
    "Program": lambda: Program(name="More"),
    "Reward": lambda: Reward(name="A reward", kind=REWARD_KIND_CUSTOM, cost_points=1),
    "SavedView": lambda: SavedView(name=f"view {new_id().hex}"),
    "SimulatedOrder": lambda: SimulatedOrder(total_minor=1_000),
    "TierConfiguration": lambda: TierConfiguration(
        tiers=[Tier(name="BRONZE"), Tier(name="SILVER", visits=9)]
    ),
}


# What comes after the first message of a stream: no file is like another.
FOLLOWS: Mapping[str, Callable[[], Message]] = {
    "UploadImport": lambda: UploadImportRequest(chunk=f"Email\n{new_id().hex}@example.com\n".encode()),
}


def variants(method: Method) -> Iterator[int]:
    """The numbers of the requests that show every choice of every `oneof` once."""
    sizes = [len(choice.fields) for choice in _choices(method.input)]
    return iter(range(max(sizes, default=1)))


def build(method: Method, ids: Ids, texts: Mapping[str, str], variant: int = 0) -> Message:
    """A request that its rules accept. `texts` gives values to fields by name; `ids` to every field of ids."""
    request = GetMessageClass(method.input)()
    _fill(request, ids, texts, variant)
    try:
        validation.check(request)
    except InvalidArgument as refused:
        wrong = ", ".join(f"{v.field}: {v.description}" for v in refused.violations)
        raise AssertionError(
            f"tests/walls/requests.py cannot make a {method.input.name} ({wrong}): teach it"
        ) from None
    return request


def is_id(field: FieldDescriptor) -> bool:
    """True for a field that holds ids, or a list of them."""
    rule = _rule(field)
    return bool((rule.repeated.items if field.is_repeated else rule).string.uuid)


def is_needed(field: FieldDescriptor) -> bool:
    """True for a field of ids that may not be left empty."""
    return _rule(field).ignore == validate_pb2.IGNORE_UNSPECIFIED and not field.has_presence


def _fill(message: Message, ids: Ids, texts: Mapping[str, str], variant: int) -> None:
    skipped = {
        field.name
        for choice in _choices(message.DESCRIPTOR)
        for place, field in enumerate(choice.fields)
        if place != variant % len(choice.fields)
    }
    for field in message.DESCRIPTOR.fields:
        if field.name in skipped or field not in set(inputs()):
            continue
        value = _value(field, ids, texts, chosen=field.containing_oneof in _choices(message.DESCRIPTOR))
        if value is None:
            continue
        if field.is_repeated:
            getattr(message, field.name).append(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)


def _value(field: FieldDescriptor, ids: Ids, texts: Mapping[str, str], *, chosen: bool) -> Any:
    """What to write into a field; None to leave it alone."""
    rule = _rule(field)
    each = rule.repeated.items if field.is_repeated else rule
    if is_id(field):
        return ids(field) or None
    if field.message_type is not None:
        if not (rule.repeated.min_items if field.is_repeated else rule.required or chosen):
            return None
        made = RESOURCES.get(field.message_type.name, GetMessageClass(field.message_type))()
        if field.message_type.name not in RESOURCES:
            _fill(made, ids, texts, 0)
        return made
    needed = chosen or rule.required or (field.is_repeated and rule.repeated.min_items)
    if field.type == FieldDescriptor.TYPE_STRING:
        if field.name in texts:
            return texts[field.name]
        return "x" * max(1, each.string.min_len) if needed or each.string.min_len else None
    if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64):
        number = each.int32 if field.type == FieldDescriptor.TYPE_INT32 else each.int64
        return number.gte if number.gte > 0 else 1 if 0 in number.not_in else None
    if field.enum_type is not None and (needed or 0 in each.enum.not_in or getattr(each.enum, "in")):
        allowed = getattr(each.enum, "in")
        return next(
            value.number
            for value in field.enum_type.values
            if value.number and (not allowed or value.number in allowed)
        )
    return None


def _choices(descriptor: Any) -> list[OneofDescriptor]:
    """The real oneofs: an `optional` field is one of a single member by itself."""
    return [choice for choice in descriptor.oneofs if len(choice.fields) > 1]


def _rule(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[validate_pb2.field]
