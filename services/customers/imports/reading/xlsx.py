"""Excel workbooks to rows: one sheet as a stream, formulas by their last value, dates by their style.

openpyxl's reader keeps all texts of a workbook as objects, which is 300 MB for a usual million of customers;
here they are one block of bytes. Of openpyxl comes what is a date and what is not.
"""

import re
import zipfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from xml.parsers import expat

from services.customers.imports.reading import zips
from services.customers.imports.reading.faults import (
    FileBomb,
    FileDamaged,
    FileEmpty,
    FileHeaderOnly,
    FileNotReadable,
    FileTooWide,
    SheetMissing,
)
from services.customers.imports.reading.layout import (
    MAX_COLUMNS,
    XLSX,
    BadCell,
    Layout,
    Number,
    Record,
    RecordFault,
    distinct,
)

MAX_TEXTS = 128 * 1024 * 1024  # bytes of all different texts of a workbook
MAX_CELL = 100_000  # characters; Excel itself takes 32,767
MAX_STYLES = 70_000  # Excel's own limit is 65,490
MAX_SHEETS = 1_000
_BLOCK = 64 * 1024  # what is unpacked at once; its rows are held at once
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_COLUMN = re.compile(r"([A-Z]{1,3})")

_NOT_CALCULATED = BadCell("CELL_FORMULA", "must be a value: the formula was never calculated")
_ERROR = BadCell("CELL_ERROR", "must be a value: the cell shows an error")
_TOO_LONG = BadCell("CELL_TOO_LONG", f"must have at most {MAX_CELL:,} characters")
_NUMBER = BadCell("CELL_NUMBER", "must be a number that Excel can hold")
_DATE = BadCell("CELL_DATE", "must be a date from 1900 to 9999")
_BROKEN = RecordFault("SHEET_BROKEN", "from here on the sheet cannot be read")
_TOO_MANY = RecordFault("ROW_TOO_MANY_CELLS", "a row must have no more cells than the file has columns")


