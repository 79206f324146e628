"""Reads about businesses and their attributes; the one place that says which business a request means."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, bindparam, func, select

from libs.caller import Caller
from libs.db import Tx
from libs.pipeline import Query
from libs.problems import InvalidArgument
from services.customers.businesses.rules import AttributeDefinition
from services.customers.problems import AttributeNotFound, BusinessArchived, BusinessNotFound
from services.customers.tables import attribute_definitions, businesses

_BY_ID = select(businesses).where(
    businesses.c.tenant_id == bindparam("tenant"), businesses.c.business_id == bindparam("business")
)
_ONE, _ONE_LOCKED = Query(_BY_ID), Query(_BY_ID.with_for_update())


def told(caller: Caller, requested: str) -> UUID | None:
    """The business that a request means, or None if only the rows can say how many the caller has.

    Raises as `named`.
    """
    if requested:
        business_id = UUID(requested)
        if not caller.sees(business_id):
            raise BusinessNotFound
        return business_id
    return None if caller.businesses is None else _only(list(caller.businesses))


async def named(tx: Tx, requested: str) -> UUID:
    """The business that a request means: the one it names, else the caller's only one.

    Raises BusinessNotFound for one that is not the caller's, InvalidArgument if there is not exactly one.
    """
    business_id = told(tx.caller, requested)
    if business_id is not None:
        return business_id
    live = _mine(tx).with_only_columns(businesses.c.business_id).where(businesses.c.archived_at.is_(None))
    return _only((await tx.execute(live.limit(2))).scalars().all())


def _only(found: Sequence[UUID]) -> UUID:
    if len(found) != 1:
        raise InvalidArgument.of(
            "business_id", "name the business: the caller has several or none", "REQUIRED"
        )
    return UUID(str(found[0]))


async def business(tx: Tx, business_id: UUID, *, lock: bool = False) -> Row[Any]:
    """The row of one of the caller's businesses. Raises BusinessNotFound."""
    where = {"tenant": tx.tenant_id, "business": business_id}
    (found,) = await tx.together((_ONE_LOCKED if lock else _ONE, where))
    if not found or not tx.caller.sees(business_id):
        raise BusinessNotFound
    row: Row[Any] = found[0]
    return row


async def live(tx: Tx, requested: str) -> Row[Any]:
    """The business that a write means. Raises as `named`, and BusinessArchived."""
    found = await business(tx, await named(tx, requested))
    if found.archived_at:
        raise BusinessArchived
    return found


async def page(tx: Tx, size: int, before: UUID | None) -> list[Row[Any]]:
    """Up to `size` of the caller's businesses, newest first, those older than `before`."""
    wanted = _mine(tx).order_by(businesses.c.business_id.desc()).limit(size)
    if tx.caller.businesses is not None:
        wanted = wanted.where(businesses.c.business_id.in_(tx.caller.businesses))
    if before:
        wanted = wanted.where(businesses.c.business_id < before)
    return list((await tx.execute(wanted)).all())


async def attributes(tx: Tx, business_id: UUID) -> list[Row[Any]]:
    """The attribute definitions of a business by name."""
    mine = attribute_definitions.c
    wanted = select(attribute_definitions).where(
        mine.tenant_id == tx.tenant_id, mine.business_id == business_id
    )
    return list((await tx.execute(wanted.order_by(mine.name))).all())


async def attribute(tx: Tx, business_id: UUID, name: str) -> Row[Any]:
    """One attribute definition. Raises AttributeNotFound."""
    for row in await attributes(tx, business_id):
        if row.name == name:
            return row
    raise AttributeNotFound


async def definitions(tx: Tx, business_id: UUID) -> dict[str, AttributeDefinition]:
    """The attribute definitions of a business by name, as the rules know them."""
    return {
        row.name: AttributeDefinition(
            row.name, row.type, tuple(row.choices), row.not_personal, row.archived_at is not None
        )
        for row in await attributes(tx, business_id)
    }


async def count_attributes(tx: Tx, business_id: UUID) -> int:
    """How many attributes a business declared."""
    mine = attribute_definitions.c
    wanted = select(func.count()).where(mine.tenant_id == tx.tenant_id, mine.business_id == business_id)
    return int(await tx.scalar(wanted))


def _mine(tx: Tx) -> Select[Any]:
    return select(businesses).where(businesses.c.tenant_id == tx.tenant_id)
