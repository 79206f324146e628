"""Writes about imports as a whole: uploaded, changed, started, stopped, taken back, given up."""

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, delete, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from libs import envelope, jobs
from libs.crypto import TenantKeys, live_versions
from libs.crypto import tables as crypto
from libs.db import Tx
from libs.outbox import emit
from libs.problems import EtagMismatch
from libs.sealed_files import FileGone, Files, Kept
from regulars.customers.v1 import events_pb2 as events
from services.customers.imports import rules
from services.customers.imports.queries import SEALED, Import, Plan, may_have_written
from services.customers.imports.rules import AT_WORK, BEFORE_START, STOPPED, State
from services.customers.imports.tables import COUNTS, import_errors, import_mappings, import_rows, imports
from services.customers.problems import ImportDone, ImportStarted, NothingToUndo, UndoTooLate

RUN, UNDO = "import", "undo_import"
MOST_TRIES = 25
# Nothing can be undone so long after its upload: the file is kept for 7 days, and an undo is possible for 7 more.
LONG_OVER = timedelta(days=21)
_i = imports.c


async def create_import(
    tx: Tx,
    keys: TenantKeys,
    business: Row[Any],
    import_id: UUID,
    source: str,
    file: Kept,
    plan: Plan,
    duplicates: int,
    match_by: int,
) -> None:
    """Notes an uploaded file as an import that can be started."""
    live = await live_versions(tx)
    key_row, key = keys.new_subject_key(live, import_id, tx.now)
    await tx.execute(insert(crypto.subject_keys).values(key_row._asdict()))
    none: dict[str, int] = dict.fromkeys(("rows_done", "last_row", "try_began_rows", "conflicts", *COUNTS), 0)
    await tx.execute(
        insert(imports).values(
            tenant_id=tx.tenant_id,
            import_id=import_id,
            business_id=business.business_id,
            kind=plan.mapping.kind,
            state=int(State.UPLOADED),
            source=source,
            key_id=key_row.key_id,
            sealed=keys.seal(key, SEALED, import_id, plan.to_json()),
            file_id=file.file_id,
            file_size=file.size,
            file_digest=file.digest,
            file_expires_at=file.expires_at,
            duplicates=duplicates,
            match_by=match_by,
            dry_run=False,
            version=1,
            created_by=envelope.actor_of(tx.caller),
            created_at=tx.now,
            updated_at=tx.now,
            **none,
        )
    )


def columns_digest(keys: TenantKeys, names: Sequence[str]) -> bytes:
    """Equal for files of the same columns. Keyed: a file without a header has values for names."""
    return hmac.digest(keys.request_hash_key, b"columns\x00" + orjson.dumps(list(names)), "sha256")[:16]


async def change_plan(
    tx: Tx,
    keys: TenantKeys,
    before: Import,
    plan: Plan,
    source: str,
    duplicates: int,
    match_by: int,
    etag: str,
) -> None:
    """Changes how a file is read, and keeps it for the next file of the source. Raises ImportStarted, EtagMismatch."""
    if etag and etag != str(before.row.version):
        raise EtagMismatch
    if before.state not in BEFORE_START and not _was_dry(before):
        raise ImportStarted
    await tx.execute(
        update(imports)
        .where(*_at(tx, before.row.import_id))
        .values(
            sealed=keys.seal(before.key, SEALED, before.row.import_id, plan.to_json()),
            source=source,
            duplicates=duplicates,
            match_by=match_by,
            version=before.row.version + 1,
            updated_at=tx.now,
        )
    )


