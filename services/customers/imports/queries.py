"""Reads about imports; `one` is the only door to an import's row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, and_, select

from libs.audit import Reading
from libs.crypto import Column, DataKey, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.plumbing import jobs
from services.customers.imports.mapping import Mapping
from services.customers.imports.reading import Layout
from services.customers.imports.rules import AT_WORK, BALANCES, STOPPED, UNDO_FOR, State
from services.customers.imports.tables import COUNTS, import_errors, import_mappings, imports
from services.customers.problems import ImportNotFound

SEALED = Column("imports", "sealed")

_i, _k, _j = imports.c, subject_keys.c, jobs.c
_IMPORT = select(imports, _k.epoch, _k.wrapped).join(
    subject_keys, and_(_k.tenant_id == _i.tenant_id, _k.key_id == _i.key_id)
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a file is read: what `imports.sealed` holds."""

    file_name: str
    layout: Layout
    mapping: Mapping

    def to_json(self) -> bytes:
        """For sealing."""
        known = {
            "file_name": self.file_name,
            "layout": self.layout.to_json(),
            "mapping": self.mapping.to_json(),
        }
        return orjson.dumps(known)


@dataclass(frozen=True, slots=True)
class Import:
    """An import. `state` is where it stands, its job considered; `job` is the row of its last job or None."""

    row: Row[Any]
    state: State
    plan: Plan
    key: DataKey
    job: Row[Any] | None = None

    @property
    def finished_at(self) -> datetime | None:
        """When it ended; None while it is at work and before."""
        if self._ended_with_job and self.job is not None:
            return _instant(self.job.finished_at)
        return _instant(self.row.finished_at)

    @property
    def undo_until(self) -> datetime | None:
        """Until when it can be undone; None if it cannot."""
        if self._ended_with_job and self.row.state != State.UNDOING:
            end = self.finished_at
            return end + UNDO_FOR if end and may_have_written(self.row) else None
        return _instant(self.row.undo_until)

    @property
    def _ended_with_job(self) -> bool:
        """True if nobody has noted its end but the job: it was stopped from elsewhere, or its process died."""
        return self.state in STOPPED and self.row.state in AT_WORK


async def one(tx: Tx, keys: TenantKeys, reading: Reading, import_id: UUID, *, lock: bool = False) -> Import:
    """An import of one of the caller's businesses. Raises ImportNotFound."""
    wanted = _IMPORT.where(_i.tenant_id == tx.tenant_id, _i.import_id == import_id)
    row = (await tx.execute(wanted.with_for_update(of=imports) if lock else wanted)).first()
    if row is None or not tx.caller.sees(row.business_id):
        raise ImportNotFound
    job = None
    if row.job_id is not None:
        found = select(jobs).where(_j.tenant_id == tx.tenant_id, _j.id == row.job_id)
        job = (await tx.execute(found)).first()
    return _opened(keys, reading, row, job)


async def page(
    tx: Tx, keys: TenantKeys, reading: Reading, business_id: UUID, size: int, before: UUID | None
) -> list[Import]:
    """Up to `size` imports of a business, newest first, those older than `before`."""
    wanted = _IMPORT.where(_i.tenant_id == tx.tenant_id, _i.business_id == business_id)
    if before:
        wanted = wanted.where(_i.import_id < before)
    rows = (await tx.execute(wanted.order_by(_i.import_id.desc()).limit(size))).all()
    ids = [row.job_id for row in rows if row.job_id]
    found = await tx.execute(select(jobs).where(_j.tenant_id == tx.tenant_id, _j.id.in_(ids)))
    by_id = {job.id: job for job in found}
    return [_opened(keys, reading, row, by_id.get(row.job_id)) for row in rows]


def _opened(keys: TenantKeys, reading: Reading, row: Row[Any], job: Row[Any] | None) -> Import:
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    known = orjson.loads(keys.open(reading, row.import_id, key, SEALED, row.import_id, row.sealed))
    plan = Plan(known["file_name"], Layout.of(known["layout"]), Mapping.of(known["mapping"]))
    return Import(row, state_of(row, job), plan, key, job)


def state_of(row: Row[Any], job: Row[Any] | None) -> State:
    """Where an import stands: a job that was given up, or stopped from elsewhere, left its row as it was."""
    state = State(row.state)
    if state in AT_WORK and job is not None:
        if job.state == "failed":
            return State.FAILED
        if job.state == "cancelled":
            return State.CANCELLED
    return state


def wrote(row: Row[Any]) -> bool:
    """True if an import changed anything."""
    return any(getattr(row, name) for name in COUNTS if name.endswith(("created", "updated")))


def may_have_written(row: Row[Any]) -> bool:
    """The same for one that stopped: points may be given whose rows it had not yet counted."""
    return not row.dry_run and (wrote(row) or (row.kind == BALANCES and row.started_at is not None))


async def same_file(tx: Tx, row: Row[Any]) -> UUID | None:
    """The newest earlier import of the very same file at the business."""
    found: UUID | None = await tx.scalar(
        select(_i.import_id)
        .where(
            _i.tenant_id == tx.tenant_id,
            _i.business_id == row.business_id,
            _i.file_digest == row.file_digest,
            _i.import_id < row.import_id,
        )
        .order_by(_i.import_id.desc())
        .limit(1)
    )
    return found


async def errors(tx: Tx, import_id: UUID, size: int, after: Sequence[Any] = ()) -> list[Row[Any]]:
    """Up to `size` errors of an import by row, those after (row, place)."""
    mine = import_errors.c
    wanted = select(import_errors).where(mine.tenant_id == tx.tenant_id, mine.import_id == import_id)
    if after:
        row, place = after
        wanted = wanted.where((mine.row > row) | ((mine.row == row) & (mine.place > place)))
    return list((await tx.execute(wanted.order_by(mine.row, mine.place).limit(size))).all())


async def saved(tx: Tx, business_id: UUID, source: str, kind: int, columns_digest: bytes) -> Row[Any] | None:
    """How the last file of this source with these columns was read."""
    mine = import_mappings.c
    found = await tx.execute(
        select(import_mappings).where(
            mine.tenant_id == tx.tenant_id,
            mine.business_id == business_id,
            mine.source == source,
            mine.kind == kind,
            mine.columns_digest == columns_digest,
        )
    )
    return found.first()


def _instant(value: Any) -> datetime | None:
    found: datetime | None = value
    return found
