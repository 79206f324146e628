"""Records to what the domain takes: customers as CreateCustomer would take them, orders as RecordOrder would."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from services.customers.addresses.rules import Place
from services.customers.businesses.rules import AttributeDefinition
from services.customers.imports.mapping import Mapping as Columns
from services.customers.imports.reading import Record
from services.customers.orders.wire import ToldOrder
from services.customers.profiles.wire import Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The business that the rows are read for. `content_key` is the key of its orders' fingerprints."""

    business_id: UUID
    currency: str
    country: str
    time_zone: str
    attributes: Mapping[str, AttributeDefinition] = field(default_factory=dict)
    source: str = "csv"
    content_key: bytes = b""
    now: datetime


@dataclass(frozen=True, slots=True)
class RowError:
    """What is wrong with a cell or a row. `column` counts from 1, 0 is the whole row; never holds the value."""

    row: int
    column: int
    name: str
    field: str
    reason: str
    expected: str


@dataclass(slots=True)
class Parsed:
    """What one row tells, or the rows `row` to `last_row` of one order.

    `customer.paths` are the fields that the row holds; the others are as they are in a new customer. An order
    without a revision of its own (`revised` False) is new if its `told.content` is: its `told.revision` is 1.
    """

    row: int
    last_row: int
    customer: Written | None = None
    place: Place | None = None
    order: ToldOrder | None = None
    revised: bool = False


@dataclass(slots=True)
class Refused:
    """The rows `row` to `last_row`, and everything that is wrong with them."""

    row: int
    last_row: int
    errors: list[RowError]


class RowReader:
    """Reads the rows of one file. Rows of one order that follow each other are read as one."""

    def __init__(self, kind: int, mapping: Columns, facts: Facts) -> None:
        self.kind, self.mapping, self.facts = kind, mapping, facts

    def read(self, records: Iterable[Record]) -> Iterator[Parsed | Refused]:
        """What the records tell, in their order. After each, all rows up to its `last_row` are dealt with."""
        for record in records:
            yield Refused(record.row, record.row, [])


def onto(before: Written, told: Written) -> Written:
    """What a customer becomes when a row is written over it: only what the row holds changes."""
    return replace(before, paths=told.paths)