async def remember(tx: Tx, keys: TenantKeys, mine: Import) -> None:
    """Keeps how a file is read for the next one of the source with the same columns. Sheets have names: not kept."""
    row, plan = mine.row, mine.plan
    layout = plan.layout.to_json() | {"sheet": "", "keys": [], "notes": []}
    mapping = {
        "columns": [
            {"index": c.index, "target": c.target, "date_order": c.date_order, "decimal": c.decimal}
            for c in plan.mapping.columns
        ],
        "constants": dict(plan.mapping.constants),
    }
    values = {
        "layout": layout,
        "mapping": mapping,
        "duplicates": row.duplicates,
        "match_by": row.match_by,
        "updated_at": tx.now,
    }
    await tx.execute(
        upsert(import_mappings)
        .values(
            tenant_id=tx.tenant_id,
            business_id=row.business_id,
            source=row.source,
            kind=row.kind,
            columns_digest=columns_digest(keys, [c.name for c in plan.mapping.columns]),
            **values,
        )
        .on_conflict_do_update(constraint="import_mappings_pkey", set_=values)
    )


async def note_preview(tx: Tx, mine: Import) -> None:
    """Notes that somebody looked at the first rows."""
    if mine.state is State.UPLOADED:
        await tx.execute(
            update(imports)
            .where(*_at(tx, mine.row.import_id), _i.state == int(State.UPLOADED))
            .values(state=int(State.PREVIEWED), updated_at=tx.now, version=mine.row.version + 1)
        )


async def start_import(tx: Tx, keys: TenantKeys, files: Files, mine: Import, *, dry_run: bool) -> None:
    """Queues an import, or lets it go on where it stopped. Raises ImportDone, FileGone."""
    row = mine.row
    if mine.state in (State.QUEUED, State.RUNNING):
        return
    anew = mine.state in BEFORE_START or _was_dry(mine)
    half_undone = row.state == State.UNDOING
    if not anew and (mine.state not in STOPPED or dry_run or half_undone):
        raise ImportDone
    file = await files.get(tx, row.file_id)
    if file.destroyed_at is not None or file.expires_at <= tx.now:
        raise FileGone
    await remember(tx, keys, mine)
    values: dict[str, Any] = {}
    if anew:
        await tx.execute(
            delete(import_errors).where(
                import_errors.c.tenant_id == tx.tenant_id, import_errors.c.import_id == row.import_id
            )
        )
        values = dict.fromkeys(("rows_done", "last_row", "try_began_rows", *COUNTS), 0)
    job_id = await jobs.enqueue(
        tx,
        RUN,
        {"import": str(row.import_id), "kind": row.kind},
        business_id=row.business_id,
        total=row.rows_total,
        max_attempts=MOST_TRIES,
    )
    await tx.execute(
        update(imports)
        .where(*_at(tx, row.import_id))
        .values(
            state=int(State.QUEUED),
            dry_run=dry_run,
            job_id=job_id,
            finished_at=None,
            undo_until=None,
            updated_at=tx.now,
            version=row.version + 1,
            **values,
        )
    )


async def cancel_import(tx: Tx, files: Files, mine: Import, *, delete_file: bool) -> None:
    """Stops an import; what it wrote stays, and can be undone. Nothing happens to one that has ended."""
    row = mine.row
    if mine.state not in (State.COMPLETED, State.UNDOING, State.UNDONE, *STOPPED):
        if row.job_id is not None and mine.state in AT_WORK:
            await jobs.cancel(tx, row.job_id)
        await _stop(tx, row, State.CANCELLED)
    if delete_file and mine.state is not State.UNDOING:
        await files.destroy(tx, row.file_id)
        await tx.execute(update(imports).where(*_at(tx, row.import_id)).values(file_expires_at=None))


async def fail_import(tx: Tx, import_id: UUID, reason: str) -> None:
    """Gives an import up. Emits ImportFailed, unless it was a dry run."""
    found = await tx.execute(imports.select().where(*_at(tx, import_id)).with_for_update())
    row = found.one()
    if row.state not in (State.QUEUED, State.RUNNING):
        return
    await _stop(tx, row, State.FAILED)
    if not row.dry_run:
        event = events.ImportFailed(
            import_id=str(row.import_id),
            business_id=str(row.business_id),
            kind=row.kind,
            reason=reason,
            counts=counts_of(row),
        )
        await emit(
            tx, event, aggregate_id=row.import_id, version=row.version + 1, business_id=row.business_id
        )


