"""Reads about opening balances: what rows gave before, who their members are, and what became of their lots."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Row, Uuid, and_, bindparam, func, select, text
from sqlalchemy.types import BigInteger

from libs.db import Tx
from services.loyalty.balances import rules
from services.loyalty.balances.tables import imported_balances
from services.loyalty.ledger.tables import entries
from services.loyalty.tables import memberships

_b, _e, _m = imported_balances.c, entries.c, memberships.c

_SAID = text("""
    select b.content, b.import_id, b.row, b.place, b.outcome = 1 and b.undone_at is null as holds
    from unnest(:contents) as said (content)
    cross join lateral (
        (select b.* from imported_balances b
         where b.tenant_id = :tenant and b.business_id = :business and b.import_id = :import
           and b.content = said.content)
        union all
        (select b.* from imported_balances b
         where b.tenant_id = :tenant and b.business_id = :business and b.content = said.content
           and b.outcome = 1 and b.undone_at is null and b.import_id <> :import)
    ) b
""").bindparams(bindparam("contents", type_=ARRAY(LargeBinary)))

# A lot, and those that it became where its account was merged into another.
_BECAME = text("""
    with recursive found as (
        select l.lot_id as origin, l.lot_id, l.account_id from lots l
        where l.tenant_id = :tenant and l.lot_id = any(:lots)
        union
        select f.origin, l.lot_id, l.account_id from found f
        join accounts a on a.tenant_id = :tenant and a.account_id = f.account_id and a.merged_into is not null
        join lots l on l.tenant_id = :tenant and l.account_id = a.merged_into and l.origin_lot_id = f.lot_id
                and not l.pooled
    )
    select f.origin, f.lot_id,
           coalesce((select -sum(al.points) from allocations al
                     join entries e on e.tenant_id = :tenant and e.entry_id = al.entry_id and e.kind = 3
                     where al.tenant_id = :tenant and al.lot_id = f.lot_id), 0) as lapsed
    from found f
""").bindparams(bindparam("lots", type_=ARRAY(Uuid)))


async def done(tx: Tx, business_id: UUID, import_id: UUID, rows: Sequence[int]) -> dict[int, Row[Any]]:
    """What these rows of an import gave before, by row."""
    wanted = select(imported_balances).where(
        _b.tenant_id == tx.tenant_id,
        _b.business_id == business_id,
        _b.import_id == import_id,
        _b.row == func.any(bindparam("rows", rows, ARRAY(BigInteger))),
    )
    return {each.row: each for each in await tx.execute(wanted)}


async def is_undone(tx: Tx, business_id: UUID, import_id: UUID) -> bool:
    """True once the taking back of an import has begun."""
    wanted = select(_b.row).where(
        _b.tenant_id == tx.tenant_id,
        _b.business_id == business_id,
        _b.import_id == import_id,
        _b.undone_at.is_not(None),
    )
    return (await tx.execute(wanted.limit(1))).first() is not None


async def members(tx: Tx, business_id: UUID, customer_ids: Iterable[UUID]) -> dict[UUID, Row[Any]]:
    """The memberships of customers who were heard of, by customer."""
    wanted = select(memberships).where(
        _m.tenant_id == tx.tenant_id,
        _m.business_id == business_id,
        _m.customer_id == func.any(bindparam("customers", list(customer_ids), ARRAY(Uuid))),
        _m.present,
        _m.joined_at.is_not(None),
        _m.merged_into.is_(None),
    )
    return {row.customer_id: row for row in await tx.execute(wanted)}


async def said(tx: Tx, business_id: UUID, import_id: UUID, contents: Collection[bytes]) -> list[Row[Any]]:
    """Rows that said the same: all of this import, and those of others that hold.

    Rows (content, import_id, row, place, holds).
    """
    where = {
        "tenant": tx.tenant_id,
        "business": business_id,
        "import": import_id,
        "contents": list(contents),
    }
    return list((await tx.execute(_SAID, where)).all())


async def last_rows(
    tx: Tx, business_id: UUID, import_id: UUID, before_row: int, limit: int
) -> list[Row[Any]]:
    """Rows of an import that gave something, the last first, with from when their entry counts."""
    wanted = (
        select(imported_balances, _e.effective_at)
        .join(entries, and_(_e.tenant_id == _b.tenant_id, _e.entry_id == _b.entry_id))
        .where(
            _b.tenant_id == tx.tenant_id,
            _b.business_id == business_id,
            _b.import_id == import_id,
            _b.outcome == rules.CREATED,
        )
    )
    if before_row:
        wanted = wanted.where(_b.row < before_row)
    return list((await tx.execute(wanted.order_by(_b.row.desc()).limit(limit))).all())


async def became(tx: Tx, lot_ids: Iterable[UUID]) -> list[Row[Any]]:
    """What lots are by now: rows (origin, lot_id, lapsed), a lot itself among them."""
    return list((await tx.execute(_BECAME, {"tenant": tx.tenant_id, "lots": list(lot_ids)})).all())
