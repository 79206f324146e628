"""Templates to fill in: a file with the headers that are understood, example rows and explanations."""

import csv
import io
from collections.abc import Mapping

import xlsxwriter

from services.customers.businesses.rules import BOOLEAN, CHOICE, DATE, NUMBER, AttributeDefinition
from services.customers.imports import targets
from services.customers.imports.targets import Target

CSV, XLSX = "csv", "xlsx"
FORMS = (CSV, XLSX)
_REQUIRED: Mapping[int, frozenset[str]] = {
    targets.CUSTOMERS: frozenset(),
    targets.ORDERS: frozenset({"order.external_id", "order.placed_at"}),
    targets.CUSTOMERS_AND_ORDERS: frozenset({"order.external_id", "order.placed_at"}),
    targets.BALANCES: frozenset({"balance.points"}),
}
_ANY_OF = ("email", "phone", "external_id", "id")
# The second row of the example order: another line of it. What only the first row says of the order is empty.
_SECOND_LINE = {
    "order.external_id": "1001",
    "item.sku": "CUP-02",
    "item.name": "Cup",
    "item.category": "Dishes",
    "item.brand": "Leaf",
    "item.quantity": "1",
    "item.unit_price": "7.00",
}
# Its amounts add up: 2 × 12.50 + 7.00 − 5.00 + 4.90.
_TOTALS = {"order.total": "31.90", "order.tax": "", "order.refunded": ""}
_SECOND_CUSTOMER = {
    "customer.external_id": "C-1002",
    "customer.email": "sam.hill@example.com",
    "customer.first_name": "Sam",
    "customer.last_name": "Hill",
}
_SECOND_BALANCE = {
    "customer.external_id": "C-1001",
    "balance.points": "100",
    "balance.expires_at": "2031-06-30",
}
_SECONDS: Mapping[int, Mapping[str, str]] = {
    targets.CUSTOMERS: _SECOND_CUSTOMER,
    targets.ORDERS: _SECOND_LINE,
    targets.CUSTOMERS_AND_ORDERS: _SECOND_LINE,
    targets.BALANCES: _SECOND_BALANCE,
}


def template(kind: int, form: str, attributes: Mapping[str, AttributeDefinition] | None = None) -> bytes:
    """The template of an ImportKind as CSV (UTF-8 with a mark, for spreadsheets) or XLSX, in FORMS.

    `attributes` are those that the business declared: they have columns of their own.
    """
    columns = list(targets.targets(kind, attributes or {}).values())
    rows = [[target.label for target in columns], *_examples(kind, columns)]
    return _xlsx(kind, columns, rows) if form == XLSX else _csv(rows)


def _examples(kind: int, columns: list[Target]) -> list[list[str]]:
    first = {target.name: target.example or _of_attribute(target) for target in columns}
    if kind in targets.OF_ORDERS:
        first |= {name: text for name, text in _TOTALS.items() if name in first}
    return [[each.get(target.name, "") for target in columns] for each in (first, _SECONDS[kind])]


def _of_attribute(target: Target) -> str:
    definition = target.attribute
    if definition is None:
        return ""
    examples = {NUMBER: "1", BOOLEAN: "yes", DATE: "2026-01-31", CHOICE: next(iter(definition.choices), "")}
    return examples.get(definition.type, "")


def _csv(rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8-sig")


def _xlsx(kind: int, columns: list[Target], rows: list[list[str]]) -> bytes:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(
        out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    )
    text = book.add_format({"num_format": "@"})  # so that phones and ids keep their zeros
    bold = book.add_format({"bold": True, "num_format": "@"})
    wrapped = book.add_format({"text_wrap": True, "valign": "top"})
    sheet = book.add_worksheet("Data")
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, len(columns) - 1, 18, text)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell:
                sheet.write_string(i, j, cell, text if i else bold)
    about = book.add_worksheet("Explanations")
    about.set_column(0, 1, 24, wrapped)
    about.set_column(2, 2, 80, wrapped)
    about.write_row(0, 0, ["Column", "Needed", "What it takes"], bold)
    for i, target in enumerate(columns, 1):
        about.write_row(i, 0, [target.label, _needed(kind, target), target.help])
    about.write_string(
        len(columns) + 2, 0, "Delete the example rows. Columns may be left out, moved and renamed."
    )
    book.close()
    return out.getvalue()


def _needed(kind: int, target: Target) -> str:
    prefix, _, name = target.name.rpartition(".")
    if target.name in _REQUIRED[kind]:
        return "yes"
    return "one of these" if name in _ANY_OF and prefix in ("customer", "order.customer") else ""
