"""How a file of rows is laid out, and what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

CSV, XLSX, JSONL, JSON = "csv", "xlsx", "jsonl", "json"
FORMATS = (CSV, XLSX, JSONL, JSON)

MAX_COLUMNS = 1_000
MAX_NAME = 200  # characters of a column's name that are kept


class Number(str):
    """A cell that is a number in the file itself (Excel, JSON): plain digits, "." before decimals, no exponent."""

    __slots__ = ()


class BadCell(str):
    """A cell without a value, and why: an Excel error, a formula that was never calculated. Its text is ""."""

    __slots__ = ("expected", "reason")

    reason: str
    expected: str

    def __new__(cls, reason: str, expected: str) -> "BadCell":
        cell = super().__new__(cls, "")
        cell.reason, cell.expected = reason, expected
        return cell


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a file. `format` is one of FORMATS; what does not belong to the format is "".

    `encoding` is a Python codec's name; `quote` is "" where nothing is quoted. `sheet` is the name of one sheet.
    `keys` are the columns of a JSON file in the order in which they first came. `notes` tell the person what was
    noticed, and never hold a value of the file.
    """

    format: str
    encoding: str = ""
    delimiter: str = ""
    quote: str = '"'
    has_header: bool = True
    sheet: str = ""
    keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for storing."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Layout":
        """The layout that `to_json` gave. Fields that this version does not know are left out."""
        names = {f.name for f in fields(cls)}
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in stored.items() if n in names
        }
        return cls(**values)


@dataclass(frozen=True, slots=True)
class RecordFault:
    """Why a row cannot be read at all. `column` counts from 0; None: the row as a whole."""

    reason: str
    expected: str
    column: int | None = None


@dataclass(slots=True)
class Record:
    """One row. `row` is its number as a spreadsheet shows it (the header is 1; in JSON the line or element).

    `cells` has one text for each column of the file; "" is an empty one. With a `fault` they are as far as they
    could be read, for showing only.
    """

    row: int
    cells: Sequence[str]
    fault: RecordFault | None = None


def distinct(names: Sequence[str]) -> tuple[list[str], int]:
    """The names with doubles numbered ("Name (2)") and blanks called "Column 3"; and how many were doubles."""
    seen: set[str] = set()
    taken = {name.strip() for name in names}
    result, doubles = [], 0
    for i, given in enumerate(names, 1):
        name = " ".join(given.replace("\x00", "").split())[:MAX_NAME] or f"Column {i}"
        unique, n = name, 1
        while unique in seen or (n > 1 and unique in taken):
            n += 1
            unique = f"{name} ({n})"
        doubles += n > 1
        seen.add(unique)
        result.append(unique)
    return result, doubles
