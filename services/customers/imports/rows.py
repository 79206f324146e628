"""Records to what the domain takes: customers as CreateCustomer would take them, orders as RecordOrder would."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from libs.instants import stamp
from libs.problems import Faults, Violation
from regulars.customers.v1 import customers_pb2, orders_pb2
from regulars.type.v1.money_pb2 import Money
from services.customers.addresses.rules import Place
from services.customers.businesses.rules import AttributeDefinition
from services.customers.imports import balances, places, targets, values
from services.customers.imports.balances import Brought
from services.customers.imports.mapping import Column
from services.customers.imports.mapping import Mapping as Columns
from services.customers.imports.reading import BadCell, Record
from services.customers.imports.targets import Target
from services.customers.imports.values import CellWrong, Reader
from services.customers.orders.wire import House, ToldOrder, told_order
from services.customers.profiles.rules import Profile, Source, Standing, with_tags
from services.customers.profiles.wire import Written

MAX_ITEMS = 500  # of one order, as the contract says
MAX_TAGS, MAX_ORDER_TAGS, MAX_CATEGORIES = 100, 50, 50
MAX_QUANTITY = 1_000_000
DEFAULT_ORDER_STATUS = orders_pb2.ORDER_STATUS_PAID  # of orders in a file that tells no status
_FINDING = ("email", "phone", "external_id")
# Scripts in which the family name comes first, or names are not apart.
_NOT_SPLIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# What the only item of an order costs follows from these, unless they are wrong.
_TELL_ALL = ("order.subtotal", "order.total")
_INDEX = re.compile(r"order\.items\[(\d+)\]\.?")
_SUMS = ("subtotal", "discount", "shipping", "tax", "total", "refunded")
_TEXTS = ("channel", "store")
_VERIFIED = ("email_verified", "phone_verified")


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
    """What is wrong with a cell or a row. `column` counts from 1, 0 is the whole row; never holds the value.

    `field` is the path that the RPCs would report.
    """

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
    without a revision of its own (`revised` False) is another one if its `told.content` is; `told.revision` is 1.
    `place` is the customer's default address, `brought` are the points of a row of those.
    """

    row: int
    last_row: int
    customer: Written | None = None
    order: ToldOrder | None = None
    revised: bool = False
    place: Place | None = None
    brought: Brought | None = None


@dataclass(slots=True)
class Refused:
    """The rows `row` to `last_row`, and everything that is wrong with them."""

    row: int
    last_row: int
    errors: list[RowError]


class _Cell:
    """How the cells of one column are read."""

    __slots__ = ("attribute", "column", "index", "key", "name", "read", "target")

    def __init__(self, column: Column, target: Target, read: Reader) -> None:
        self.index, self.name, self.target, self.read, self.column = (
            *(column.index, column.name, target.name, read),
            target.field,
        )
        self.attribute = target.attribute
        self.key = target.name.rpartition(".")[2]


