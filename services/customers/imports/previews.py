"""The first rows of a file as an import would read them."""

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from regulars.customers.v1 import imports_pb2 as pb
from services.customers.imports import wire
from services.customers.imports.queries import Import
from services.customers.imports.reading import Record, records
from services.customers.imports.rows import Facts, Refused, RowReader

ROWS = 100


def preview(file: BinaryIO, mine: Import, facts: Facts) -> list[pb.PreviewRow]:
    """The first 100 rows with their cells and what is wrong with them. Raises FileFault."""
    rows: dict[int, pb.PreviewRow] = {}

    def noted() -> Iterator[Record]:
        for each in islice(records(file, mine.plan.layout), ROWS):
            rows[each.row] = pb.PreviewRow(row=each.row, cells=each.cells)
            yield each

    for told in RowReader(mine.row.kind, mine.plan.mapping, facts).read(noted()):
        if isinstance(told, Refused):
            for error in told.errors:
                rows.get(error.row, rows[told.row]).errors.append(wire.row_error(error))
    return list(rows.values())
