"""What a file is: its format, encoding, separator, header and sheet, found in its bytes."""

from collections.abc import Iterator
from typing import BinaryIO

from services.customers.imports.reading import csv_rows
from services.customers.imports.reading.layout import CSV, Layout, Record


def detect(file: BinaryIO, *, file_name: str = "", content_type: str = "") -> Layout:
    """How the file is laid out. Raises a FileFault that says why it cannot be read at all."""
    return Layout(CSV, encoding="utf-8", delimiter=",")


def columns(file: BinaryIO, layout: Layout) -> list[str]:
    """The names of the columns, each once. Raises a FileFault."""
    return csv_rows.header(file, layout)[0]


def records(file: BinaryIO, layout: Layout, skip: int = 0) -> Iterator[Record]:
    """The records after the row whose number is `skip`, one by one. Raises a FileFault."""
    return csv_rows.records(file, layout, skip)


def sheets(file: BinaryIO) -> list[str]:
    """The names of a workbook's sheets; of other files none. Raises a FileFault."""
    return []
