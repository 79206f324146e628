"""The refused rows of a file with its columns, and one more that says what is wrong.

Excel for Excel, CSV for everything else.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, BinaryIO

from google.api.httpbody_pb2 import HttpBody
from sqlalchemy import Row

from libs.db import Database
from services.customers.exports.columns import Column, Kind, Needs
from services.customers.exports.sheets import Workbook
from services.customers.imports import queries
from services.customers.imports.queries import Import
from services.customers.imports.reading import Record, records

TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
REASON = "What is wrong"
PAGE = 1000
# A spreadsheet would run a cell that begins so.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def body(form: str, content: bytes) -> HttpBody:
    """A file, or the beginning of one, as an answer."""
    return HttpBody(content_type=TYPES[form], data=content)


def form_of(mine: Import) -> str:
    """What the error file of an import is: "xlsx" or "csv"."""
    return "xlsx" if mine.plan.layout.format == "xlsx" else "csv"


class _Lines:
    """CSV on its way, as a Workbook is."""

    def __init__(self, header: list[str], delimiter: str) -> None:
        self._header, self._delimiter = header, delimiter

    def begin(self) -> bytes:
        return b"\xef\xbb\xbf" + self._written([self._header])

    def rows(self, rows: list[list[str]]) -> bytes:
        return self._written([[_safe(cell) for cell in row] for row in rows])

    def end(self) -> bytes:
        return b""

    def _written(self, rows: list[list[str]]) -> bytes:
        out = io.StringIO()
        csv.writer(out, delimiter=self._delimiter).writerows(rows)
        return out.getvalue().encode("utf-8", "replace")


async def parts(db: Database, mine: Import, source: BinaryIO) -> AsyncIterator[HttpBody]:
    """The file, a page of refused rows at a time: its columns, and the reasons in one more."""
    layout, form = mine.plan.layout, form_of(mine)
    rows = records(source, layout)
    header = [*(column.name for column in mine.plan.mapping.columns), REASON]
    file: _Lines | Workbook
    if form == "xlsx":
        file = Workbook([_column(at, name) for at, name in enumerate(header)])
    else:
        file = _Lines(header, layout.delimiter or ",")
    yield body(form, file.begin())
    after: tuple[int, int] | None = None
    while True:
        async with db.read() as tx:
            found = await queries.errors(tx, mine.row.import_id, PAGE, after or ())
        if not found:
            break
        after = found[-1].row, found[-1].place
        if len(found) == PAGE:  # the last row's errors may go on: it comes whole with the next page
            whole = [each for each in found if each.row != found[-1].row]
            if whole:
                found = whole
                after = found[-1].row, found[-1].place
        refused = await asyncio.to_thread(_page, rows, mine, found)
        if said := await asyncio.to_thread(file.rows, refused):
            yield body(form, said)
    if said := file.end():
        yield body(form, said)


def _column(at: int, name: str) -> Column:
    return Column(str(at), name, "", Kind.TEXT, Needs.ROW, itemgetter(at))


def _page(rows: Iterator[Record], mine: Import, found: list[Row[Any]]) -> list[list[str]]:
    """The refused rows with their reasons."""
    names = {column.index: column.name for column in mine.plan.mapping.columns}
    reasons: dict[int, list[str]] = {}
    for each in found:
        if each.customer_id or each.order_id:
            continue  # what an undo left
        name = names.get(each.column_index, "")
        reasons.setdefault(each.row, []).append(f"{name}: {each.expected}" if name else each.expected)
    lines = []
    last = max(reasons, default=0)
    for record in rows if reasons else ():
        if record.row in reasons:
            lines.append([*record.cells, "; ".join(reasons[record.row])])
        if record.row >= last:
            break
    return lines


def _safe(cell: str) -> str:
    """The cell, so that no spreadsheet runs it. Numbers stay as they are."""
    if cell.startswith(_FORMULA) and not _is_number(cell):
        return "'" + cell
    return cell


def _is_number(cell: str) -> bool:
    return cell[1:].replace(" ", "").replace(".", "", 1).replace(",", "", 1).isdigit()
