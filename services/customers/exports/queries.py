"""Reads of exports: the people in them, and the exports themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from psycopg.rows import tuple_row
from sqlalchemy import Row, and_, any_, literal, or_, select

from libs.audit import Reading
from libs.crypto import Column, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.plumbing import jobs
from services.customers.addresses.queries import SEALED as PLACE
from services.customers.exports.columns import Needs, Person
from services.customers.exports.problems import ExportNotFound
from services.customers.exports.tables import export_files, exports
from services.customers.profiles.queries import PROFILE, STANDING, membership_row_id

SEARCH = Column("exports", "sealed")

_ROW = (
    *("status", "type", "tags", "attributes", "source", "joined_at", "last_active_at"),
    *("email_verified", "phone_verified", "created_at", "updated_at"),
)
_COUNTED = (
    *("lifecycle_stage", "orders_completed", "total_spent_minor", "refunded_minor", "net_minor"),
    *("average_order_minor", "first_order_at", "last_order_at", "items", "visits"),
    *("favourite_category", "favourite_brand"),
)
_NAMES = (*_ROW, *_COUNTED)
_OF_PERSON = {"email_verified", "phone_verified", "created_at", "updated_at"}
_SELECTED = ", ".join(
    [f"{'c' if name in _OF_PERSON else 'm'}.{name}" for name in _ROW] + [f"x.{name}" for name in _COUNTED]
)
# Whose data key is destroyed is about to be erased, and in no export any more.
_PEOPLE = f"""
    select m.customer_id, k.key_id, k.epoch, k.wrapped, c.profile, m.sealed,
        a.address_id, a.key_id, a.epoch, a.wrapped, a.sealed, {_SELECTED}
    from memberships m
    join customers c on c.tenant_id = m.tenant_id and c.customer_id = m.customer_id
    join subject_keys k on k.tenant_id = c.tenant_id and k.key_id = c.key_id and k.wrapped is not null
    left join customer_metrics x on %(metrics)s and x.tenant_id = m.tenant_id and x.business_id = m.business_id
        and x.customer_id = m.customer_id
    left join lateral (
        select a.address_id, a.sealed, ak.key_id, ak.epoch, ak.wrapped
        from addresses a join subject_keys ak on ak.tenant_id = a.tenant_id and ak.key_id = a.key_id
        where a.tenant_id = m.tenant_id and a.customer_id = m.customer_id and a.is_default
            and ak.wrapped is not null
    ) a on %(places)s
    where m.tenant_id = %(tenant)s and m.business_id = %(business)s and m.customer_id = any (%(ids)s)
        and m.deleted_at is null
"""  # noqa: S608 – constants


async def people(tx: Tx, business_id: UUID, ids: Sequence[UUID], needs: frozenset[Needs]) -> list[Any]:
    """Rows for `opened` of those among the customers who are live at the business, in the order of `ids`."""
    params = {
        "tenant": tx.tenant_id,
        "business": business_id,
        "ids": list(ids),
        "metrics": Needs.METRICS in needs,
        "places": Needs.PLACE in needs,
    }
    async with tx.driver.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(_PEOPLE, params, prepare=True)
        found = {row[0]: row for row in await cursor.fetchall()}
    return [found[each] for each in ids if each in found]


def opened(
    row: Any, keys: TenantKeys, reading: Reading, business_id: UUID, needs: frozenset[Needs]
) -> Person:
    """The person of a row of `people`; opens what the columns need and nothing else."""
    customer_id, key_id, epoch, wrapped, profile, standing, address_id = row[:7]
    person = Person(customer_id, dict(zip(_NAMES, row[11:], strict=True)))
    key = None
    if Needs.PROFILE in needs:
        key = keys.unwrap(key_id, epoch, wrapped)
        person.profile = orjson.loads(keys.open(reading, customer_id, key, PROFILE, customer_id, profile))
    if Needs.STANDING in needs and standing is not None:
        key = key or keys.unwrap(key_id, epoch, wrapped)
        at = membership_row_id(business_id, customer_id)
        person.standing = orjson.loads(keys.open(reading, customer_id, key, STANDING, at, standing))
    if Needs.PLACE in needs and address_id is not None:
        if key is None or row[7] != key_id:
            key = keys.unwrap(row[7], row[8], row[9])
        person.place = orjson.loads(keys.open(reading, customer_id, key, PLACE, address_id, row[10]))
    return person


@dataclass(frozen=True, slots=True)
class Known:
    """An export. `search` is the search's JSON form; `job` is the row of its job, None for streams and old ones."""

    row: Row[Any]
    search: dict[str, Any]
    job: Row[Any] | None


