"""Requests are checked by the rules in their protos, all fields at once, before a handler sees them."""

from collections.abc import Callable, Container, Iterator, Mapping
from functools import cache
from typing import Any

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from libs import clock, formats
from libs.problems import InvalidArgument, Violation
from regulars.options.v1 import options_pb2

_MIN_SECONDS, _MAX_SECONDS = -62135596800, 253402300799  # 0001-01-01 and 9999-12-31 in UTC
_MAX_DURATION = 315576000000


def parse(kind: type[Message], raw: bytes) -> Message:
    """The request in `raw`, checked. Raises InvalidArgument with every violation."""
    try:
        request = kind.FromString(raw)
    except (DecodeError, UnicodeDecodeError):
        raise InvalidArgument(
            "The request cannot be decoded: it is damaged or holds text that is not UTF-8."
        ) from None
    check(request, zeros=b"\x00" in raw)
    return request


def check(request: Message, *, zeros: bool = True) -> None:
    """Raises InvalidArgument with every violation. `zeros` False: the caller knows that no text holds NUL."""
    found = [
        Violation(
            _path(violation.proto.field),
            _message(request.DESCRIPTOR, violation),
            _reason(violation.proto.rule_id),
        )
        for violation in protovalidate.collect_violations(request)
    ]
    found.extend(_misformed(request, ""))
    if _timed(request.DESCRIPTOR):
        found.extend(_out_of_range(request, ""))
    if zeros:
        found.extend(_zeros(request, ""))
    if found:
        raise InvalidArgument(violations=found)


def warm_up(descriptor: Descriptor, kind: type[Message]) -> None:
    """Compiles the rules of a message, which takes milliseconds, before the first call needs them."""
    protovalidate.collect_violations(kind())
    _timed(descriptor)
    _formed(descriptor)


def _message(descriptor: Any, violation: Any) -> str:
    """What was expected; of an enum by the names of its values."""
    told: str = violation.proto.message
    if violation.proto.rule_id not in {"enum.in", "enum.not_in"}:
        return told
    within = descriptor
    found: FieldDescriptor | None = None
    for element in violation.proto.field.elements:
        found = within.fields_by_number[element.field_number] if within else None
        within = found.message_type if found else None
    if found is None or found.enum_type is None:  # the value of a map
        return told
    values = found.enum_type.values_by_number
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    among = violation.proto.rule_id == "enum.in"
    names = [
        each.name.removeprefix(prefix)
        for each in values.values()
        if (each.number in violation.rule_value) == among
    ]
    return f"must be one of {', '.join(names)}"


def _reason(rule: str) -> str:
    """`string.min_len` as STRING_MIN_LEN."""
    return rule.upper().replace(".", "_")[:63] or "INVALID"


def _path(field: Any) -> str:
    """The proto path of a violation: `address.street_lines[0]`, `attributes["size"]`."""
    if field is None:
        return ""
    path = ""
    for element in field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            value = element.subscript.value
            path += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
    return path


def _members(
    request: Message, path: str, only: Container[str] | None = None
) -> Iterator[tuple[FieldDescriptor, Any, str]]:
    """Every set value of the request's fields (or of some), with its path; of maps the keys too."""
    apart = _judged_apart(request.DESCRIPTOR)
    for field, value in request.ListFields():
        if field.name in apart or (only is not None and field.name not in only):
            continue
        place = f"{path}.{field.name}" if path else field.name
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            for key, item in value.items():
                yield entry.fields_by_name["key"], key, place
                yield entry.fields_by_name["value"], item, f'{place}["{key}"]'
        elif field.is_repeated:
            for index, item in enumerate(value):
                yield field, item, f"{place}[{index}]"
        else:
            yield field, value, place


@cache
def _judged_apart(descriptor: Descriptor) -> frozenset[str]:
    """The fields that say IGNORE_ALWAYS: the handler checks each of their messages by itself."""
    return frozenset(field.name for field in descriptor.fields if _is_apart(field))