class _Xml:
    """A parser of one XML part. Documents with a DTD are refused, so that none can expand itself."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator="\x1f")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ProcessingInstructionHandler = None

    def _refuse(self, *_: object) -> None:
        raise FileBomb("The workbook holds definitions that no workbook has.")


def _local(name: str) -> str:
    return name.rpartition("\x1f")[2]


def _elements(
    archive: zipfile.ZipFile, name: str, most: int = 16 * 1024 * 1024
) -> list[tuple[str, dict[str, str]]]:
    """All elements of a small part with their attributes, by local names. Raises FileDamaged, FileBomb."""
    found: list[tuple[str, dict[str, str]]] = []
    xml = _Xml()

    def start(tag: str, attributes: dict[str, str]) -> None:
        found.append((_local(tag), {_local(key): value for key, value in attributes.items()}))

    xml.parser.StartElementHandler = start
    try:
        if archive.getinfo(name).file_size > most:
            raise FileBomb
        with archive.open(name) as stream:
            while block := stream.read(_BLOCK):
                xml.parser.Parse(block, False)
                if len(found) > 1_000_000:
                    raise FileBomb
            xml.parser.Parse(b"", True)
    except (*zips.BROKEN, RuntimeError, expat.ExpatError):
        raise FileDamaged from None
    return found


@dataclass(slots=True)
class _Workbook:
    """What the parts around the sheets tell. `sheets` by name: the name of their part."""

    archive: zipfile.ZipFile
    sheets: dict[str, str] = field(default_factory=dict)
    texts_part: str = ""
    styles_part: str = ""
    since_1904: bool = False


def _workbook(file: BinaryIO) -> _Workbook:
    """Raises FileDamaged, FileBomb, FileNotReadable."""
    archive = zips.opened(file)
    names = set(archive.namelist())
    main = next((name for name in ("xl/workbook.xml", "/xl/workbook.xml") if name in names), "")
    if not main:
        if "word/document.xml" in names or "ppt/presentation.xml" in names or "mimetype" in names:
            raise FileNotReadable("The file is another office document; save it as .xlsx.")
        if "xl/workbook.bin" in names:
            raise FileNotReadable("The file is a binary workbook (.xlsb); save it as .xlsx.")
        raise FileNotReadable("The file is an archive and no .xlsx workbook; unpack it first.")
    book = _Workbook(archive)
    parts: dict[str, str] = {}
    rels = "xl/_rels/workbook.xml.rels"
    for tag, attributes in _elements(archive, rels) if rels in names else ():
        if tag == "Relationship" and attributes.get("TargetMode") != "External":
            part = attributes.get("Target", "")
            part = part.lstrip("/") if part.startswith("/") else f"xl/{part}"
            parts[attributes.get("Id", "")] = part
            kind = attributes.get("Type", "").rpartition("/")[2]
            if kind == "sharedStrings" and part in names:
                book.texts_part = part
            elif kind == "styles" and part in names:
                book.styles_part = part
    for tag, attributes in _elements(archive, main):
        if tag == "sheet" and parts.get(attributes.get("id", "")) in names:
            part = parts[attributes["id"]]
            if part.startswith("xl/worksheets/") and len(book.sheets) < MAX_SHEETS:
                book.sheets[attributes.get("name", "")] = part
        elif tag == "workbookPr":
            book.since_1904 = attributes.get("date1904", "0") in ("1", "true")
    return book


def sheets(file: BinaryIO) -> list[str]:
    """The names of the sheets that hold cells. Raises a FileFault."""
    return list(_workbook(file).sheets)


def _date_styles(book: _Workbook) -> frozenset[int]:
    """The cell styles that show numbers as dates or times."""
    if not book.styles_part:
        return frozenset()
    own: dict[int, str] = {}
    formats: list[int] = []
    inside = False
    for tag, attributes in _elements(book.archive, book.styles_part):
        if tag == "numFmt":
            own[_int(attributes.get("numFmtId"))] = attributes.get("formatCode", "")
        elif tag in ("cellXfs", "cellStyleXfs", "cellStyles", "dxfs"):
            inside = tag == "cellXfs"
        elif tag == "xf" and inside and len(formats) < MAX_STYLES:
            formats.append(_int(attributes.get("numFmtId")))
    from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format  # large, and few files are workbooks

    codes = {n: own.get(n) or BUILTIN_FORMATS.get(n, "General") for n in set(formats)}
    dates = {n for n, code in codes.items() if len(code) < 300 and is_date_format(code)}
    dates |= {n for n in codes if 27 <= n <= 36 or 50 <= n <= 58} - own.keys()  # dates of East Asian Excels
    return frozenset(i for i, n in enumerate(formats) if n in dates)


def _int(text: str | None) -> int:
    return int(text) if text and len(text) < 10 and text.isascii() and text.isdigit() else 0


class _Texts:
    """The shared texts of a workbook in one block of bytes."""

    def __init__(self, book: _Workbook) -> None:
        self._bytes, self._ends = bytearray(), array("Q")
        if book.texts_part:
            self._read(book)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        raw = self._bytes[start : self._ends[index]]
        if len(raw) > MAX_CELL:
            return _TOO_LONG
        return _plain(raw.decode())

    def _read(self, book: _Workbook) -> None:
        xml = _Xml()
        kept, ends = self._bytes, self._ends
        taking = phonetic = False

        def start(tag: str, _: object) -> None:
            nonlocal taking, phonetic
            name = _local(tag)
            phonetic = phonetic or name == "rPh"
            taking = name == "t" and not phonetic

        def end(tag: str) -> None:
            nonlocal taking, phonetic
            name = _local(tag)
            taking = False
            if name == "rPh":
                phonetic = False
            elif name == "si":
                ends.append(len(kept))

        def data(text: str) -> None:
            if taking:
                kept.extend(text.encode("utf-8", "replace"))
                if len(kept) + 8 * len(ends) > MAX_TEXTS:
                    raise FileBomb("The workbook has more text than is taken; save the sheet as CSV.")

        xml.parser.StartElementHandler = start
        xml.parser.EndElementHandler = end
        xml.parser.CharacterDataHandler = data
        try:
            with book.archive.open(book.texts_part) as stream:
                while block := stream.read(_BLOCK):
                    xml.parser.Parse(block, False)
                    if len(kept) + 8 * len(ends) > MAX_TEXTS:
                        raise FileBomb("The workbook has more text than is taken; save the sheet as CSV.")
                xml.parser.Parse(b"", True)
        except (*zips.BROKEN, RuntimeError, expat.ExpatError):
            raise FileDamaged from None


def _plain(text: str) -> str:
    """Text without Excel's escapes of control characters."""
    if "_x" not in text:
        return text
    return _ESCAPED.sub(lambda m: m.group() if 0xD800 <= int(m[1], 16) < 0xE000 else chr(int(m[1], 16)), text)


