"""CSV to rows: the csv module's reader, which goes on at the next line where a row cannot be read."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from services.customers.imports.reading.faults import FileEmpty, FileNotReadable, FileTooWide
from services.customers.imports.reading.layout import (
    MAX_COLUMNS,
    BadCell,
    Layout,
    Record,
    RecordFault,
    distinct,
)
from services.customers.imports.reading.text import MAX_LINE, Lines, Text, has_bad

MAX_ROW_LINES = 1_000  # of a row whose quoted cells hold line ends
MAX_ROW = 1_000_000  # characters
# A row that fails has its lines read again, from the second one on. All in all no more than this, and four times
# what was read, so that a file made for it cannot hold anybody up; beyond, such lines are refused unread.
REREAD = 4_000_000
SHOWN = 1_000  # characters of a line that cannot be read

_QUOTES = RecordFault("ROW_QUOTES", "every quote that opens must close before a separator or the line's end")
_TOO_LONG = RecordFault(
    "ROW_TOO_LONG", f"a row may have at most {MAX_ROW:,} characters in {MAX_ROW_LINES:,} lines"
)
_TOO_MANY = RecordFault("ROW_TOO_MANY_CELLS", "a row must have no more cells than the file has columns")


class _TooLong(Exception):
    pass


class _Feed:
    """Lines for the reader, noting those of the row that it is at."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.pending: list[str] = []
        self._size = 0
        self._allowance = REREAD

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.pending.append(line)
        if len(self.pending) > 1 or len(line) > MAX_LINE:
            self._size = sum(map(len, self.pending)) if len(self.pending) == 2 else self._size + len(line)
            if len(self.pending) > MAX_ROW_LINES or max(self._size, len(line)) > MAX_ROW:
                raise _TooLong
        return line

    def refused(self) -> list[str]:
        """The lines that are refused now that the row failed: the first, or all of them once patience ends."""
        pending = self.pending
        self.pending = []
        again = sum(map(len, pending)) - len(pending[0]) if pending else 0
        self._allowance += 4 * len(pending[0]) - again if pending else 0
        if self._allowance < 0:
            self._allowance = 0
            return pending
        self._lines.push_back(pending[1:])
        return pending[:1]


def _reader(feed: _Feed, layout: Layout) -> Any:
    how: dict[str, Any] = {"quotechar": layout.quote} if layout.quote else {"quoting": csv.QUOTE_NONE}
    try:
        return csv.reader(feed, delimiter=layout.delimiter, strict=True, **how)
    except (TypeError, ValueError, csv.Error):
        raise FileNotReadable("The file cannot be read with this delimiter and quote.") from None


def rows(
    file: BinaryIO, layout: Layout, skip: int = 0
) -> Iterator[tuple[int, list[str], RecordFault | None]]:
    """Every row after the row `skip` that is not blank, with its number from 1 on; cells as they come."""
    yield from rows_of(Lines(Text(file, layout.encoding)), layout, skip)


def rows_of(
    lines: Lines, layout: Layout, skip: int = 0
) -> Iterator[tuple[int, list[str], RecordFault | None]]:
    """As `rows`, of lines."""
    text, row = lines.text, 0
    first = next(lines, "")
    if first.lower().startswith("sep=") and len(first.strip()) <= 5:
        row = 1  # Excel's own line, which names the separator
    elif first:
        lines.push_back([first])
    feed = _Feed(lines)
    reader = _reader(feed, layout)
    while True:
        try:
            for cells in reader:
                feed.pending.clear()
                row += 1
                if row > skip and cells:
                    yield row, [_checked(cell, layout) for cell in cells] if text.has_bad else cells, None
            return
        except (csv.Error, _TooLong) as error:
            fault = _TOO_LONG if isinstance(error, _TooLong) or "limit" in str(error) else _QUOTES
            for line in feed.refused():
                row += 1
                if row > skip:
                    yield row, [line[:SHOWN].rstrip("\r\n")], fault


def _checked(cell: str, layout: Layout) -> str:
    if not has_bad(cell):
        return cell
    return BadCell("CELL_ENCODING", f"must be text in {layout.encoding}")


def rows_of_text(text: str, layout: Layout) -> list[tuple[int, list[str], RecordFault | None]]:
    """As `rows`, of a text at hand."""
    return list(rows(io.BytesIO(text.encode("utf-8", "replace")), replace(layout, encoding="utf-8")))


def _named(file: BinaryIO, layout: Layout) -> tuple[int, list[str]]:
    """The number of the first row that holds something, and its cells."""
    for row, cells, fault in rows(file, layout):
        if fault is not None:
            raise FileNotReadable("The first row of the file cannot be read: " + fault.expected + ".")
        if any(cell.strip() or isinstance(cell, BadCell) for cell in cells):
            while cells and not cells[-1].strip() and not isinstance(cells[-1], BadCell):
                cells.pop()  # separators without end
            if len(cells) > MAX_COLUMNS:
                raise FileTooWide(f"The file has more than {MAX_COLUMNS:,} columns.", columns=len(cells))
            return row, cells
    raise FileEmpty


def header(file: BinaryIO, layout: Layout) -> tuple[list[str], int]:
    """The names of the columns, and how many were doubles. Raises FileEmpty, FileNotReadable, FileTooWide."""
    _, cells = _named(file, layout)
    return distinct(cells if layout.has_header else [""] * len(cells))


def records(file: BinaryIO, layout: Layout, skip: int = 0) -> Iterator[Record]:
    """The records after the row `skip`. Short rows are filled up; rows with more cells than columns are faults.

    Rows with nothing in them are left out.
    """
    header_row, names = _named(file, layout)
    width = len(names)
    for row, cells, fault in rows(file, layout, max(skip, header_row if layout.has_header else 0)):
        if fault is not None:
            yield Record(row, cells, fault)
        elif len(cells) == width:
            if any(cells) or BadCell in map(type, cells):
                yield Record(row, cells)
        elif len(cells) > width and any(cells[width:]):
            yield Record(row, cells[:MAX_COLUMNS], _TOO_MANY)
        elif any(cells) or BadCell in map(type, cells):
            yield Record(row, cells[:width] + [""] * (width - len(cells)))
