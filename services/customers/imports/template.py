"""Templates to fill in: a file with the headers that are understood, an example and explanations."""

import csv
import io

from services.customers.imports import targets

CSV, XLSX = "csv", "xlsx"


def template(kind: int, form: str) -> bytes:
    """The template of an ImportKind as CSV (UTF-8 with BOM, for spreadsheets) or XLSX."""
    out = io.StringIO()
    csv.writer(out).writerow([target.label for target in targets.of_kind(kind).values()])
    return out.getvalue().encode("utf-8-sig")
