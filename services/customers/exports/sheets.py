"""Excel workbooks of one sheet, written front to back.

xlsxwriter spools the rows of a sheet to a temporary file in clear text, even with `constant_memory`; personal data
must not lie there (decision 5). A workbook is a zip of a few small parts and the sheet, so the sheet is written row by
row into the archive as it leaves: no file, and the memory of one batch whatever the number of rows.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from xml.sax.saxutils import escape

from services.customers.exports.columns import Column, Kind
from services.customers.exports.problems import SheetTooLong, WorkbookTooLarge
from services.customers.exports.rules import risky
from services.customers.exports.zipping import TooLarge, Zip

# Of the sheet's 1,048,576 rows the first is the header.
MOST_ROWS = 1_048_575
MOST_CHARACTERS = 32_767
_SHEET = "xl/worksheets/sheet1.xml"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
# Numbers of the cells' formats in styles.xml. QUOTED is what Excel sets for a leading apostrophe: the cell is text,
# and stays text when somebody edits it.
_DATE, _INSTANT, _QUOTED, _HEAD, _MONEY = 1, 2, 3, 4, 5

_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_REL}">'
    '<sheets><sheet name="Customers" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_REL}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_REL}/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}">'
    '<numFmts count="2"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/>'
    '<numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/></numFmts>'
    '<fonts count="2"><font><sz val="11"/><name val="Calibri"/></font>'
    '<font><b/><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="6"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
    '<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1" quotePrefix="1"/>'
    '<xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/>'
    '<xf numFmtId="4" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>',
}
_HEAD_OF_SHEET = (
    f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
    "<sheetData>"
)
_END_OF_SHEET = "</sheetData></worksheet>"

# What XML must not hold, and what Excel would take for such a mark: both are written as "_x001F_".
# Source: ECMA-376, ST_Xstring.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_SPECIAL = re.compile("[\x00-\x1f&<>\ud800-\udfff\ufffe\uffff]|_x")
_EPOCH, _FIRST = date(1899, 12, 30), date(1900, 3, 1)
_MIDNIGHT = datetime(1899, 12, 30, tzinfo=UTC)


class Workbook:
    """A workbook on its way. Every method gives the bytes that come next; `state` after `pause` is JSON."""

    content_type = f"{_TYPE}.sheet"
    extension = "xlsx"

    def __init__(self, columns: Sequence[Column], state: Mapping[str, Any] | None = None) -> None:
        found = state or {}
        self._zip = Zip(found.get("zip"))
        self._row: int = found.get("row", 0)
        self._columns = columns
        letters = [letters_of(i) for i in range(len(columns))]
        self._cells = [
            (letter, column.of, _cell_of(column)) for letter, column in zip(letters, columns, strict=True)
        ]

    def begin(self) -> bytes:
        """Everything up to the header."""
        out = []
        for name, content in _PARTS.items():
            out += [self._zip.begin(name), self._zip.write((_XML + content).encode()), self._zip.end()]
        self._row = 1
        cells = "".join(
            f'<c r="{letter}1" t="inlineStr" s="{_HEAD}"><is>{_text(column.label)}</is></c>'
            for (letter, _, _), column in zip(self._cells, self._columns, strict=True)
        )
        out += [
            self._zip.begin(_SHEET),
            self._zip.write(f'{_HEAD_OF_SHEET}<row r="1">{cells}</row>'.encode()),
        ]
        return b"".join(out)

    def rows(self, found: Iterable[Any]) -> bytes:
        """A row for each: a Person, or what else the columns read. Raises SheetTooLong, WorkbookTooLarge."""
        out: list[str] = []
        for each in found:
            self._row += 1
            if self._row > MOST_ROWS + 1:
                raise SheetTooLong(most=MOST_ROWS)
            number = str(self._row)
            out.append(f'<row r="{number}">')
            for letter, of, cell in self._cells:
                value = of(each)
                if value is not None and value != "":
                    out.append(cell(letter + number, value))
            out.append("</row>")
        return self._packed(lambda: self._zip.write("".join(out).encode()))

    def pause(self) -> bytes:
        """Makes `state` a place to go on from."""
        return self._packed(self._zip.pause)

    @property
    def state(self) -> dict[str, Any]:
        """Where it is, after `pause`."""
        return {"zip": self._zip.state, "row": self._row}

    def end(self) -> bytes:
        """The end of the file."""
        return self._packed(
            lambda: self._zip.write(_END_OF_SHEET.encode()) + self._zip.end() + self._zip.finish()
        )

    @staticmethod
    def _packed(work: Callable[[], bytes]) -> bytes:
        try:
            return work()
        except TooLarge:
            raise WorkbookTooLarge from None


def letters_of(index: int) -> str:
    """The name of a column, counted from 0: A, …, Z, AA, …"""
    found = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        found = chr(65 + rest) + found
    return found


def _cell_of(column: Column) -> Callable[[str, Any], str]:
    """What makes the cell of a value at a place."""
    if column.kind is Kind.MONEY:
        style = _MONEY if column.digits == 2 else 0
        return lambda at, value: f'<c r="{at}" s="{style}"><v>{decimal(value, column.digits)}</v></c>'
    return _CELLS[column.kind]


def decimal(minor: int, digits: int) -> str:
    """An amount of minor units as a decimal number."""
    if not digits:
        return str(minor)
    sign = "-" if minor < 0 else ""
    text = str(abs(minor)).rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}"


def _text_cell(at: str, value: Any) -> str:
    text = str(value)
    style = f' s="{_QUOTED}"' if risky(text) else ""
    return f'<c r="{at}" t="inlineStr"{style}><is>{_text(text)}</is></c>'


def _list_cell(at: str, value: Any) -> str:
    return _text_cell(at, ", ".join(value)) if value else ""


def _number_cell(at: str, value: Any) -> str:
    return f'<c r="{at}"><v>{value!r}</v></c>'


def _boolean_cell(at: str, value: Any) -> str:
    return f'<c r="{at}" t="b"><v>{int(value)}</v></c>'


def _date_cell(at: str, value: Any) -> str:
    day = date.fromisoformat(value)
    if day < _FIRST:  # Excel believes in a 29th of February 1900
        return _text_cell(at, value)
    return f'<c r="{at}" s="{_DATE}"><v>{(day - _EPOCH).days}</v></c>'


def _instant_cell(at: str, value: Any) -> str:
    since = value.astimezone(UTC) - _MIDNIGHT
    if value.date() < _FIRST:
        return _text_cell(at, value.isoformat())
    return f'<c r="{at}" s="{_INSTANT}"><v>{since.days + since.seconds / 86400:.10g}</v></c>'


_CELLS: Mapping[Kind, Callable[[str, Any], str]] = {
    Kind.TEXT: _text_cell,
    Kind.LIST: _list_cell,
    Kind.NUMBER: _number_cell,
    Kind.BOOLEAN: _boolean_cell,
    Kind.DATE: _date_cell,
    Kind.INSTANT: _instant_cell,
}


def _text(text: str) -> str:
    """A text as an element of a cell; what is beyond a cell's length is cut."""
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS]
    if _SPECIAL.search(text):
        text = escape(_NOT_XML.sub(lambda found: f"_x{ord(found[0]):04X}_", text))
    keep = ' xml:space="preserve"' if text != text.strip() or "\n" in text else ""
    return f"<t{keep}>{text}</t>"