class RowReader:
    """Reads the rows of one file. Rows of one order that follow each other are read as one, if items have columns.

    Raises InvalidArgument if a constant of the mapping is wrong.
    """

    def __init__(self, kind: int, mapping: Columns, facts: Facts) -> None:
        self.kind, self.facts = kind, facts
        known = targets.targets(kind, facts.attributes)
        self._zone = ZoneInfo(facts.time_zone)
        self._house = House(facts.business_id, facts.currency, facts.country, facts.now, facts.content_key)
        cells = [
            _Cell(column, known[column.target], self._reader(known[column.target], column))
            for column in mapping.columns
            if column.target in known
        ]
        self._columns = {cell.target: cell for cell in cells}
        self._by_field = {cell.column: cell for cell in cells}
        whose = ("customer.", targets.ATTRIBUTE_PREFIX, places.PREFIX)
        self._customer = [c for c in cells if c.target.startswith(whose)]
        self._order = [c for c in cells if c.target.startswith("order.")]
        self._balance = [c for c in cells if c.target.startswith("balance.")]
        self._items = [c for c in cells if c.target.startswith("item.")]
        self._id = self._columns.get("order.external_id")
        self._constants = self._of_constants(known, mapping.constants)
        self._paths: dict[tuple[str, ...], frozenset[str]] = {}
        told = self._columns.keys() | self._constants.keys()
        self._places = any(name.startswith(places.PREFIX) for name in told)
        # Where no row names a country they are in the business's own.
        self._country = "" if "address.country" in told else facts.country

    def read(self, records: Iterable[Record]) -> Iterator[Parsed | Refused]:
        """What the records tell, in their order. After each, all rows up to its `last_row` are dealt with."""
        if self._items and self._id is not None:
            yield from self._in_groups(records, self._id)
            return
        for record in records:
            yield self._one(record)

    def _one(self, record: Record) -> Parsed | Refused:
        row = record.row
        if record.fault is not None:
            fault = record.fault
            return Refused(row, row, [RowError(row, 0, "", "", fault.reason, fault.expected)])
        errors: list[RowError] = []
        parsed = self._read(record, (record,) if self._items else (), errors)
        return Refused(row, row, errors) if errors else parsed

    # --- how cells are read ---

    def _reader(self, target: Target, column: Column) -> Reader:
        facts, today, order = self.facts, self.facts.now.date(), column.date_order
        readers: dict[str, Callable[[], Reader]] = {
            targets.TEXT: lambda: values.text(target.most),
            targets.SOURCE_ID: lambda: values.text(target.most),
            targets.EMAIL: lambda: values.email(target.most),
            # The phone of an order's buyer is judged with the order.
            targets.PHONE: lambda: (
                values.text(target.most)
                if target.name.startswith("order.")
                else values.phone(facts.country, target.most)
            ),
            targets.BIRTH_DATE: lambda: values.birth_date(order, today),
            targets.LANGUAGE: lambda: values.language(target.most),
            targets.TIME_ZONE: lambda: values.time_zone(target.most),
            targets.BOOLEAN: lambda: values.boolean,
            targets.TAGS: lambda: values.tags(target.most, _most_items(target)),
            targets.AMOUNT: lambda: values.amount(facts.currency, column.decimal),
            targets.INTEGER: lambda: values.integer(column.decimal, 1, MAX_QUANTITY),
            targets.POINTS: lambda: values.integer(column.decimal, 0, balances.MOST_POINTS),
            targets.EXPIRY: lambda: values.expiry(self._zone, order, facts.now),
            targets.CUSTOMER_UUID: lambda: values.identifier,
            targets.MOMENT: lambda: values.moment(self._zone, order, today),
            targets.CURRENCY: lambda: self._currency,
            targets.COUNTRY: values.country,
            targets.STREET: lambda: values.street(target.most),
            targets.CUSTOMER_STATUS: values.customer_status,
            targets.CUSTOMER_TYPE: values.customer_type,
            targets.ORDER_STATUS: values.order_status,
            targets.REVISION: lambda: values.revision(self._zone, order),
        }
        if target.attribute is not None:
            return values.attribute(target.attribute, column.decimal, order, today)
        return readers[target.reads]()

    def _currency(self, given: str) -> str:
        if given.strip().upper() != self.facts.currency:
            raise CellWrong("CURRENCY_MISMATCH", f"must be {self.facts.currency}")
        return self.facts.currency

    def _of_constants(self, known: Mapping[str, Target], constants: Mapping[str, str]) -> dict[str, object]:
        faults = Faults()
        found: dict[str, object] = {}
        for name, text in constants.items():
            if name in known and text.strip():
                try:
                    found[name] = self._reader(known[name], Column(0, ""))(text)
                except CellWrong as wrong:
                    faults.add(f"mapping.constants.{name}", wrong.expected, wrong.reason)
        faults.refuse()
        return found

    def _values(self, record: Record, cells: list[_Cell], errors: list[RowError]) -> dict[str, Any]:
        """The values of the cells that hold something, by target."""
        found: dict[str, Any] = {}
        row_cells = record.cells
        for cell in cells:
            text = row_cells[cell.index]
            if not text or text.isspace():
                if type(text) is BadCell:
                    errors.append(self._error(record.row, cell, text.reason, text.expected))
                continue
            try:
                found[cell.target] = cell.read(text)
            except CellWrong as wrong:
                errors.append(self._error(record.row, cell, wrong.reason, wrong.expected))
        return found

    def _error(self, row: int, cell: _Cell, reason: str, expected: str) -> RowError:
        return RowError(row, cell.index + 1, cell.name, cell.column, reason, expected)

    # --- rows ---

    def _read(self, record: Record, lines: Iterable[Record], errors: list[RowError]) -> Parsed:
        """What a record tells, and of an order its lines; `errors` is filled with all that is wrong."""
        parsed = Parsed(record.row, record.row)
        given: dict[str, Any] = {}
        if self.kind == targets.BALANCES:
            cells = [*self._customer, *self._balance]
            parsed.brought = self._brought(
                record.row, self._constants | self._values(record, cells, errors), errors
            )
            return parsed
        if self._customer:
            given = {**self._constants, **self._values(record, self._customer, errors)}
            parsed.customer = self._written(record.row, given, errors)
            if self._places:
                parsed.place = self._place(record.row, given, errors)
        if self.kind in targets.OF_ORDERS:
            parsed.order, parsed.revised = self._told(record, lines, given, errors)
        return parsed

    def _written(self, row: int, given: dict[str, Any], errors: list[RowError]) -> Written:
        person: dict[str, Any] = {}
        handles: dict[str, str] = {}
        clear: dict[str, object] = {}
        personal: dict[str, object] = {}
        keys = []
        for target, value in given.items():
            if target.startswith("customer."):
                name = target[9:]
                if name in _PERSON:
                    person[name] = value
                elif name.startswith("handles."):
                    name = name[8:]
                    handles[name] = value.removeprefix("@")
                    name = f"handles.{name}"
                elif name == "external_id":
                    name = "sources"
                keys.append(name)
            elif target.startswith(targets.ATTRIBUTE_PREFIX):
                name = target[len(targets.ATTRIBUTE_PREFIX) :]
                (clear if self.facts.attributes[name].not_personal else personal)[name] = value
                keys.append(f"attributes.{name}")
        if handles:
            person["handles"] = handles
        if "full_name" in person:
            self._split(person, keys)
        external_id = given.get("customer.external_id", "")
        kind = given.get("customer.type") or customers_pb2.CUSTOMER_TYPE_REGISTERED
        if (
            not (external_id or "email" in person or "phone" in person)
            and kind != customers_pb2.CUSTOMER_TYPE_GUEST
        ):
            self._nobody(row, "customer.", errors)
        key = tuple(keys)
        paths = self._paths.get(key)
        if paths is None:
            if len(self._paths) > 10_000:
                self._paths.clear()
            paths = self._paths[key] = frozenset(key)
        return Written(
            Profile(**person),
            Standing(
                status=given.get("customer.status") or customers_pb2.CUSTOMER_STATUS_ACTIVE,
                type=kind,
                tags=given.get("customer.tags", ()),
                attributes=clear,
                personal=personal,
                sources=(Source(self.facts.source, external_id),) if external_id else (),
            ),
            email_verified=given.get("customer.email_verified", False) and "email" in person,
            phone_verified=given.get("customer.phone_verified", False) and "phone" in person,
            paths=paths,
        )

    def _brought(self, row: int, given: dict[str, Any], errors: list[RowError]) -> Brought | None:
        """The points of a row; None if something is wrong with it."""
        if "customer.id" not in given and not any(f"customer.{name}" in given for name in _FINDING):
            self._nobody(row, "customer.", errors)
        wrong = {error.field for error in errors}
        for target, reason, expected in balances.faults(given, wrong, self.facts.now):
            cell = self._columns.get(target)
            errors.append(
                self._error(row, cell, reason, expected)
                if cell
                else RowError(row, 0, "", target, reason, expected)
            )
        return None if errors else balances.brought(given)

    def _place(self, row: int, given: dict[str, Any], errors: list[RowError]) -> Place | None:
        wrong = {error.field for error in errors if error.row == row}
        if wrong & {"address.country", "address.street_lines"}:
            return None  # the rest cannot be judged
        place, faults = places.place_of(given, self._country)
        for part, why in faults.items():
            name = f"{places.PREFIX}{part}"
            if name not in wrong:
                cell, reason = self._columns.get(name), places.reason(why)
                errors.append(
                    self._error(row, cell, reason, why) if cell else RowError(row, 0, "", name, reason, why)
                )
        return place

    def _nobody(self, row: int, prefix: str, errors: list[RowError]) -> None:
        """Notes that nothing tells whose the row is, unless what would tell it is wrong itself."""
        named = [cell for name in _FINDING if (cell := self._columns.get(prefix + name))]
        if any(error.row == row and error.column == cell.index + 1 for error in errors for cell in named):
            return
        cell = named[0] if named else None
        errors.append(
            RowError(
                row,
                cell.index + 1 if cell else 0,
                cell.name if cell else "",
                cell.column if cell else prefix + "email",
                "REQUIRED",
                "an e-mail, a phone or an external id is required",
            )
        )

    def _split(self, person: dict[str, Any], keys: list[str]) -> None:
        """A full name apart: "Last, First", or two words; others, and those of East Asia, stay whole.

        Nothing is split where the file has columns for the first or the last name.
        """
        whole = person["full_name"]
        if "first_name" in person or "last_name" in person:
            parts = [person.get("first_name", ""), person.get("last_name", "")]
            if whole == " ".join(parts):
                del person["full_name"]
            return
        if whole.count(",") == 1:
            last, first = (part.strip() for part in whole.split(","))
        elif whole.count(" ") == 1 and not _NOT_SPLIT.search(whole):
            first, last = whole.split(" ")
        else:
            return
        if first and last and len(first) <= 100 and len(last) <= 100:
            del person["full_name"]
            person["first_name"], person["last_name"] = first, last
            keys += ["first_name", "last_name"]

    # --- orders ---

    def _told(
        self, record: Record, lines: Iterable[Record], customer: dict[str, Any], errors: list[RowError]
    ) -> tuple[ToldOrder | None, bool]:
        given = {**self._constants, **self._values(record, self._order, errors)}
        for name in ("order.external_id", "order.placed_at"):
            if name not in given:
                self._required(record.row, name, errors)
        sums: dict[str, Any] = {
            name: Money(amount_minor=given[f"order.{name}"]) for name in _SUMS if f"order.{name}" in given
        }
        message = orders_pb2.Order(
            source=self.facts.source,
            external_id=given.get("order.external_id", ""),
            revision=given.get("order.revision", 0),
            status=given.get("order.status", DEFAULT_ORDER_STATUS),
            channel=given.get("order.channel", ""),
            store=given.get("order.store", ""),
            tax_included=given.get("order.tax_included", False),
            tags=given.get("order.tags", ()),
            **sums,
        )
        placed_at = given.get("order.placed_at")
        if placed_at is not None:
            message.placed_at.CopyFrom(stamp(placed_at))
        buyer = self._buyer(given, customer)
        if buyer:
            for name, text in buyer.items():
                setattr(message.customer, name, text)
        if self.kind == targets.ORDERS and not any(name in buyer for name in _FINDING):
            self._nobody(record.row, "order.customer.", errors)
        rows = []
        before = len(errors)
        lines = list(lines)
        alone = _all_of_one(message) if len(lines) == 1 else None
        for line in lines:
            if item := self._item(line, alone, errors):
                message.items.append(item)
                rows.append(line.row)
        if not message.items and not message.HasField("subtotal") and not message.HasField("total"):
            if len(errors) == before:
                self._required(record.row, "order.total", errors)
            return None, False
        if "order.tax_included" not in self._columns and "order.tax_included" not in self._constants:
            _infer_tax(message)
        faults = Faults()
        told = told_order(message, self._house, faults, ())
        errors += [
            self._of_violation(violation, record.row, rows)
            for violation in faults.found
            if violation.reason != "REQUIRED"
        ]
        return told, "order.revision" in given

    def _buyer(self, given: dict[str, Any], customer: dict[str, Any]) -> dict[str, str]:
        prefix, held = (
            ("customer.", customer)
            if self.kind == targets.CUSTOMERS_AND_ORDERS
            else ("order.customer.", given)
        )
        found = {name: held[key] for name in _BUYER if (key := prefix + name) in held}
        return found

    def _required(self, row: int, target: str, errors: list[RowError]) -> None:
        """Notes that a value is missing, unless it is there and wrong."""
        cell = self._columns.get(target)
        if cell is None:
            errors.append(RowError(row, 0, "", target, "REQUIRED", "is required"))
        elif not any(error.row == row and error.column == cell.index + 1 for error in errors):
            errors.append(self._error(row, cell, "REQUIRED", "is required"))

    def _item(self, line: Record, alone: int | None, errors: list[RowError]) -> orders_pb2.OrderItem | None:
        """The item of a row; None if its cells are empty or wrong. `alone` is what the only item of an order costs."""
        before = len(errors)
        given = self._values(line, self._items, errors)
        if len(errors) > before or not given:
            return None
        quantity = given.get("item.quantity", 1)
        price, discount, total = (given.get(f"item.{name}") for name in ("unit_price", "discount", "total"))
        total = alone if total is None and price is None else total
        if price is None and total is not None:
            # What does not divide evenly is a price above it and a discount of the rest.
            price = -(-(total + (discount or 0)) // quantity)
            discount = quantity * price - total
        if price is None:
            if not any(error.field in _TELL_ALL for error in errors):
                priced = "item.unit_price" if "item.unit_price" in self._columns else "item.total"
                self._required(line.row, priced, errors)
            return None
        item = orders_pb2.OrderItem(
            quantity=quantity,
            unit_price=Money(amount_minor=price),
            sku=given.get("item.sku", ""),
            name=given.get("item.name", ""),
            category=given.get("item.category", ""),
            brand=given.get("item.brand", ""),
        )
        if discount:
            item.discount.amount_minor = discount
        return item

    def _of_violation(self, violation: Violation, row: int, rows: list[int]) -> RowError:
        path = violation.field.removesuffix(".amount_minor").removesuffix(".currency")
        if match := _INDEX.match(path):
            row, path = rows[int(match[1])], "order.items[]." + path[match.end() :]
        elif path.startswith("order.customer.") and self.kind == targets.CUSTOMERS_AND_ORDERS:
            path = path.removeprefix("order.")
        cell = self._by_field.get(path)
        if cell is None:
            return RowError(row, 0, "", path, violation.reason, violation.description)
        return self._error(row, cell, violation.reason, violation.description)

    # --- orders of several rows ---

    def _in_groups(self, records: Iterable[Record], id_cell: _Cell) -> Iterator[Parsed | Refused]:
        group: _Group | None = None
        index = id_cell.index
        for record in records:
            if record.fault is not None and group is not None:
                group.faulty.append(record)
                continue
            key = "" if record.fault is not None else record.cells[index].strip()
            if group is not None and key and key == group.key:
                group.add(record)
                continue
            if group is not None:
                yield from self._close(group)
                group = None
            if key:
                group = _Group(key, record)
            else:
                yield self._one(record)
        if group is not None:
            yield from self._close(group)

    def _close(self, group: "_Group") -> Iterator[Parsed | Refused]:
        """What the rows of an order tell, and after it the rows behind it that cannot be read."""
        first, last = group.records[0], group.last_row
        faults = [_fault_error(record) for record in group.inside]
        errors: list[RowError] = []
        if group.count > MAX_ITEMS:
            errors.append(
                RowError(
                    first.row, 0, "", "order.items", "REPEATED_MAX_ITEMS", f"must be at most {MAX_ITEMS}"
                )
            )
            parsed = Parsed(first.row, last)
        else:
            head = first if len(group.records) == 1 else self._merged(group.records, errors)
            parsed = self._read(head, group.records, errors)
            parsed.last_row = last
        if errors or faults:
            # Every row of it is refused, not only the wrong one, and says so.
            told = {error.row for error in (*errors, *faults)}
            errors += [
                RowError(record.row, 0, "", "order", "ORDER_REFUSED", "another row of the order is wrong")
                for record in group.records
                if record.row not in told
            ]
            yield Refused(first.row, last, sorted((*errors, *faults), key=attrgetter("row", "column")))
        else:
            yield parsed
        yield from (Refused(record.row, record.row, [_fault_error(record)]) for record in group.faulty)

    def _merged(self, records: list[Record], errors: list[RowError]) -> Record:
        """The first row with what only later rows tell of the order; they must not tell otherwise."""
        cells = list(records[0].cells)
        common = [*self._customer, *self._order]
        for record in records[1:]:
            for cell in common:
                text = record.cells[cell.index]
                if text and text != cells[cell.index]:
                    if cells[cell.index]:
                        errors.append(
                            self._error(
                                record.row,
                                cell,
                                "ROW_DIFFERS",
                                "must be empty or as in the order's first row",
                            )
                        )
                    else:
                        cells[cell.index] = text
        return Record(records[0].row, cells)


class _Group:
    """Rows of one order. `faulty` rows came after its last one so far; `inside` are those between its rows."""

    __slots__ = ("count", "faulty", "inside", "key", "last_row", "records")

    def __init__(self, key: str, record: Record) -> None:
        self.key, self.records, self.last_row, self.count = key, [record], record.row, 1
        self.faulty: list[Record] = []
        self.inside: list[Record] = []

    def add(self, record: Record) -> None:
        """Takes in one more row; beyond MAX_ITEMS they are only counted."""
        self.count += 1
        self.last_row = record.row
        room = MAX_ITEMS - len(self.inside)
        self.inside += self.faulty[: max(room, 0)]
        self.faulty.clear()
        if self.count <= MAX_ITEMS:
            self.records.append(record)


def _fault_error(record: Record) -> RowError:
    assert record.fault is not None
    return RowError(record.row, 0, "", "", record.fault.reason, record.fault.expected)


def _all_of_one(message: orders_pb2.Order) -> int | None:
    """What the items of an order cost by its sums, in minor units; None if they do not tell."""
    if message.HasField("subtotal"):
        return message.subtotal.amount_minor
    if not message.HasField("total") or message.HasField("tax"):
        return None
    return message.total.amount_minor - message.shipping.amount_minor + message.discount.amount_minor


def _infer_tax(message: orders_pb2.Order) -> None:
    """Where the file does not tell: the tax is inside the prices if the parts add up only so."""
    tax = message.tax.amount_minor
    if not tax or not message.HasField("total"):
        return
    parts = (
        message.subtotal.amount_minor
        if message.HasField("subtotal")
        else sum(
            item.quantity * item.unit_price.amount_minor - item.discount.amount_minor
            for item in message.items
        )
    )
    if not parts and not message.items:
        return
    parts += message.shipping.amount_minor - message.discount.amount_minor
    message.tax_included = message.total.amount_minor == parts


def _most_items(target: Target) -> int:
    if target.name == "order.tags":
        return MAX_ORDER_TAGS
    return MAX_TAGS if target.name == "customer.tags" else MAX_CATEGORIES


_PERSON = frozenset(Profile.__slots__) - {"handles"}
_BUYER = ("external_id", "email", "phone", "first_name", "last_name")


def onto(before: Written, told: Written) -> Written:
    """What a customer becomes when a row is written over it: only what the row holds changes.

    Tags, preferred categories, handles, attributes and sources are added to those that are there.
    """
    paths = told.paths
    changed: dict[str, Any] = {name: getattr(told.profile, name) for name in _PERSON & paths}
    if told.profile.handles:
        changed["handles"] = {**before.profile.handles, **told.profile.handles}
    if "preferred_categories" in paths:
        both = (*before.profile.preferred_categories, *told.profile.preferred_categories)
        changed["preferred_categories"] = tuple(dict.fromkeys(both))[:MAX_CATEGORIES]
    if {"first_name", "last_name"} & paths and "full_name" not in changed:
        changed["full_name"] = ""  # the old one may be of another name
    old, new = before.standing, told.standing
    known = {(source.name, source.external_id) for source in old.sources}
    standing = replace(
        old,
        status=new.status if "status" in paths else old.status,
        type=new.type if "type" in paths else old.type,
        tags=with_tags(old.tags, new.tags) if "tags" in paths else old.tags,
        attributes={**old.attributes, **new.attributes},
        personal={**old.personal, **new.personal},
        sources=(*old.sources, *(s for s in new.sources if (s.name, s.external_id) not in known)),
    )
    profile = replace(before.profile, **changed)
    flags: dict[str, Any] = {
        flag: getattr(told, flag)
        if flag in paths
        else getattr(before, flag) and getattr(profile, flag[:5]) == getattr(before.profile, flag[:5])
        for flag in _VERIFIED
    }
    return Written(profile, standing, paths=paths, **flags)
