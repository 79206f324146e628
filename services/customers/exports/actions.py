"""Writes about exports."""

import hashlib
import hmac
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, insert, select, update

from libs import jobs
from libs.crypto import TenantKeys, live_versions
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.outbox import emit
from libs.sealed_files import KEPT_FOR, Files, Written
from regulars.customers.v1 import exports_pb2 as pb
from regulars.customers.v1.events_pb2 import ExportCompleted, ExportFacts, ExportStopped
from services.customers.exports import queries, wire
from services.customers.exports.queries import SEARCH, Known
from services.customers.exports.tables import export_files, exports
from services.customers.exports.walk import Size, Wanted

JOB = "export_customers"
# After as many tries without a piece of the file more, an export is given up.
TRIES = 20

_e, _f = exports.c, export_files.c


async def begin(
    tx: Tx, keys: TenantKeys, export_id: UUID, wanted: Wanted, size: Size | None, *, streamed: bool
) -> None:
    """Notes an export of the caller's; a file's job is queued with it."""
    row, key = keys.new_subject_key(await live_versions(tx), export_id, tx.now)
    await tx.execute(insert(subject_keys).values(row._asdict()))
    search = orjson.dumps(wire.stored(wanted.search))
    caller = tx.caller
    values = {
        "tenant_id": tx.tenant_id,
        "export_id": export_id,
        "business_id": wanted.business_id,
        "streamed": streamed,
        "format": wanted.form,
        "columns": [column.name for column in wanted.columns],
        "masks": sorted(wanted.masks),
        "masked_columns": wire.in_order(wanted, wanted.masked),
        "key_id": key.key_id,
        "sealed": keys.seal(key, SEARCH, export_id, search),
        "filter_digest": _digest(keys, wanted),
        "customers": 0,
        "customers_total": size.total if size else None,
        "size": 0,
        "created_by": caller.on_behalf_of or caller.subject,
        "created_at": tx.now,
        "expires_at": None if streamed else tx.now + KEPT_FOR,
        "downloads": 0,
    }
    await tx.execute(insert(exports).values(values))
    if not streamed:
        await jobs.enqueue(
            tx,
            JOB,
            job_id=export_id,
            business_id=wanted.business_id,
            total=size.total if size else None,
            max_attempts=TRIES,
        )


async def add_piece(
    tx: Tx, files: Files, export_id: UUID, piece: int, written: Written, customers: int
) -> None:
    """Keeps one more piece of an export's file; `customers` are in all pieces together."""
    expires_at = await queries.expires_at(tx, export_id)
    await files.keep(tx, written, expires_at)
    at = {"tenant_id": tx.tenant_id, "export_id": export_id}
    await tx.execute(
        insert(export_files).values(**at, piece=piece, file_id=written.file_id, size=written.size)
    )
    await tx.execute(
        update(exports).where(*_at(tx, export_id)).values(customers=customers, size=_e.size + written.size)
    )


async def note_progress(tx: Tx, export_id: UUID, customers: int) -> None:
    """Notes how many customers a stream holds so far, for the case that its process dies."""
    await tx.execute(update(exports).where(*_at(tx, export_id)).values(customers=customers))


async def complete(tx: Tx, export_id: UUID, customers: int, size: int | None = None) -> None:
    """Notes that all of an export is written. Emits ExportCompleted."""
    facts = await _end(tx, export_id, pb.EXPORT_STATE_COMPLETED, customers, size)
    if facts is not None:
        event = ExportCompleted(export=facts)
        await emit(tx, event, aggregate_id=export_id, version=1, business_id=UUID(facts.business_id))


async def stop(tx: Tx, export_id: UUID, outcome: int, customers: int, size: int | None = None) -> None:
    """Notes that an export ended before all of it was written. Emits ExportStopped."""
    facts = await _end(tx, export_id, outcome, customers, size)
    if facts is not None:
        event = ExportStopped(export=facts)
        await emit(tx, event, aggregate_id=export_id, version=1, business_id=UUID(facts.business_id))


async def stop_lost(tx: Tx, before: datetime) -> None:
    """Notes that streams which began before an instant, and never ended, were broken off. Emits ExportStopped."""
    lost = select(_e.export_id, _e.customers).where(
        _e.tenant_id == tx.tenant_id, _e.streamed, _e.outcome.is_(None), _e.created_at < before
    )
    for row in (await tx.execute(lost.limit(100))).all():
        await stop(tx, row.export_id, pb.EXPORT_STATE_FAILED, row.customers)


async def cancel(tx: Tx, files: Files, known: Known) -> None:
    """Stops a locked export's job and destroys its file, as far as there is one. Emits ExportStopped."""
    row = known.row
    if row.streamed:
        return
    if known.job is not None and row.outcome is None:
        await jobs.cancel(tx, row.export_id)
    await drop(tx, files, row.export_id)
    await stop(tx, row.export_id, pb.EXPORT_STATE_CANCELLED, row.customers)
    await tx.execute(update(exports).where(*_at(tx, row.export_id)).values(outcome=pb.EXPORT_STATE_CANCELLED))


async def drop(tx: Tx, files: Files, export_id: UUID) -> None:
    """Destroys the pieces of an export's file."""
    for piece in await queries.pieces(tx, export_id):
        await files.destroy(tx, piece.file_id)
    await tx.execute(delete(export_files).where(_f.tenant_id == tx.tenant_id, _f.export_id == export_id))


async def note_download(tx: Tx, export_id: UUID) -> None:
    """Counts a download."""
    counted = {"downloads": _e.downloads + 1, "last_downloaded_at": tx.now}
    await tx.execute(update(exports).where(*_at(tx, export_id)).values(counted))


async def _end(tx: Tx, export_id: UUID, outcome: int, customers: int, size: int | None) -> ExportFacts | None:
    """The facts of an export that ends now, None if it has ended before."""
    values: dict[str, Any] = {"outcome": outcome, "customers": customers, "finished_at": tx.now}
    if size is not None:
        values["size"] = size
    ended = update(exports).where(*_at(tx, export_id), _e.outcome.is_(None)).values(values)
    row = (await tx.execute(ended.returning(exports))).first()
    if row is None:
        return None
    return ExportFacts(
        export_id=str(export_id),
        business_id=str(row.business_id),
        format=row.format,
        streamed=row.streamed,
        customers=customers,
        columns=len(row.columns),
        masked_columns=len(row.masked_columns),
        filter_fingerprint=row.filter_digest.hex(),
    )


def _at(tx: Tx, export_id: UUID) -> tuple[Any, ...]:
    return _e.tenant_id == tx.tenant_id, _e.export_id == export_id


def _digest(keys: TenantKeys, wanted: Wanted) -> bytes:
    """A fingerprint of whom an export holds: the same for the same search at a business, and guessed by nobody."""
    told = wanted.business_id.bytes + wanted.search.SerializeToString(deterministic=True)
    return hmac.digest(keys.request_hash_key, b"export\x00" + told, hashlib.sha256)[:16]
