"""The well-known types that have a JSON form of their own, both ways."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.gateway.codec.faults import Wrong
from services.gateway.codec.scalars import Reader

PACKAGE = "google.protobuf."
TIMESTAMP, DURATION, FIELD_MASK = PACKAGE + "Timestamp", PACKAGE + "Duration", PACKAGE + "FieldMask"
VALUE, LIST_VALUE = PACKAGE + "Value", PACKAGE + "ListValue"
WRAPPERS = frozenset(
    PACKAGE + kind + "Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_EPOCH = datetime(1970, 1, 1)  # without time zone: orjson writes it as UTC, and it is cheaper
_AWARE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_SPAN = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s", re.ASCII)
_LONGEST_SPAN = 315_576_000_000  # seconds, by duration.proto


def write_timestamp(message: Any) -> datetime:
    """The instant in UTC, cut to microseconds."""
    return _EPOCH + timedelta(0, message.seconds, message.nanos // 1000)


def read_timestamp(value: Any) -> Timestamp:
    """An RFC 3339 instant, cut to microseconds."""
    if type(value) is not str:
        raise Wrong("A string with an instant is expected.")
    wrong = Wrong("An instant like 2026-01-31T12:00:00Z is expected.", "MALFORMED_TIMESTAMP")
    if _INSTANT.fullmatch(value) is None:
        raise wrong
    zone = value[-1] if value[-1] == "Z" else value[-6:]
    head, _, fraction = value[: -len(zone)].partition(".")
    try:
        instant = datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}{zone}")
        micros = (instant - _AWARE_EPOCH) // _MICROSECOND
        _AWARE_EPOCH + timedelta(microseconds=micros)
    except (ValueError, OverflowError):
        raise wrong from None
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def write_duration(message: Any) -> str:
    """Seconds with as many decimals as needed, and "s"."""
    nanos = abs(message.seconds * 1_000_000_000 + message.nanos)
    sign = "-" if message.seconds < 0 or message.nanos < 0 else ""
    whole, rest = divmod(nanos, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{sign}{whole}{fraction}s"


def read_duration(value: Any) -> Duration:
    """Seconds with up to nine decimals and "s" ("1.5s")."""
    found = _SPAN.fullmatch(value) if type(value) is str else None
    if found is None:
        raise Wrong('A duration like "1.5s" is expected.', "MALFORMED_DURATION")
    sign = -1 if found[1] else 1
    seconds, nanos = int(found[2]), int(f"{found[3] or '':0<9}")
    if seconds > _LONGEST_SPAN or (seconds == _LONGEST_SPAN and nanos):
        raise Wrong("The duration is too long.", "OUT_OF_RANGE")
    return Duration(seconds=sign * seconds, nanos=sign * nanos)


READERS: dict[str, Reader] = {TIMESTAMP: read_timestamp, DURATION: read_duration}


def write_value(message: Any) -> Any:
    """A google.protobuf.Value as JSON."""
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return write_struct(message.struct_value)
    if kind == "list_value":
        return write_list(message.list_value)
    if kind == "number_value":
        number = message.number_value
        return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
    return None if kind is None or kind == "null_value" else getattr(message, kind)


def write_struct(message: Any) -> dict[str, Any]:
    """A google.protobuf.Struct as a JSON object, its keys sorted."""
    fields = message.fields
    return {key: write_value(fields[key]) for key in sorted(fields)}


def write_list(message: Any) -> list[Any]:
    """A google.protobuf.ListValue as a JSON array."""
    return [write_value(value) for value in message.values]


def write_wrapped(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """A wrapper's value, by the converter of its only field."""
    return lambda message: message.value if convert is None else convert(message.value)
