"""Search requests to what they ask for; everything that is wrong with one is found in one pass."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Value

from libs import formats, masking
from libs.caller import Caller
from libs.formats import Wrong
from libs.instants import instant
from libs.masking import FieldsMasked
from libs.problems import Faults
from regulars.customers.v1 import customers_pb2
from regulars.customers.v1 import search_pb2 as pb
from services.customers.businesses.rules import DATE, NUMBER, AttributeDefinition, attribute_value
from services.customers.search import rules
from services.customers.search.ordering import COLUMNS, NEWEST, Column

RELEVANCE = "relevance"
_LISTS = ("status", "type", "source")
_INSTANTS = ("created_after", "created_before", "last_order_after", "last_order_before")
_NUMBERS = ("total_spent_min", "total_spent_max", "order_count_min", "order_count_max")
_ORDER = re.compile(r"\s*([a-z_]+)(?:\s+(asc|desc))?\s*", re.IGNORECASE)
# What the query is compared with, and the fields of the customer that must not be masked for it.
_COMPARED = {
    rules.NAME: ("first_name", "last_name", "full_name"),
    rules.EMAIL: ("email",),
    rules.NUMBER: ("phone",),
    rules.LAST_DIGITS: ("phone_last_digits",),
}


def compared(caller: Caller) -> tuple[frozenset[str], list[str]]:
    """The kinds of data that the caller may search by, and the names of the fields that it may not."""
    fields = customers_pb2.Customer.DESCRIPTOR.fields_by_name
    kinds, hidden = set(), []
    for kind, names in _COMPARED.items():
        masked = [name for name in names if masking.is_masked(fields[name], caller.masks)]
        hidden += masked
        if not masked:
            kinds.add(kind)
    external = customers_pb2.Source.DESCRIPTOR.fields_by_name["external_id"]
    if masking.is_masked(external, caller.masks):
        hidden.append("sources.external_id")
    else:
        kinds.add(rules.EXTERNAL_ID)
    return frozenset(kinds), hidden


def refuse_masked_filters(caller: Caller, request: pb.SearchCustomersRequest) -> None:
    """Raises FieldsMasked if a filter would tell what the caller may not read.

    The query is no filter: what of it may not be compared is left out, and the answer says so.
    """
    masked = [
        descriptor.name
        for descriptor, _ in request.ListFields()
        if descriptor.name != "query" and masking.is_masked(descriptor, caller.masks)
    ]
    if masked:
        message = "The caller may not search by fields that it may not read."
        raise FieldsMasked(message, fields=",".join(sorted(masked)))


def columns(request: pb.SearchCustomersRequest, faults: Faults) -> tuple[Column, ...]:
    """The columns that the request orders by; empty for relevance."""
    text = request.order_by.strip()
    if not text:
        return () if request.query.strip() else (NEWEST,)
    if text.lower() == RELEVANCE:
        if not request.query.strip():
            faults.add("order_by", "relevance needs a query")
        return ()
    found: dict[str, Column] = {}
    for part in text.split(","):
        match = _ORDER.fullmatch(part)
        name = match[1].lower() if match else ""
        if match is None or name not in COLUMNS:
            faults.add("order_by", f"must name columns out of {', '.join(COLUMNS)}, each with asc or desc")
            return (NEWEST,)
        if name in found:
            faults.add("order_by", f"names {name} twice")
        found[name] = Column(name, (match[2] or "asc").lower() == "desc")
    return tuple(found.values())


def filters(
    request: pb.SearchCustomersRequest, definitions: Mapping[str, AttributeDefinition], faults: Faults
) -> dict[str, Any]:
    """The fields of the database's search_filter that the request gives; the city's token is the caller's to add."""
    given: dict[str, Any] = {name: list(getattr(request, name)) for name in _LISTS if getattr(request, name)}
    for name in ("tags_any", "tags_all"):
        tags = sorted({tag.strip().lower() for tag in getattr(request, name)})
        if tags:
            given[name] = tags
    if request.country:
        given["country"] = sorted({_country(code, i, faults) for i, code in enumerate(request.country)})
    set_ones = {descriptor.name for descriptor, _ in request.ListFields()}
    given |= {name: instant(getattr(request, name)) for name in _INSTANTS if name in set_ones}
    given |= {name: getattr(request, name) for name in _NUMBERS if name in set_ones}
    if request.attributes:
        given["attributes"] = [
            _condition(condition, f"attributes[{i}]", definitions, faults)
            for i, condition in enumerate(request.attributes)
        ]
    return given


def _country(code: str, i: int, faults: Faults) -> str:
    try:
        return formats.country(code)
    except Wrong as wrong:
        faults.add(f"country[{i}]", str(wrong))
        return ""


def _condition(
    condition: pb.AttributeCondition, at: str, definitions: Mapping[str, AttributeDefinition], faults: Faults
) -> dict[str, Any]:
    definition = definitions.get(condition.name)
    if definition is None:
        faults.add(f"{at}.name", "is not declared by the business", "UNKNOWN_ATTRIBUTE")
        return {}
    if not definition.not_personal:
        faults.add(f"{at}.name", "is personal, and searches know nothing of it", "PERSONAL_ATTRIBUTE")
        return {}
    asked: dict[str, Any] = {"name": condition.name}
    values: Sequence[Value] = getattr(condition, "in")
    if values:
        asked["in"] = [_value(definition, v, f"{at}.in[{i}]", faults) for i, v in enumerate(values)]
    for bound in ("min", "max"):
        if condition.HasField(bound):
            if definition.type not in {NUMBER, DATE}:
                faults.add(f"{at}.{bound}", "only numbers and dates have bounds")
            asked[bound] = _value(definition, getattr(condition, bound), f"{at}.{bound}", faults)
    if len(asked) == 1:
        faults.add(at, "needs values, or a bound", "REQUIRED")
    return asked


def _value(definition: AttributeDefinition, value: Value, at: str, faults: Faults) -> object:
    kind = value.WhichOneof("kind")
    plain = getattr(value, kind) if kind in {"number_value", "string_value", "bool_value"} else None
    try:
        return attribute_value(definition, plain)
    except Wrong as wrong:
        faults.add(at, str(wrong))
        return None
