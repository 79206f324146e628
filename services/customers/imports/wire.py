"""Imports to messages; what a request says about how a file is read."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import Row

from libs import jobs_service
from libs.instants import stamp
from libs.problems import Faults
from regulars.customers.v1 import imports_pb2 as pb
from services.customers.imports.mapping import Column
from services.customers.imports.queries import Import, Plan
from services.customers.imports.reading import Layout
from services.customers.imports.rows import RowError
from services.customers.imports.rules import ANY, AT_WORK, SKIP, State
from services.customers.imports.tables import COUNTS

_FORMATS = {
    "csv": pb.IMPORT_FILE_FORMAT_CSV,
    "xlsx": pb.IMPORT_FILE_FORMAT_XLSX,
    "jsonl": pb.IMPORT_FILE_FORMAT_JSONL,
    "json": pb.IMPORT_FILE_FORMAT_JSON,
}
FORMAT_NAMES = {number: name for name, number in _FORMATS.items()}
CHANGEABLE = ("layout", "columns", "constants", "duplicates", "match_by", "source")
_LAYOUT = ("encoding", "delimiter", "quote", "has_header", "sheet")
DEFAULT_SOURCE = "import"


def paths_of(message: pb.Import, mask: FieldMask) -> frozenset[str]:
    """The fields that a change names: the present ones if the mask is empty. Raises InvalidArgument."""
    if not mask.paths:
        return frozenset(d.name for d, _ in message.ListFields() if d.name in CHANGEABLE)
    if list(mask.paths) == ["*"]:
        return frozenset(CHANGEABLE)
    faults = Faults()
    for path in mask.paths:
        if path not in CHANGEABLE:
            faults.add("update_mask", f"{path} cannot be written")
    faults.refuse()
    return frozenset(mask.paths)


def layout_of(message: pb.ImportLayout, before: Layout) -> Layout:
    """The layout as the message wants it; empty text stays as it was, but for `quote`, which may be none."""
    values: dict[str, Any] = {name: getattr(message, name) or getattr(before, name) for name in _LAYOUT}
    values["has_header"] = message.has_header if message.HasField("has_header") else before.has_header
    return replace(before, **values)


def columns_of(messages: Iterable[pb.ImportColumn], before: Iterable[Column]) -> tuple[Column, ...]:
    """The columns once those that are named have changed; places that the file has not are kept, to be refused."""
    found = {column.index: column for column in before}
    for message in messages:
        known = found.get(message.index, Column(message.index, message.name))
        found[message.index] = replace(
            known,
            target=message.target,
            confidence=1.0,
            why="chosen",
            date_order=message.date_order or known.date_order,
            decimal=message.decimal or known.decimal,
        )
    return tuple(found[index] for index in sorted(found))


def imported(
    mine: Import, now: datetime, *, same_file_as: UUID | None = None, whole: bool = True
) -> pb.Import:
    """The message of an import; without `whole` layout and columns are left out."""
    row, plan = mine.row, mine.plan
    message = pb.Import(
        id=str(row.import_id),
        business_id=str(row.business_id),
        kind=row.kind,
        state=int(mine.state),  # type: ignore[arg-type]  # the number of the enum
        source=row.source,
        file_name=plan.file_name,
        file_size=row.file_size,
        duplicates=row.duplicates,
        match_by=row.match_by,
        dry_run=row.dry_run,
        progress=progress(mine, now),
        same_file_as=str(same_file_as or ""),
        created_by=row.created_by,
        created_at=stamp(row.created_at),
        started_at=stamp(row.started_at),
        finished_at=stamp(mine.finished_at),
        file_expires_at=stamp(row.file_expires_at if _later(row.file_expires_at, now) else None),
        undo_until=stamp(mine.undo_until if _later(mine.undo_until, now) else None),
        etag=str(row.version),
    )
    if mine.job is not None:
        message.job.CopyFrom(jobs_service.message(mine.job))
    if whole:
        message.layout.CopyFrom(_layout(plan.layout))
        message.columns.extend(map(_column, plan.mapping.columns))
        message.constants.extend(
            pb.ImportConstant(target=target, value=value)
            for target, value in sorted(plan.mapping.constants.items())
        )
    return message


def _later(instant: datetime | None, now: datetime) -> bool:
    return instant is not None and instant > now


def _layout(layout: Layout) -> pb.ImportLayout:
    return pb.ImportLayout(
        format=_FORMATS[layout.format],
        encoding=layout.encoding,
        delimiter=layout.delimiter,
        quote=layout.quote,
        has_header=layout.has_header,
        sheet=layout.sheet,
        notes=layout.notes,
    )


def _column(column: Column) -> pb.ImportColumn:
    return pb.ImportColumn(
        index=column.index,
        name=column.name,
        target=column.target,
        confidence=column.confidence,
        why=column.why,
        date_order=column.date_order,
        decimal=column.decimal,
    )


def progress(mine: Import, now: datetime) -> pb.ImportProgress:
    """How far an import is. The rate is that of the running try, or of the last one."""
    row, state = mine.row, mine.state
    until = mine.finished_at or now
    seconds = (until - row.try_began_at).total_seconds() if row.try_began_at else 0.0
    rate = max(0, row.rows_done - row.try_began_rows) / seconds if seconds > 0 else 0.0
    left = None
    if state is State.RUNNING and row.rows_total is not None and rate:
        left = int(max(0, row.rows_total - row.rows_done) / rate)
    return pb.ImportProgress(
        state=int(state),  # type: ignore[arg-type]
        rows_total=row.rows_total,
        rows_done=row.rows_done,
        rows_per_second=round(rate, 1),
        seconds_remaining=left,
        conflicts=row.conflicts,
        **{name: getattr(row, name) for name in COUNTS},
    )


def ended(state: State) -> bool:
    """True if nothing more happens by itself."""
    return state not in AT_WORK


def error(row: Row[Any], plan: Plan) -> pb.ImportError:
    """The message of an error; the column's name comes from the plan."""
    names = {column.index: column.name for column in plan.mapping.columns}
    return pb.ImportError(
        row=row.row,
        column=names.get(row.column_index, ""),
        field=row.field,
        reason=row.reason,
        expected=row.expected,
        customer_id=str(row.customer_id or ""),
        order_id=str(row.order_id or ""),
    )


def row_error(found: RowError) -> pb.ImportError:
    """The message of an error that was just found."""
    return pb.ImportError(
        row=found.row, column=found.name, field=found.field, reason=found.reason, expected=found.expected
    )


def policy(given: int, saved: int | None) -> int:
    """The duplicate policy that holds."""
    return given or saved or SKIP


def match_by(given: int, saved: int | None) -> int:
    """What tells that a customer is known."""
    return given or saved or ANY
