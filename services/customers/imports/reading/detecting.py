"""What a file is: its format, encoding, separator, header and sheet, found in its bytes."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from libs.problems import Faults
from services.customers.imports.reading import csv_rows, json_rows, xlsx
from services.customers.imports.reading.encodings import encoding_of
from services.customers.imports.reading.faults import (
    FileDamaged,
    FileEmpty,
    FileEncrypted,
    FileHeaderOnly,
    FileNotReadable,
    FileTooWide,
)
from services.customers.imports.reading.layout import (
    CSV,
    JSON,
    JSONL,
    MAX_COLUMNS,
    XLSX,
    Layout,
    Record,
    distinct,
)
from services.customers.imports.reading.text import ENCODINGS, Text

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_LINES = 200
_HEAD = 64 * 1024
# How other kinds of files begin, and what to say of them.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "The file is a PDF."),
    (b"\x89PNG", "The file is an image."),
    (b"GIF8", "The file is an image."),
    (b"\xff\xd8\xff", "The file is an image."),
    (b"\x1f\x8b", "The file is compressed (gzip); unpack it first."),
    (b"BZh", "The file is compressed (bzip2); unpack it first."),
    (b"\xfd7zXZ", "The file is compressed (xz); unpack it first."),
    (b"7z\xbc\xaf", "The file is an archive (7z); unpack it first."),
    (b"Rar!", "The file is an archive (rar); unpack it first."),
    (b"PAR1", "The file is a Parquet file; save it as CSV."),
    (b"{\\rtf", "The file is a text document (RTF); save it as CSV."),
    (b"SQLite format 3", "The file is a database; save a table as CSV."),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MARKUP = re.compile(r"\s*<(\?xml|!doctype|html|table|[a-z]+[ >])", re.IGNORECASE)
_VALUE = re.compile(
    r"""\s*(?:
        [^@\s]+@[^@\s]+\.[^@\s]+              # an e-mail
      | [-+(]?[\d][\d\s().,/:+-]*[A-Z]{0,3}   # a number, an amount, a date, a phone
      | \d{4}-\d\d-\d\dT.*
      | https?://.*
      | (?:true|false)
    )\s*""",
    re.VERBOSE | re.IGNORECASE,
)


def detect(file: BinaryIO, *, file_name: str = "", content_type: str = "") -> Layout:
    """How the file is laid out. Raises a FileFault that says why it cannot be read at all.

    What is inside decides; name and media type (as the client believes) only where both are possible.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        raise FileEmpty
    if head.startswith(b"PK\x03\x04"):
        return xlsx.detect(file)
    if head.startswith((b"PK\x05\x06", b"PK\x07\x08")):
        raise FileDamaged
    _refuse_foreign(head)
    encoding = encoding_of(file)
    sample = _sample(file, encoding)
    start = sample.lstrip()
    if _MARKUP.match(sample):
        raise FileNotReadable("The file is a web page or XML; save it as CSV or .xlsx.")
    named_csv = file_name.lower().endswith((".csv", ".tsv", ".txt", ".tab"))
    if start.startswith("{") and not named_csv:
        return _json(file, Layout(JSONL, encoding=encoding, quote="", has_header=False))
    if start.startswith("[") and re.match(r"\[\s*([\[{\]\"\d-]|$)", start) and not named_csv:
        return _json(file, Layout(JSON, encoding=encoding, quote="", has_header=False))
    return _csv(file, sample, encoding)


def _refuse_foreign(head: bytes) -> None:
    for magic, message in _FOREIGN:
        if head.startswith(magic):
            raise FileNotReadable(message)
    if head.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in head:
            raise FileEncrypted
        raise FileNotReadable(
            "The file is an old Excel file (.xls) or protected; save it as .xlsx, unprotected."
        )


def _sample(file: BinaryIO, encoding: str) -> str:
    for chunk in Text(file, encoding):
        return chunk
    raise FileEmpty


def _json(file: BinaryIO, layout: Layout) -> Layout:
    names, notes, rows = json_rows.keys(file, layout)
    if not rows:
        raise FileEmpty("There are no objects in the file.")
    if len(names) > MAX_COLUMNS:
        raise FileTooWide(f"The objects of the file have more than {MAX_COLUMNS:,} different keys.")
    if not names:
        raise FileNotReadable("There are no objects in the file that can be read.")
    return replace(layout, keys=tuple(names), notes=tuple(notes))


def _csv(file: BinaryIO, sample: str, encoding: str) -> Layout:
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", sample)[:SAMPLE_LINES]
    quote = '"'
    if '"' not in sample and _singly_quoted(lines):
        quote = "'"
    layout = Layout(CSV, encoding=encoding, delimiter=",", quote=quote)
    first = lines[0] if lines else ""
    if first.lower().startswith("sep=") and len(first.strip("\r\n")) == 5:
        layout = replace(layout, delimiter=first[4])
    else:
        layout = replace(layout, delimiter=_delimiter(lines, layout))
    notes = []
    rows = csv_rows.rows_of_text("".join(lines), layout)
    whole = [cells for _, cells, fault in rows if fault is None and any(map(str.strip, cells))]
    if whole and not is_header(whole[0], whole[1:]):
        layout = replace(layout, has_header=False)
        notes.append("The first row looks like data: the columns have no names.")
    names, doubles = csv_rows.header(file, layout)
    if doubles:
        notes.append(f"{doubles} of the columns had the name of another; they are numbered.")
    if layout.has_header and next(csv_rows.records(file, layout), None) is None:
        raise FileHeaderOnly
    if len(names) == 1 and len(whole) > 1 and not any(d in first for d in DELIMITERS):
        notes.append("No separator was found: the file has one column.")
    return replace(layout, notes=tuple(notes))


def _singly_quoted(lines: Sequence[str]) -> bool:
    whole = re.compile(r"(^|[,;\t|])'[^']*'(?=$|[,;\t|\r\n])")
    return bool(lines) and sum(bool(whole.search(line)) for line in lines) * 2 > len(lines)


def _delimiter(lines: Sequence[str], layout: Layout) -> str:
    """The separator by which most rows have as many cells as the first; by several, that with the most cells."""
    text = "".join(lines)
    best, most = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        rows = csv_rows.rows_of_text(text, replace(layout, delimiter=delimiter))
        widths = [len(cells) if fault is None else 0 for _, cells, fault in rows]
        if not widths or widths[0] < 2:
            continue
        steady = Counter(widths)[widths[0]] / len(widths)
        if (round(steady, 1), widths[0]) > most:
            best, most = delimiter, (round(steady, 1), widths[0])
    return best


def is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """True unless a cell of the first row is plainly a value: an e-mail, a number, a date."""
    filled = [cell for cell in first if cell.strip()]
    values = sum(bool(_VALUE.fullmatch(cell)) for cell in filled)
    if any("@" in cell and _VALUE.fullmatch(cell) for cell in filled):
        return False
    return values * 3 < max(len(filled), 1) or not filled


def check_layout(layout: Layout, path: str = "layout") -> None:
    """Raises InvalidArgument with everything that is wrong with a layout that a person set."""
    faults = Faults()
    if layout.format in (CSV, JSON, JSONL) and layout.encoding not in ENCODINGS:
        faults.add(f"{path}.encoding", "must be one of: " + ", ".join(ENCODINGS), "UNKNOWN_ENCODING")
    if layout.format == CSV:
        if len(layout.delimiter) != 1 or layout.delimiter in "\r\n\x00\" '":
            faults.add(f"{path}.delimiter", "must be one character, no quote and no line end", "INVALID")
        if len(layout.quote) > 1 or (layout.quote and layout.quote in "\r\n\x00 " + layout.delimiter):
            faults.add(f"{path}.quote", "must be one character other than the delimiter, or none", "INVALID")
    faults.refuse()


def columns(file: BinaryIO, layout: Layout) -> list[str]:
    """The names of the columns, each once. Raises a FileFault."""
    if layout.format == CSV:
        return csv_rows.header(file, layout)[0]
    if layout.format == XLSX:
        return xlsx.header(file, layout)[0]
    return distinct(layout.keys)[0]


def records(file: BinaryIO, layout: Layout, skip: int = 0) -> Iterator[Record]:
    """The records after the row whose number is `skip`, one by one. Raises a FileFault."""
    if layout.format == CSV:
        return csv_rows.records(file, layout, skip)
    if layout.format == XLSX:
        return xlsx.records(file, layout, skip)
    return json_rows.records(file, layout, skip)


def sheets(file: BinaryIO) -> list[str]:
    """The names of a workbook's sheets; of other files none. Raises a FileFault."""
    file.seek(0)
    return xlsx.sheets(file) if file.read(4) == b"PK\x03\x04" else []