async def undo_import(tx: Tx, mine: Import) -> None:
    """Queues the undoing of what an import wrote. Raises NothingToUndo, UndoTooLate."""
    row = mine.row
    if mine.state is State.UNDOING:
        return
    again = row.state == State.UNDOING  # its job was given up, or stopped
    until = mine.undo_until
    if not again and (until is None or mine.state not in (State.COMPLETED, *STOPPED)):
        raise NothingToUndo
    if until is not None and until <= tx.now:
        raise UndoTooLate
    job_id = await jobs.enqueue(
        tx,
        UNDO,
        {"import": str(row.import_id), "kind": row.kind},
        business_id=row.business_id,
        max_attempts=MOST_TRIES,
    )
    await tx.execute(
        update(imports)
        .where(*_at(tx, row.import_id))
        .values(
            state=int(State.UNDOING),
            job_id=job_id,
            finished_at=None,
            undo_until=until,
            updated_at=tx.now,
            version=row.version + 1,
        )
    )


def counts_of(row: Row[Any]) -> events.ImportCounts:
    """The counts of an import for events."""
    return events.ImportCounts(
        rows=row.rows_done,
        customers_created=row.customers_created,
        customers_updated=row.customers_updated,
        orders_created=row.orders_created,
        orders_updated=row.orders_updated,
        balances_created=row.balances_created,
        rows_refused=row.rows_refused,
    )


async def _stop(tx: Tx, row: Row[Any], state: State) -> None:
    undo_until = tx.now + rules.UNDO_FOR if may_have_written(row) else None
    await tx.execute(
        update(imports)
        .where(*_at(tx, row.import_id))
        .values(
            state=int(state),
            finished_at=tx.now,
            updated_at=tx.now,
            undo_until=undo_until,
            version=row.version + 1,
        )
    )


async def forget_rows(tx: Tx, limit: int) -> int:
    """Deletes up to `limit` of the rows that imports wrote down for their undoing, former values with them.

    Those of imports that cannot be undone any more. Gives how many.
    """
    over = select(_i.import_id).where(
        _i.tenant_id == tx.tenant_id,
        or_(
            (_i.undo_until <= tx.now) & (_i.state != int(State.UNDOING)), _i.created_at <= tx.now - LONG_OVER
        ),
    )
    mine = import_rows.c
    some = (
        select(mine.import_id, mine.row)
        .where(mine.tenant_id == tx.tenant_id, mine.import_id.in_(over))
        .limit(limit)
    )
    done = await tx.execute(
        delete(import_rows).where(mine.tenant_id == tx.tenant_id, tuple_(mine.import_id, mine.row).in_(some))
    )
    return done.rowcount


def _was_dry(mine: Import) -> bool:
    """True if nothing was written yet: the last start was a dry run, and it has ended."""
    return bool(mine.row.dry_run) and mine.state in (State.COMPLETED, *STOPPED)


def with_saved(plan: Plan, saved: Row[Any]) -> Plan:
    """The plan as a file with the same columns was read the last time."""
    known = {each["index"]: each for each in saved.mapping["columns"]}
    columns = tuple(
        replace(
            column,
            target=known[column.index]["target"],
            date_order=known[column.index]["date_order"],
            decimal=known[column.index]["decimal"],
            confidence=1.0,
            why="as in the last file of this source",
        )
        if column.index in known
        else column
        for column in plan.mapping.columns
    )
    mapping = replace(plan.mapping, columns=columns, constants=saved.mapping["constants"])
    return replace(plan, mapping=mapping)


def _at(tx: Tx, import_id: UUID) -> tuple[Any, ...]:
    return _i.tenant_id == tx.tenant_id, _i.import_id == import_id
