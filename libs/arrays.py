"""Whole columns as one parameter: arrays in PostgreSQL's binary form, put together without a step for each value."""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEAD = Struct(">iiIii")  # dimensions, has nulls, type of the elements, their number, the first index
_INT2, _INT4, _INT8 = Struct(">ih"), Struct(">ii"), Struct(">iq")
_UUID_SIZE = (16).to_bytes(4)
_NULL = (-1).to_bytes(4, signed=True)


class Packed:
    """An array, packed. A subclass for each type of elements."""

    __slots__ = ("content",)
    element = 0

    def __init__(self, count: int, elements: bytes, *, nulls: bool = False) -> None:
        self.content = _HEAD.pack(1 if count else 0, nulls, self.element, count, 1)[: 20 if count else 12]
        self.content += elements


class Uuids(Packed):
    """A uuid[]."""

    element = 2950


class Texts(Packed):
    """A text[]."""

    element = 25


class Bytes(Packed):
    """A bytea[]."""

    element = 17


class Shorts(Packed):
    """A smallint[]."""

    element = 21


class Ints(Packed):
    """An integer[]."""

    element = 23


class Longs(Packed):
    """A bigint[]."""

    element = 20


class Bools(Packed):
    """A boolean[]."""

    element = 16


def uuids(values: Sequence[UUID]) -> Uuids:
    """A uuid[] of these."""
    return Uuids(len(values), b"".join([_UUID_SIZE + value.bytes for value in values]))


def texts(values: Sequence[str]) -> Texts:
    """A text[] of these."""
    return Texts(len(values), _sized([value.encode() for value in values]))


def octets(values: Sequence[bytes]) -> Bytes:
    """A bytea[] of these."""
    return Bytes(len(values), _sized(values))


def maybe_octets(values: Sequence[bytes | None]) -> Bytes:
    """A bytea[] of these, where None is null."""
    found = [_NULL if value is None else len(value).to_bytes(4) + value for value in values]
    return Bytes(len(values), b"".join(found), nulls=True)


def maybe_uuids(values: Sequence[UUID | None]) -> Uuids:
    """A uuid[] of these, where None is null."""
    found = [_NULL if value is None else _UUID_SIZE + value.bytes for value in values]
    return Uuids(len(values), b"".join(found), nulls=True)


def shorts(values: Sequence[int]) -> Shorts:
    """A smallint[] of these."""
    return Shorts(len(values), b"".join([_INT2.pack(2, value) for value in values]))


def ints(values: Sequence[int]) -> Ints:
    """An integer[] of these."""
    return Ints(len(values), b"".join([_INT4.pack(4, value) for value in values]))


def longs(values: Sequence[int]) -> Longs:
    """A bigint[] of these."""
    return Longs(len(values), b"".join([_INT8.pack(8, value) for value in values]))


def bools(values: Sequence[bool]) -> Bools:
    """A boolean[] of these."""
    return Bools(len(values), b"".join([b"\0\0\0\x01\x01" if value else b"\0\0\0\x01\0" for value in values]))


def _sized(values: Iterable[bytes]) -> bytes:
    return b"".join([len(value).to_bytes(4) + value for value in values])


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        content: bytes = obj.content
        return content


def _register(kind: type[Packed], oid: int) -> None:
    dumper = type(f"_{kind.__name__}Dumper", (_PackedDumper,), {})
    psycopg.adapters.register_dumper(kind, dumper)
    # Only now: it is no dumper of lists of that type, as COPY asks for one.
    dumper.oid = oid  # type: ignore[attr-defined]


# The types of arrays by that of their elements (pg_type.dat); they are the same in every database.
for _kind, _oid in (
    *((Uuids, 2951), (Texts, 1009), (Bytes, 1001), (Shorts, 1005), (Ints, 1007), (Longs, 1016)),
    (Bools, 1000),
):
    _register(_kind, _oid)
