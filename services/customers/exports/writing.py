"""Customers as CSV and JSON Lines, and the one choice of a writer."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from libs.formats import written
from regulars.customers.v1 import exports_pb2 as pb
from services.customers.exports.columns import Column, Kind, Person
from services.customers.exports.rules import guarded
from services.customers.exports.sheets import Workbook, decimal


class Writer(Protocol):
    """A file on its way: `begin`, `rows` any number of times, `end`; each gives the bytes that come next.

    `state` after `pause` is JSON, and a writer made with it goes on there.
    """

    @property
    def content_type(self) -> str:
        """Its media type."""

    @property
    def extension(self) -> str:
        """What its name ends with."""

    @property
    def state(self) -> dict[str, Any]:
        """Where it is, after `pause`."""

    def begin(self) -> bytes:
        """What comes before the first customer."""

    def rows(self, people: Iterable[Person]) -> bytes:
        """The customers."""

    def pause(self) -> bytes:
        """Makes `state` a place to go on from."""

    def end(self) -> bytes:
        """What comes after the last customer."""


class Lines:
    """What both formats of lines have in common: nothing is carried from one line to the next."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    @property
    def state(self) -> dict[str, Any]:
        """Where it is: nowhere in particular."""
        return {}

    def pause(self) -> bytes:
        """Nothing."""
        return b""

    def end(self) -> bytes:
        """Nothing."""
        return b""


class Csv(Lines):
    """Comma-separated values: RFC 4180, with the mark that tells a spreadsheet that it is UTF-8."""

    content_type = "text/csv; charset=utf-8"
    extension = "csv"

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__(columns)
        self._cells = [(column.of, _cell_of(column)) for column in columns]
        self._out = io.StringIO()
        self._csv = csv.writer(self._out)

    def begin(self) -> bytes:
        """The mark and the header."""
        self._csv.writerow([guarded(column.label) for column in self._columns])
        return b"\xef\xbb\xbf" + self._taken()

    def rows(self, people: Iterable[Person]) -> bytes:
        """A line for each."""
        cells = self._cells
        self._csv.writerows(
            ["" if (value := of(person)) is None else cell(value) for of, cell in cells] for person in people
        )
        return self._taken()

    def _taken(self) -> bytes:
        found = self._out.getvalue().encode()
        self._out.seek(0)
        self._out.truncate()
        return found


class JsonLines(Lines):
    """A JSON object in each line, ended by a line feed. Unknown values are left out; nothing is changed for sheets."""

    content_type = "application/x-ndjson"
    extension = "jsonl"

    def __init__(self, columns: Sequence[Column], masked: Sequence[str]) -> None:
        super().__init__(columns)
        self._values = [(column.name, column.of, _value_of(column)) for column in columns]
        self._masked = list(masked)

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def rows(self, people: Iterable[Person]) -> bytes:
        """A line for each."""
        return b"".join(
            orjson.dumps(self._object(person), option=orjson.OPT_APPEND_NEWLINE) for person in people
        )

    def _object(self, person: Person) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, of, plain in self._values:
            value = of(person)
            if value is not None and value != "":
                found[name] = plain(value)
        if self._masked:
            found["masked_fields"] = self._masked
        return found


def writer_of(
    form: int, columns: Sequence[Column], masked: Sequence[str], state: Mapping[str, Any] | None = None
) -> Writer:
    """The writer of an ExportFormat. Columns that are `masked` have no values; JSON Lines name them."""
    if form == pb.EXPORT_FORMAT_XLSX:
        return Workbook(columns, state)
    return JsonLines(columns, masked) if form == pb.EXPORT_FORMAT_JSONL else Csv(columns)


def _cell_of(column: Column) -> Callable[[Any], str]:
    if column.kind is Kind.MONEY:
        return lambda value: decimal(value, column.digits)
    return _CELLS[column.kind]


def _value_of(column: Column) -> Callable[[Any], Any]:
    if column.kind is Kind.MONEY:
        return lambda value: orjson.Fragment(decimal(value, column.digits))
    if column.kind is Kind.INSTANT:
        return written
    return lambda value: value


_CELLS: Mapping[Kind, Callable[[Any], str]] = {
    Kind.TEXT: lambda value: guarded(str(value)),
    Kind.LIST: lambda value: guarded(", ".join(value)),
    Kind.NUMBER: repr,
    Kind.BOOLEAN: lambda value: "true" if value else "false",
    Kind.DATE: str,
    Kind.INSTANT: written,
}
