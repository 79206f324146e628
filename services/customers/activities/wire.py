"""Activity messages to values and back; what is wrong with an item is its own."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict
from sqlalchemy import Row

from libs import formats
from libs.formats import Wrong
from libs.ids import new_id
from libs.instants import instant, stamp
from libs.problems import InvalidArgument
from regulars.customers.v1 import activities_pb2 as pb
from services.customers.activities import rules
from services.customers.activities.queries import ActivityView
from services.customers.activities.rules import MAX_PROPERTIES_BYTES, Written
from services.customers.profiles.rules import external_key

# Fields of the message in clear, and their columns.
_TEXTS = {"session": "session"}
_UTM = {name: f"utm_{name}" for name in ("source", "medium", "campaign", "term", "content")}
_PRODUCT = {
    "sku": "sku",
    "name": "product_name",
    "category": "product_category",
    "brand": "brand",
    "quantity": "quantity",
}


class WrongItem(Exception):
    """A field of an item is wrong; `field` is its path in the item."""

    def __init__(self, field: str, description: str) -> None:
        self.field = field
        self.description = description
        super().__init__(field)


def whom(item: pb.ActivityItem, business: Row[Any]) -> tuple[str, str]:
    """What names the customer of an item: ("customer_id", id) or an identifier to look up. Raises WrongItem."""
    kind = str(item.WhichOneof("customer"))
    try:
        if kind == "email":
            return kind, formats.email(item.email)
        if kind == "phone":
            return kind, formats.phone(item.phone, business.country)
    except Wrong as wrong:
        raise WrongItem(kind, str(wrong)) from None
    if kind == "external":
        named = item.external
        return "external_id", external_key(business.business_id, named.source, named.external_id.strip())
    return kind, item.customer_id


def written(message: pb.Activity, business: Row[Any], now: datetime) -> Written:
    """The activity that a message asks to record. Raises WrongItem."""
    field = "occurred_at"
    facts: dict[str, object] = {}
    sealed: dict[str, object] = {}
    ip = ""
    try:
        given = instant(message.occurred_at) if message.HasField("occurred_at") else None
        at = rules.occurred_at(given, now)
        field = "name"
        facts["name"] = rules.name(message.name, message.kind)
        field = "ip_address"
        if message.ip_address:
            ip = rules.ip(message.ip_address)
    except (Wrong, OverflowError) as wrong:
        raise WrongItem(f"activity.{field}", str(wrong)) from None
    for name, column in _TEXTS.items():
        facts[column] = getattr(message, name).strip()
    if message.HasField("utm"):
        facts |= {column: getattr(message.utm, name).strip() for name, column in _UTM.items()}
    if message.HasField("product"):
        facts |= {column: getattr(message.product, name) for name, column in _PRODUCT.items()}
    facts["device"] = message.device
    facts["country"] = message.country.upper()
    if message.HasField("value_minor"):
        facts["currency"] = message.currency or business.currency
    if message.referrer:
        facts["referrer"] = rules.origin(message.referrer)
        if facts["referrer"] != message.referrer:
            sealed["referrer"] = message.referrer
    if message.HasField("properties") and message.properties.fields:
        sealed["properties"] = _properties(message)
    if business.keep_visitor_details:
        if message.user_agent:
            sealed["user_agent"] = message.user_agent
    else:
        ip = ""
    facts = {column: value for column, value in facts.items() if value}
    if message.HasField("value_minor"):
        facts["value_minor"] = message.value_minor
    activity_id = UUID(message.id) if message.id else new_id()
    return Written(activity_id, message.kind, at, facts, sealed, ip)


def _properties(message: pb.Activity) -> dict[str, Any]:
    try:
        found: dict[str, Any] = MessageToDict(message.properties)
        size = len(orjson.dumps(found))
    except (ValueError, TypeError, RecursionError):  # a number that is none, a value without kind
        raise WrongItem("activity.properties", "must be JSON with finite numbers") from None
    if size > MAX_PROPERTIES_BYTES:
        raise WrongItem("activity.properties", f"must be at most {MAX_PROPERTIES_BYTES:,} bytes as JSON")
    return found


def refusal(wrong: WrongItem) -> InvalidArgument:
    """The refusal of a request that is about one activity alone."""
    return InvalidArgument.of(wrong.field, wrong.description)


def activity(view: ActivityView) -> pb.Activity:
    """The message of an activity."""
    row = view.row
    message = pb.Activity(
        id=str(row.activity_id),
        kind=row.kind,
        name=row.name or "",
        occurred_at=stamp(row.occurred_at),
        session=row.session or "",
        referrer=view.sealed.get("referrer") or row.referrer or "",
        device=row.device,
        country=row.country or "",
        value_minor=row.value_minor,
        currency=row.currency or "",
        ip_address=view.ip,
        user_agent=view.sealed.get("user_agent", ""),
        customer_id=str(row.customer_id),
        recorded_at=stamp(row.recorded_at),
    )
    utm = {name: value for name, column in _UTM.items() if (value := getattr(row, column))}
    if utm:
        message.utm.MergeFrom(pb.Utm(**utm))
    product = {name: value for name, column in _PRODUCT.items() if (value := getattr(row, column))}
    if product:
        message.product.MergeFrom(pb.ActivityProduct(**product))
    if "properties" in view.sealed:
        ParseDict(view.sealed["properties"], message.properties)
    return message
