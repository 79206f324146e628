"""The refused rows of a file as CSV with its columns, and one more that says what is wrong."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from google.api.httpbody_pb2 import HttpBody
from sqlalchemy import Row

from libs.db import Database
from services.customers.imports import queries
from services.customers.imports.queries import Import
from services.customers.imports.reading import Layout, Record, records

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


async def parts(db: Database, mine: Import, source: BinaryIO) -> AsyncIterator[HttpBody]:
    """The file, a page of refused rows at a time: its columns, and the reasons in one more."""
    layout = mine.plan.layout
    rows = records(source, layout)
    header = [column.name for column in mine.plan.mapping.columns]
    yield body("csv", b"\xef\xbb\xbf" + _lines(layout, [[*header, REASON]]))
    after: tuple[int, int] | None = None
    while True:
        async with db.read() as tx:
            found = await queries.errors(tx, mine.row.import_id, PAGE, after or ())
        if not found:
            return
        after = found[-1].row, found[-1].place
        if len(found) == PAGE:  # the last row's errors may go on: it comes whole with the next page
            whole = [each for each in found if each.row != found[-1].row]
            if whole:
                found = whole
                after = found[-1].row, found[-1].place
        said = await asyncio.to_thread(_page, rows, mine, found)
        if said:
            yield body("csv", said)


def _page(rows: Iterator[Record], mine: Import, found: list[Row[Any]]) -> bytes:
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
            lines.append([*map(_safe, record.cells), _safe("; ".join(reasons[record.row]))])
        if record.row >= last:
            break
    return _lines(mine.plan.layout, lines)


def _safe(cell: str) -> str:
    """The cell, so that no spreadsheet runs it. Numbers stay as they are."""
    if cell.startswith(_FORMULA) and not _is_number(cell):
        return "'" + cell
    return cell


def _is_number(cell: str) -> bool:
    return cell[1:].replace(" ", "").replace(".", "", 1).replace(",", "", 1).isdigit()


def _lines(layout: Layout, rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=layout.delimiter or ",").writerows(rows)
    return out.getvalue().encode("utf-8", "replace")
