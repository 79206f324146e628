"""Reads about bulk overrides."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from libs.db import Tx
from libs.jobs import JobNotFound
from services.loyalty.overrides.tables import tier_bulk_members, tier_bulks

_b, _m = tier_bulks.c, tier_bulk_members.c


async def bulk(tx: Tx, bulk_id: UUID) -> Row[Any]:
    """A bulk override of the caller's businesses. Raises JobNotFound."""
    wanted = select(tier_bulks).where(_b.tenant_id == tx.tenant_id, _b.bulk_id == bulk_id)
    found = (await tx.execute(wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise JobNotFound(id=bulk_id)
    return found


async def listed_after(tx: Tx, bulk_id: UUID, after: UUID, limit: int) -> list[UUID]:
    """Up to `limit` customers of a bulk's list, in the order of their ids, those after one."""
    wanted = (
        select(_m.customer_id)
        .where(_m.tenant_id == tx.tenant_id, _m.bulk_id == bulk_id, _m.customer_id > after)
        .order_by(_m.customer_id)
        .limit(limit)
    )
    return list((await tx.execute(wanted)).scalars())


async def faults_after(tx: Tx, bulk_id: UUID, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Up to `limit` members that it could not be done for: rows (customer_id, fault), those after one."""
    wanted = select(_m.customer_id, _m.fault).where(
        _m.tenant_id == tx.tenant_id, _m.bulk_id == bulk_id, _m.fault.is_not(None)
    )
    if after is not None:
        wanted = wanted.where(_m.customer_id > after)
    return list((await tx.execute(wanted.order_by(_m.customer_id).limit(limit))).all())
