"""Business and attribute messages to values and back."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import Row

from libs import formats
from libs.formats import Wrong
from libs.instants import stamp
from libs.problems import Faults
from regulars.customers.v1 import businesses_pb2 as pb

_RULES = {
    "name": formats.line,
    "currency": formats.currency,
    "time_zone": formats.time_zone,
    "language": formats.language,
    "country": formats.country,
}
_PLAIN = ("order_completion", "erasure_cool_off_days", "keep_visitor_details")
WRITABLE = (*_RULES, *_PLAIN)
DEFAULTS: dict[str, Any] = {
    "time_zone": "UTC",
    "language": "en",
    "country": "",
    "order_completion": int(pb.ORDER_COMPLETION_PAID),
    "erasure_cool_off_days": 14,
    "keep_visitor_details": False,
}
_REQUIRED = ("name", "currency")


def new_business(message: pb.Business) -> dict[str, Any]:
    """The values of a new business. Raises InvalidArgument with everything that is wrong."""
    faults = Faults()
    values = {**DEFAULTS, **_values(message, _present(message), faults)}
    for name in _REQUIRED:
        if not getattr(message, name):
            faults.add(f"business.{name}", "is required", "REQUIRED")
    faults.refuse()
    return values


def changes(message: pb.Business, mask: FieldMask) -> dict[str, Any]:
    """The values that an update sets; a field that the mask names and the message leaves out gets its default.

    Raises InvalidArgument with everything that is wrong.
    """
    faults = Faults()
    if list(mask.paths) == ["*"]:
        paths = list(WRITABLE)
    elif mask.paths:
        paths = [path for path in mask.paths if path in WRITABLE]
        for path in set(mask.paths) - set(paths):
            faults.add("update_mask", f"{path} is no field that can be written")
    else:
        paths = _present(message)
    for name in _REQUIRED:
        if name in paths and not getattr(message, name):
            faults.add(f"business.{name}", "is required", "REQUIRED")
    cleared = {name: DEFAULTS[name] for name in paths if name in DEFAULTS}
    values = {**cleared, **_values(message, paths, faults)}
    faults.refuse()
    return values


def _present(message: pb.Business) -> list[str]:
    return [field.name for field, _ in message.ListFields() if field.name in WRITABLE]


def _values(message: pb.Business, paths: list[str], faults: Faults) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in paths:
        given = getattr(message, name)
        if name in _RULES and given:
            try:
                values[name] = _RULES[name](given)
            except Wrong as wrong:
                faults.add(f"business.{name}", str(wrong))
        elif name == "order_completion" and given:
            values[name] = int(given)
        elif name in {"erasure_cool_off_days", "keep_visitor_details"} and message.HasField(name):  # type: ignore[arg-type]
            values[name] = given
    return values


def new_attribute(message: pb.AttributeDefinition) -> dict[str, Any]:
    """The values of a new definition. Raises InvalidArgument."""
    faults = Faults()
    if message.type == pb.ATTRIBUTE_TYPE_CHOICE and not message.choices:
        faults.add("attribute.choices", "a CHOICE needs at least one", "REQUIRED")
    if message.type != pb.ATTRIBUTE_TYPE_CHOICE and message.choices:
        faults.add("attribute.choices", "only a CHOICE has choices")
    faults.refuse()
    return {
        "name": message.name,
        "type": int(message.type),
        "label": message.label or message.name,
        "choices": list(message.choices),
        "not_personal": message.not_personal,
    }


def business(row: Row[Any]) -> pb.Business:
    """The message of a row."""
    return pb.Business(
        id=str(row.business_id),
        name=row.name,
        currency=row.currency,
        time_zone=row.time_zone,
        language=row.language,
        country=row.country or None,
        order_completion=row.order_completion,
        erasure_cool_off_days=row.erasure_cool_off_days,
        keep_visitor_details=row.keep_visitor_details,
        created_at=stamp(row.created_at),
        updated_at=stamp(row.updated_at),
        archived_at=stamp(row.archived_at),
        etag=str(row.version),
    )


def attribute(row: Row[Any]) -> pb.AttributeDefinition:
    """The message of a row."""
    return pb.AttributeDefinition(
        name=row.name,
        type=row.type,
        label=row.label,
        choices=row.choices,
        not_personal=row.not_personal,
        archived_at=stamp(row.archived_at),
    )