def _index(reference: str) -> int:
    """The column, from 0, of a cell's reference ("AB12"); -1 for none."""
    match = _COLUMN.match(reference)
    if not match:
        return -1
    index = 0
    for letter in match[1]:
        index = index * 26 + ord(letter) - 64
    return index - 1


class _Sheet:
    """The rows of a sheet: `rows` fills as XML is fed."""

    def __init__(self, book: _Workbook) -> None:
        self.rows: list[tuple[int, list[str], bool]] = []
        self._texts, self._dates = _Texts(book), _date_styles(book)
        self._base = datetime(1904, 1, 1) if book.since_1904 else datetime(1899, 12, 30)
        self._1904 = book.since_1904
        self._row = self._next = 0
        self._cells: list[str] = []
        self._wide = self._in_cell = self._taking = self._formula = self._phonetic = False
        self._kind = self._style = self._reference = ""
        self._parts: list[str] = []
        self._size = 0
        self._names: dict[str, str] = {}
        self.xml = _Xml()
        self.xml.parser.StartElementHandler = self._start
        self.xml.parser.EndElementHandler = self._end
        self.xml.parser.CharacterDataHandler = self._data

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("\x1f")[2]
        if name == "c":
            self._in_cell, self._formula, self._phonetic = True, False, False
            self._kind = attributes.get("t", "n")
            self._style = attributes.get("s", "")
            self._reference = attributes.get("r", "")
            self._parts, self._size = [], 0
        elif name == "v":
            self._taking = self._in_cell
        elif name == "t":
            self._taking = self._in_cell and self._kind == "inlineStr" and not self._phonetic
        elif name == "f":
            self._formula = True
        elif name == "rPh":
            self._phonetic = True
        elif name == "row":
            number = _int(attributes.get("r"))
            self._row = max(number, self._row + 1)
            self._cells, self._next, self._wide = [], 0, False

    def _data(self, text: str) -> None:
        if self._taking and self._size <= MAX_CELL:
            self._size += len(text)
            self._parts.append(text)

    def _end(self, tag: str) -> None:
        name = tag.rpartition("\x1f")[2]
        if name == "c":
            index = _index(self._reference)
            index = max(index, self._next)
            if index >= MAX_COLUMNS:
                self._wide = self._wide or bool(self._parts)
            else:
                cells = self._cells
                if index > len(cells):
                    cells.extend([""] * (index - len(cells)))
                cells.append(self._value())
                self._next = index + 1
            self._in_cell = False
        elif name in ("v", "t"):
            self._taking = False
        elif name == "rPh":
            self._phonetic = False
        elif name == "row":
            self.rows.append((self._row, self._cells, self._wide))
            self._cells = []

    def _value(self) -> str:
        text = "".join(self._parts)
        kind = self._kind
        if self._size > MAX_CELL:
            return _TOO_LONG
        if kind == "s":
            if not text.strip().isascii() or not text.strip().isdigit() or len(text) > 12:
                return "" if not text else _ERROR
            index = int(text)
            return self._texts[index] if index < len(self._texts) else _ERROR
        if kind in ("inlineStr", "str"):
            if not text and self._formula:
                return "" if kind == "str" else _NOT_CALCULATED
            return _plain(text)
        if kind == "e":
            return _ERROR
        if not text.strip():
            return _NOT_CALCULATED if self._formula else ""
        if kind == "b":
            return "true" if text.strip() == "1" else "false"
        if kind == "d":
            return text.strip()
        return self._number(text.strip())

    def _number(self, text: str) -> str:
        try:
            value = float(text) if len(text) <= 400 else float("nan")
        except ValueError:
            return _NUMBER
        if value - value != 0 or abs(value) >= 1e21:
            return _NUMBER
        if self._style and _int(self._style) in self._dates:
            return self._date(value)
        if value.is_integer():
            return Number(int(value))
        short = f"{value:.15g}"
        return Number(short if "e" not in short else f"{value:.20f}".rstrip("0"))

    def _date(self, value: float) -> str:
        if not 0 <= value < 2_958_466:
            return _DATE
        seconds = round(value * 86_400)
        if seconds < 86_400 and not self._1904:
            return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        if value < 60 and not self._1904:
            seconds += 86_400  # Excel believes that 1900 had a 29 February
        try:
            found = self._base + timedelta(seconds=seconds)
        except OverflowError:
            return _DATE
        return found.date().isoformat() if seconds % 86_400 == 0 else found.isoformat()


