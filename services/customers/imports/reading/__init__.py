"""Files of rows to records: what a file is, its columns, and its rows one by one in bounded memory."""

from services.customers.imports.reading.detecting import check_layout, columns, detect, records, sheets
from services.customers.imports.reading.faults import (
    FileBomb,
    FileDamaged,
    FileEmpty,
    FileEncoding,
    FileEncrypted,
    FileFault,
    FileHeaderOnly,
    FileNotReadable,
    FileTooWide,
    SheetMissing,
)
from services.customers.imports.reading.layout import BadCell, Layout, Number, Record, RecordFault

__all__ = [
    "BadCell",
    "FileBomb",
    "FileDamaged",
    "FileEmpty",
    "FileEncoding",
    "FileEncrypted",
    "FileFault",
    "FileHeaderOnly",
    "FileNotReadable",
    "FileTooWide",
    "Layout",
    "Number",
    "Record",
    "RecordFault",
    "SheetMissing",
    "check_layout",
    "columns",
    "detect",
    "records",
    "sheets",
]
