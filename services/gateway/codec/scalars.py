"""Readers of single values: each takes what JSON gave and gives what a field holds, or raises Wrong."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from services.gateway.codec.faults import Wrong
from services.gateway.codec.names import enum_names, hint, shown, type_name

Reader = Callable[[Any], Any]

_F = FieldDescriptor
SIGNED_32 = frozenset({_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32})
SIGNED_64 = frozenset({_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64})
UNSIGNED_32 = frozenset({_F.TYPE_UINT32, _F.TYPE_FIXED32})
UNSIGNED_64 = frozenset({_F.TYPE_UINT64, _F.TYPE_FIXED64})
_DIGITS = re.compile(r"-?(?:0|[1-9][0-9]{0,19})", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


def range_of(field: FieldDescriptor) -> tuple[int, int] | None:
    """Lowest and highest value of a whole-number field, None for others."""
    kind = field.type
    if kind in SIGNED_32:
        return -(1 << 31), (1 << 31) - 1
    if kind in SIGNED_64:
        return -(1 << 63), (1 << 63) - 1
    if kind in UNSIGNED_32:
        return 0, (1 << 32) - 1
    if kind in UNSIGNED_64:
        return 0, (1 << 64) - 1
    return None


def reader_of(field: FieldDescriptor) -> Reader:
    """The reader of a scalar or enum field's value, or of one element if it is repeated."""
    bounds = range_of(field)
    if bounds is not None:
        return _whole(*bounds)
    kind = field.type
    if kind == _F.TYPE_STRING:
        return read_text
    if kind == _F.TYPE_BOOL:
        return read_bool
    if kind == _F.TYPE_BYTES:
        return read_bytes
    if kind == _F.TYPE_ENUM:
        return _enum(field)
    return _read_float if kind == _F.TYPE_FLOAT else read_double


def read_text(value: Any) -> str:
    """Unicode text without lone surrogates."""
    if type(value) is not str:
        raise Wrong("A string is expected.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Wrong("The text has a lone surrogate.", "MALFORMED_TEXT") from None
    return value


def read_bool(value: Any) -> bool:
    """True or false, not as text."""
    if value is True or value is False:
        return bool(value)
    raise Wrong("true or false is expected.")


def read_bytes(value: Any) -> bytes:
    """Base64, of the standard or the URL alphabet, with or without padding."""
    if type(value) is not str:
        raise Wrong("A string of base64 is expected.")
    text = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("Base64 is expected.", "MALFORMED_BASE64") from None


def _whole(low: int, high: int) -> Reader:
    expected = "A whole number is expected."

    def read(value: Any) -> int:
        kind = type(value)
        if kind is str:
            if _DIGITS.fullmatch(value) is None:
                raise Wrong(expected)
            number = int(value)
        elif kind is int:
            number = value
        elif kind is float and value.is_integer():
            number = int(value)
        else:
            raise Wrong(expected)
        if not low <= number <= high:
            raise Wrong(f"Must be from {low} to {high}.", "OUT_OF_RANGE")
        return number

    return read


def read_double(value: Any) -> float:
    """A finite number; as text too, as proto3 JSON allows."""
    kind = type(value)
    if kind is float:
        number = value
    elif kind is int or (kind is str and _NUMBER.fullmatch(value)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        raise Wrong("A number is expected.")
    if not math.isfinite(number):
        raise Wrong("The number is too large.", "OUT_OF_RANGE")
    return float(number)


def _read_float(value: Any) -> float:
    number = read_double(value)
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise Wrong("The number is too large.", "OUT_OF_RANGE") from None
    return number


def _enum(field: FieldDescriptor) -> Reader:
    if type_name(field) == "google.protobuf.NullValue":
        return _read_null
    assert field.enum_type is not None
    names = enum_names(field.enum_type)
    into = names.into
    listed = ", ".join(names.shown[:20])

    def read(value: Any) -> int:
        number = into.get(value) if type(value) is str else None
        if number is not None:
            return number
        if type(value) is not str:
            raise Wrong(f"One of {listed} is expected.")
        near = hint(value.upper(), names.shown) or f" One of {listed} is expected."
        raise Wrong(f'There is no value "{shown(value)}".{near}', "UNKNOWN_VALUE")

    return read


def _read_null(value: Any) -> int:
    if value is not None:
        raise Wrong("null is expected.")
    return 0
