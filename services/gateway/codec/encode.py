"""Messages to JSON values: one function per descriptor, compiled at its first use.

Lists, maps, numbers and booleans are always there, so that a client need not ask; empty text, unset messages,
unset `optional` fields and the UNSPECIFIED value of an enum are left out. A sparse function (the client chose
its fields by a read mask) leaves out all that is empty. A field that `masked_fields` names is never there.
"""

import base64
import math
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.internal.type_checkers import ToShortestFloat

from services.gateway.codec import wellknown
from services.gateway.codec.names import (
    enum_names,
    fields_by_any_name,
    is_list,
    is_map,
    json_path,
    message_of,
    type_name,
)
from services.gateway.codec.scalars import SIGNED_64, UNSIGNED_64

Encoder = Callable[[Any], Any]
_Writer = Callable[[Any, dict[str, Any]], None]
_F = FieldDescriptor
_MASKED = "masked_fields"
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def to_bytes(value: Any) -> bytes:
    """The JSON text of what an encoder gave."""
    return orjson.dumps(value, option=_OPTIONS)


@cache
def encoder_of(message: Descriptor, *, sparse: bool = False) -> Encoder:
    """The function that gives a message's JSON value."""
    special = _special(message)
    if special is not None:
        return special
    writers: list[_Writer] = []

    def encode(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for write in writers:
            write(value, out)
        return out

    pending = _pending.setdefault((message, sparse), encode)
    try:
        writers.extend(_writer(field, sparse) for field in message.fields if field.name != _MASKED)
    finally:
        _pending.pop((message, sparse))
    masked = message.fields_by_name.get(_MASKED)
    return pending if masked is None else _masking(message, pending)


# Messages whose function is being made: a message may contain itself.
_pending: dict[tuple[Descriptor, bool], Encoder] = {}


def page_encoder(message: Descriptor, resource: Descriptor) -> Encoder:
    """As `encoder_of`, sparse in what the page holds and not in the page itself."""
    writers = [
        _writer(field, False, sparse_inside=field.message_type == resource) for field in message.fields
    ]

    def encode(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for write in writers:
            write(value, out)
        return out

    return encode


def _nested(message: Descriptor, sparse: bool) -> Encoder:
    return _pending.get((message, sparse)) or encoder_of(message, sparse=sparse)


def _special(message: Descriptor) -> Encoder | None:
    name = message.full_name
    if name == wellknown.TIMESTAMP:
        return wellknown.write_timestamp
    if name == wellknown.DURATION:
        return wellknown.write_duration
    if name == wellknown.VALUE:
        return wellknown.write_value
    if name == wellknown.PACKAGE + "Struct":
        return wellknown.write_struct
    if name == wellknown.LIST_VALUE:
        return wellknown.write_list
    if name == wellknown.FIELD_MASK:
        return _write_mask
    if name in wellknown.WRAPPERS:
        return wellknown.write_wrapped(_converter(message.fields_by_name["value"], False))
    if name == "google.protobuf.Any":
        raise TypeError("google.protobuf.Any has no JSON form here")
    return None


def _write_mask(message: Any) -> str:
    return ",".join(_camel(path) for path in message.paths)


def _camel(path: str) -> str:
    head, *rest = path.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def _writer(field: FieldDescriptor, sparse: bool, *, sparse_inside: bool | None = None) -> _Writer:
    if is_map(field):
        return _map_writer(field, sparse)
    convert = _converter(field, sparse if sparse_inside is None else sparse_inside)
    if is_list(field):
        return _list_writer(field, convert, sparse)
    if field.has_presence:
        return _optional_writer(field, convert)
    return _plain_writer(field, convert, sparse)


def _plain_writer(field: FieldDescriptor, convert: Encoder | None, sparse: bool) -> _Writer:
    """A scalar that is either its value or its type's empty one."""
    key, get = field.json_name, attrgetter(field.name)
    textual = field.type in {_F.TYPE_STRING, _F.TYPE_BYTES}
    if textual or sparse or (field.type == _F.TYPE_ENUM and enum_names(field.enum_type).absent):

        def write(message: Any, out: dict[str, Any]) -> None:
            value = get(message)
            if value:
                out[key] = value if convert is None else convert(value)

        return write
    if convert is None:

        def write_as_is(message: Any, out: dict[str, Any]) -> None:
            out[key] = get(message)

        return write_as_is

    def write_converted(message: Any, out: dict[str, Any]) -> None:
        out[key] = convert(get(message))

    return write_converted


def _optional_writer(field: FieldDescriptor, convert: Encoder | None) -> _Writer:
    name, key, get = field.name, field.json_name, attrgetter(field.name)
    skip_zero = field.type == _F.TYPE_ENUM and enum_names(field.enum_type).absent

    def write(message: Any, out: dict[str, Any]) -> None:
        if message.HasField(name):
            value = get(message)
            if skip_zero and not value:
                return
            out[key] = value if convert is None else convert(value)

    return write


def _list_writer(field: FieldDescriptor, convert: Encoder | None, sparse: bool) -> _Writer:
    key, get = field.json_name, attrgetter(field.name)

    def write(message: Any, out: dict[str, Any]) -> None:
        values = get(message)
        if values:
            out[key] = list(values) if convert is None else [convert(value) for value in values]
        elif not sparse:
            out[key] = []

    return write


def _map_writer(field: FieldDescriptor, sparse: bool) -> _Writer:
    key, get = field.json_name, attrgetter(field.name)
    entry = message_of(field).fields_by_name
    convert = _converter(entry["value"], sparse)
    of_bool = entry["key"].type == _F.TYPE_BOOL

    def write(message: Any, out: dict[str, Any]) -> None:
        values = get(message)
        if values or not sparse:
            out[key] = {
                str(name).lower() if of_bool else str(name): values[name]
                if convert is None
                else convert(values[name])
                for name in sorted(values)
            }

    return write


def _converter(field: FieldDescriptor, sparse: bool) -> Encoder | None:
    """From a field's value to JSON's; None where they are the same."""
    kind = field.type
    if kind in SIGNED_64 or kind in UNSIGNED_64:
        return str
    if kind == _F.TYPE_ENUM:
        if type_name(field) == wellknown.PACKAGE + "NullValue":
            return _null
        names = enum_names(field.enum_type).out
        return lambda number: names.get(number, number)
    if kind == _F.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    if kind == _F.TYPE_DOUBLE:
        return _double
    if kind == _F.TYPE_FLOAT:
        return lambda value: ToShortestFloat(value) if math.isfinite(value) else _double(value)
    return None if field.message_type is None else _nested(field.message_type, sparse)


def _null(_: int) -> None:
    return None


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _masking(message: Descriptor, encode: Encoder) -> Encoder:
    """Leaves out what the service says it has masked, which an empty list or a zero would belie."""

    def encode_masked(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = encode(value)
        masked = value.masked_fields
        if masked:
            paths = [json_path(message, path) for path in masked]
            for path in paths:
                _remove(out, path.split("."))
            out[fields_by_any_name(message)[_MASKED].json_name] = paths
        return out

    return encode_masked


def _remove(value: Any, steps: list[str]) -> None:
    if isinstance(value, list):
        for element in value:
            _remove(element, steps)
    elif isinstance(value, dict):
        if len(steps) == 1:
            value.pop(steps[0], None)
        elif steps[0] in value:
            _remove(value[steps[0]], steps[1:])


def value_encoder(field: FieldDescriptor) -> Encoder:
    """From a message to the JSON value of one of its fields (`response_body`)."""
    write, key = _writer(field, False), field.json_name

    def encode(message: Any) -> Any:
        out: dict[str, Any] = {}
        write(message, out)
        return out.get(key)

    return encode