def _rows(file: BinaryIO, layout: Layout) -> Iterator[tuple[int, list[str], bool] | None]:
    """The rows of the sheet: number, cells, whether there are cells beyond MAX_COLUMNS. None where it breaks."""
    book = _workbook(file)
    part = book.sheets.get(layout.sheet)
    if part is None:
        raise SheetMissing
    sheet = _Sheet(book)
    try:
        with book.archive.open(part) as stream:
            while block := stream.read(_BLOCK):
                sheet.xml.parser.Parse(block, False)
                rows, sheet.rows = sheet.rows, []
                yield from rows
            sheet.xml.parser.Parse(b"", True)
            yield from sheet.rows
    except (*zips.BROKEN, RuntimeError, expat.ExpatError):
        yield from sheet.rows
        yield None


def _filled(cells: list[str]) -> bool:
    return any(cells) or BadCell in map(type, cells)


def _first(file: BinaryIO, layout: Layout) -> tuple[int, list[str]]:
    for found in _rows(file, layout):
        if found is None:
            raise FileDamaged
        row, cells, wide = found
        if wide:
            raise FileTooWide(f"The sheet has more than {MAX_COLUMNS:,} columns.")
        if any(cell.strip() for cell in cells):
            while cells and not cells[-1].strip():
                cells.pop()
            return row, cells
    raise FileEmpty("The sheet is empty.")


def header(file: BinaryIO, layout: Layout) -> tuple[list[str], int]:
    """The names of the columns, and how many were doubles. Raises a FileFault."""
    _, cells = _first(file, layout)
    return distinct(cells if layout.has_header else [""] * len(cells))


def records(file: BinaryIO, layout: Layout, skip: int = 0) -> Iterator[Record]:
    """The records after the row `skip`, with the sheet's own row numbers. Rows with nothing in them are left out."""
    first, names = _first(file, layout)
    width = len(names)
    skip = max(skip, first if layout.has_header else 0)
    row = skip
    for found in _rows(file, layout):
        if found is None:
            yield Record(row + 1, [""] * width, _BROKEN)
            return
        row, cells, wide = found
        if row <= skip or not _filled(cells):
            continue
        if wide or (len(cells) > width and _filled(cells[width:])):
            yield Record(row, cells, _TOO_MANY)
        else:
            yield Record(row, cells[:width] + [""] * (width - len(cells)))


def detect(file: BinaryIO) -> Layout:
    """The layout of a workbook: its first sheet that holds rows. Raises a FileFault."""
    from services.customers.imports.reading.detecting import is_header

    book = _workbook(file)
    if not book.sheets:
        raise SheetMissing("The workbook has no sheet of rows.")
    notes = []
    empty: FileEmpty | None = None
    for name, part in book.sheets.items():
        layout = Layout(XLSX, quote="", sheet=name)
        try:
            _first(file, layout)
        except FileEmpty as fault:
            empty = fault
            continue
        zips.check_whole(book.archive, part)
        sample = _sample(file, layout)
        if not is_header(sample[0], sample[1:]):
            layout = Layout(XLSX, quote="", sheet=name, has_header=False)
            notes.append("The first row looks like data: the columns have no names.")
        _, doubles = header(file, layout)
        if doubles:
            notes.append(f"{doubles} of the columns had the name of another; they are numbered.")
        if layout.has_header and next(records(file, layout), None) is None:
            raise FileHeaderOnly
        if len(book.sheets) > 1:
            notes.append(f"The workbook has {len(book.sheets)} sheets; one is read.")
        return Layout(XLSX, quote="", sheet=name, has_header=layout.has_header, notes=tuple(notes))
    raise empty or FileEmpty


def _sample(file: BinaryIO, layout: Layout) -> list[list[str]]:
    found: list[Any] = []
    for each in _rows(file, layout):
        if each is not None and _filled(each[1]):
            found.append(each[1])
        if len(found) >= 20:
            break
    return found