def _is_apart(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return validate_pb2.IGNORE_ALWAYS in {rules.ignore, rules.repeated.items.ignore}


def _zeros(request: Message, path: str) -> Iterator[Violation]:
    """Texts with NUL, which PostgreSQL cannot hold."""
    for field, value, place in _members(request, path):
        if isinstance(value, str) and "\x00" in value:
            yield Violation(place.replace("\x00", ""), "must not hold the character NUL", "STRING_NUL")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _zeros(value, place)


_CHECKS: Mapping[int, Callable[[str], object]] = {
    options_pb2.FORMAT_LINE: formats.line,
    options_pb2.FORMAT_EMAIL: formats.email,
    options_pb2.FORMAT_PHONE: formats.phone_anywhere,
    options_pb2.FORMAT_DATE: formats.iso_date,
    options_pb2.FORMAT_BIRTH_DATE: lambda text: formats.birth_date(text, clock.now().date()),
    options_pb2.FORMAT_LANGUAGE: formats.language,
    options_pb2.FORMAT_TIME_ZONE: formats.time_zone,
    options_pb2.FORMAT_COUNTRY: formats.country,
    options_pb2.FORMAT_CURRENCY: formats.currency,
}


def _misformed(request: Message, path: str) -> Iterator[Violation]:
    """Texts that have not the form that their fields ask for (`regulars.options.v1.format`)."""
    only = _formed(request.DESCRIPTOR)
    if not only:
        return
    for field, value, place in _members(request, path, only):
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _misformed(value, place)
            continue
        if not value or (check := _CHECKS.get(_format(field))) is None:
            continue
        try:
            check(value)
        except formats.Wrong as wrong:
            yield Violation(place, str(wrong), options_pb2.Format.Name(_format(field)))


def _format(field: FieldDescriptor) -> "options_pb2.Format.ValueType":
    return field.GetOptions().Extensions[options_pb2.format]


@cache
def _formed(descriptor: Descriptor) -> frozenset[str]:
    """The fields of a message that have a format, or may hold messages whose fields have."""
    return frozenset(f.name for f in descriptor.fields if _leads_to_format(f, frozenset()))


def _leads_to_format(field: FieldDescriptor, seen: frozenset[str]) -> bool:
    kind = field.message_type
    if kind is None:
        return _format(field) != options_pb2.FORMAT_UNSPECIFIED
    if kind.full_name in seen or _is_apart(field):
        return False
    return any(_leads_to_format(inner, seen | {kind.full_name}) for inner in kind.fields)


@cache
def _timed(descriptor: Descriptor) -> frozenset[str]:
    """The fields of a message that are, or may hold, instants and durations: mostly none."""
    return frozenset(f.name for f in descriptor.fields if _leads_to_time(f, set()))


def _leads_to_time(field: FieldDescriptor, seen: set[str]) -> bool:
    kind = field.message_type
    if kind is None or kind.full_name in seen or _is_apart(field):
        return False
    seen.add(kind.full_name)
    return kind.full_name in _RANGES or any(_leads_to_time(inner, seen) for inner in kind.fields)


_RANGES = {
    "google.protobuf.Timestamp": (_MIN_SECONDS, _MAX_SECONDS, "must be from year 1 to year 9999"),
    "google.protobuf.Duration": (-_MAX_DURATION, _MAX_DURATION, "must be within 10,000 years"),
}


def _out_of_range(request: Message, path: str) -> Iterator[Violation]:
    """Instants and durations that no clock can show: they would fail deep inside a handler."""
    for field, value, place in _members(request, path, _timed(request.DESCRIPTOR)):
        if field.type != FieldDescriptor.TYPE_MESSAGE:  # a map's key
            continue
        limits = _RANGES.get(value.DESCRIPTOR.full_name)
        if limits is None:
            yield from _out_of_range(value, place)
            continue
        low, high, description = limits
        if not low <= value.seconds <= high or not -999_999_999 <= value.nanos <= 999_999_999:
            yield Violation(place, description, "TIME_RANGE")
        elif value.nanos < 0 and low == _MIN_SECONDS:
            yield Violation(place, "must have nanoseconds from 0 to 999,999,999", "TIME_RANGE")