_e, _f, _j, _k = exports.c, export_files.c, jobs.c, subject_keys.c
_ONE = select(exports, _k.epoch, _k.wrapped).join(
    subject_keys, and_(_k.tenant_id == _e.tenant_id, _k.key_id == _e.key_id)
)


async def one(tx: Tx, keys: TenantKeys, reading: Reading, export_id: UUID, *, lock: bool = False) -> Known:
    """An export that the caller may read. Raises ExportNotFound."""
    wanted = _ONE.where(_e.tenant_id == tx.tenant_id, _e.export_id == export_id, _readable(tx))
    row = (await tx.execute(wanted.with_for_update(of=exports) if lock else wanted)).first()
    if row is None or not tx.caller.sees(row.business_id):
        raise ExportNotFound
    return (await _known(tx, keys, reading, [row]))[0]


async def page(
    tx: Tx, keys: TenantKeys, reading: Reading, business_id: UUID, size: int, before: UUID | None
) -> list[Known]:
    """Up to `size` exports of a business that the caller may read, newest first, those older than `before`."""
    wanted = _ONE.where(_e.tenant_id == tx.tenant_id, _e.business_id == business_id, _readable(tx))
    if before:
        wanted = wanted.where(_e.export_id < before)
    rows = (await tx.execute(wanted.order_by(_e.export_id.desc()).limit(size))).all()
    return await _known(tx, keys, reading, rows)


async def pieces(tx: Tx, export_id: UUID) -> Sequence[Row[Any]]:
    """(piece, file_id, size) of an export's file, in their order."""
    mine = select(_f.piece, _f.file_id, _f.size).where(
        _f.tenant_id == tx.tenant_id, _f.export_id == export_id
    )
    return (await tx.execute(mine.order_by(_f.piece))).all()


async def expires_at(tx: Tx, export_id: UUID) -> datetime:
    """When the files of an export expire, whoever asks. Raises ExportNotFound."""
    found = await tx.scalar(
        select(_e.expires_at).where(_e.tenant_id == tx.tenant_id, _e.export_id == export_id)
    )
    if found is None:
        raise ExportNotFound
    at: datetime = found
    return at


def _readable(tx: Tx) -> Any:
    """What the caller may not read must have been kept from the export, too: its masks are among the export's.

    A mask of a category covers those below it.
    """
    return and_(
        literal(True),
        *(or_(*(literal(above) == any_(_e.masks) for above in _above(mask))) for mask in tx.caller.masks),
    )


def _above(mask: str) -> list[str]:
    """A category and those that hold it: user.contact.email, user.contact, user."""
    parts = mask.split(".")
    return [".".join(parts[:i]) for i in range(len(parts), 0, -1)]


async def _known(tx: Tx, keys: TenantKeys, reading: Reading, rows: Sequence[Row[Any]]) -> list[Known]:
    ids = [row.export_id for row in rows if not row.streamed]
    mine = select(jobs).where(_j.tenant_id == tx.tenant_id, _j.id.in_(ids))
    work = {row.id: row for row in await tx.execute(mine)} if ids else {}
    found = []
    for row in rows:
        search: dict[str, Any] = {}
        if row.wrapped is not None:
            key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
            search = orjson.loads(keys.open(reading, row.export_id, key, SEARCH, row.export_id, row.sealed))
        found.append(Known(row, search, work.get(row.export_id)))
    return found
