"""JSON arrays and JSON Lines to rows: each object is one, objects inside it are flattened once ("address.city")."""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO

from services.customers.imports.reading.layout import (
    JSONL,
    MAX_COLUMNS,
    MAX_NAME,
    BadCell,
    Layout,
    Number,
    Record,
    RecordFault,
)
from services.customers.imports.reading.text import MAX_LINE, Lines, Text, has_bad

MAX_OBJECT = 1_000_000  # characters
LOOKED_THROUGH = 100_000  # objects whose keys are gathered; a later one with another key is refused
_MOST_DIGITS = 40

_BROKEN = RecordFault("JSON_BROKEN", "must be a JSON object")
_REST_BROKEN = RecordFault("JSON_BROKEN", "must be a JSON object; from here on the file cannot be read")
_CUT_OFF = RecordFault("JSON_BROKEN", "the array must close with ]; the file was cut off")
_TOO_LONG = RecordFault("ROW_TOO_LONG", f"an object may have at most {MAX_OBJECT:,} characters")
_NO_OBJECT = RecordFault("JSON_NO_OBJECT", "must be a JSON object, not another value")
_DOUBLES = RecordFault("JSON_DUPLICATE_KEY", "an object must have each key once")
_UNKNOWN = RecordFault(
    "JSON_UNKNOWN_KEY", f"keys must be among those of the first {LOOKED_THROUGH:,} objects"
)
_NESTED = BadCell("CELL_NESTED", "must be a value, a list of values, or an object of values")
_NUMBER = BadCell("CELL_NUMBER", f"must be a number of at most {_MOST_DIGITS} digits")
_ENCODING = BadCell("CELL_ENCODING", "must be text")


class _Doubled(dict[str, Any]):
    """An object that has a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(found)


def _number(text: str) -> str:
    if len(text) > 400:
        return _NUMBER
    if "e" not in text and "E" not in text:
        return Number(text) if len(text) <= _MOST_DIGITS else _NUMBER
    try:
        number = Decimal(text)
    except InvalidOperation:
        return _NUMBER
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        return _NUMBER
    plain = f"{number:f}"
    return Number(plain) if len(plain) <= _MOST_DIGITS else _NUMBER


def _constant(_: str) -> Any:
    raise ValueError  # NaN and infinities are no JSON


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_constant
)


def _values(file: BinaryIO, layout: Layout, skip: int) -> Iterator[tuple[int, Any]]:
    """The number of each row after `skip`, and its value or what is wrong with it."""
    text = Text(file, layout.encoding)
    yield from _of_lines(Lines(text), skip) if layout.format == JSONL else _of_array(iter(text), skip)


def _of_lines(lines: Iterable[str], skip: int) -> Iterator[tuple[int, Any]]:
    for row, line in enumerate(lines, 1):
        if row <= skip or not line.strip():
            continue
        if len(line) > min(MAX_LINE, MAX_OBJECT):
            yield row, _TOO_LONG
            continue
        try:
            yield row, _DECODER.decode(line)
        except (ValueError, RecursionError):
            yield row, _BROKEN


class _Buffer:
    """Text at hand, taken in as it is needed."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.text, self.at, self.more = "", 0, True

    def grow(self) -> None:
        """Takes in the next chunk and lets go of what is behind."""
        chunk = next(self._chunks, "")
        self.more = bool(chunk)
        self.text, self.at = self.text[self.at :] + chunk, 0

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if not self.more:
                return ""
            self.grow()

    def value(self) -> Any:
        """The JSON value that begins here, or what is wrong with it."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or not self.more:  # else a number may go on
                    self.at = end
                    return value
            except RecursionError:
                return _REST_BROKEN
            except ValueError:
                if not self.more:
                    return _REST_BROKEN
            if len(self.text) - self.at > MAX_OBJECT:
                return _REST_BROKEN
            self.grow()


def _of_array(chunks: Iterator[str], skip: int) -> Iterator[tuple[int, Any]]:
    buffer, row = _Buffer(chunks), 0
    buffer.peek()
    buffer.at += 1  # the bracket
    if buffer.peek() == "]":
        return
    while True:
        row += 1
        value = buffer.value() if buffer.peek() else _CUT_OFF
        if row > skip or value is _REST_BROKEN or value is _CUT_OFF:
            yield row, value
        if value is _REST_BROKEN or value is _CUT_OFF:
            return
        after = buffer.peek()
        buffer.at += 1
        if after == "]":
            return
        if after != ",":
            yield row + 1, _REST_BROKEN if after else _CUT_OFF
            return


def _flat(value: dict[str, Any]) -> dict[str, str] | RecordFault:
    found: dict[str, str] = {}
    pairs = 0
    if isinstance(value, _Doubled):
        return _DOUBLES
    for key, inner in value.items():
        if isinstance(inner, _Doubled):
            return _DOUBLES
        if isinstance(inner, dict):
            pairs += len(inner)
            for name, each in inner.items():
                found[f"{key}.{name}"] = _cell(each)
        else:
            pairs += 1
            found[key] = _cell(inner)
    return found if len(found) == pairs else _DOUBLES


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value if not has_bad(value) else _ENCODING
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(each, str) and not has_bad(each) for each in value):
        return ", ".join(value)
    return _NESTED


def _flats(file: BinaryIO, layout: Layout, skip: int) -> Iterator[tuple[int, dict[str, str] | RecordFault]]:
    for row, value in _values(file, layout, skip):
        if isinstance(value, RecordFault):
            yield row, value
        elif not isinstance(value, dict):
            yield row, _NO_OBJECT
        else:
            yield row, _flat(value)


def keys(file: BinaryIO, layout: Layout) -> tuple[list[str], list[str], int]:
    """The keys of the objects in the order of their coming, notes on them, and how many objects were looked at."""
    found: dict[str, None] = {}
    rows = 0
    for _, flat in _flats(file, layout, 0):
        rows += 1
        if isinstance(flat, dict):
            for key in flat:
                if key not in found:
                    found[key] = None
        if rows >= LOOKED_THROUGH or len(found) > MAX_COLUMNS:
            break
    long = any(len(key) > MAX_NAME for key in found)
    return [key for key in found if not has_bad(key)], (["Long keys are shown cut."] if long else []), rows


def records(file: BinaryIO, layout: Layout, skip: int = 0) -> Iterator[Record]:
    """The records after the row `skip`: of JSON Lines a row is a line, of an array an element, from 1 on."""
    empty = [""] * len(layout.keys)
    known = set(layout.keys)
    for row, flat in _flats(file, layout, skip):
        if isinstance(flat, RecordFault):
            yield Record(row, empty, flat)
        else:
            cells = [flat.get(key, "") for key in layout.keys]
            if any(flat[key] for key in flat.keys() - known):
                yield Record(row, cells, _UNKNOWN)
            elif any(cells) or BadCell in map(type, cells):
                yield Record(row, cells)
