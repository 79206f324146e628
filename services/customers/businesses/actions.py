"""Writes about businesses and their attributes."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, update

from libs.db import Tx
from libs.outbox import emit
from libs.problems import EtagMismatch, InvalidArgument, PermissionDenied
from regulars.customers.v1.events_pb2 import BusinessCreated, BusinessUpdated
from services.customers.businesses import queries
from services.customers.businesses.rules import MAX_ATTRIBUTES
from services.customers.problems import BusinessArchived, TooManyAttributes
from services.customers.tables import attribute_definitions, businesses


async def create_business(tx: Tx, business_id: UUID, values: Mapping[str, Any]) -> None:
    """Creates a business. Emits BusinessCreated. Raises PermissionDenied unless the caller sees all businesses."""
    if tx.caller.businesses is not None:
        raise PermissionDenied("Only a caller of all businesses may add one.")
    row = {
        "tenant_id": tx.tenant_id,
        "business_id": business_id,
        "version": 1,
        "created_at": tx.now,
        "updated_at": tx.now,
        **values,
    }
    await tx.execute(insert(businesses).values(row))
    event = BusinessCreated(
        business_id=str(business_id),
        currency=values["currency"],
        time_zone=values["time_zone"],
        country=values["country"],
        language=values["language"],
    )
    await emit(tx, event, aggregate_id=business_id, version=1, business_id=business_id)


async def update_business(tx: Tx, business_id: UUID, values: Mapping[str, Any], etag: str) -> Row[Any]:
    """Changes a business; gives its row. Emits BusinessUpdated unless nothing changed.

    Raises BusinessNotFound, BusinessArchived, EtagMismatch, InvalidArgument if the currency would change.
    """
    row = await queries.business(tx, business_id, lock=True)
    if row.archived_at:
        raise BusinessArchived
    if etag and etag != str(row.version):
        raise EtagMismatch
    if values.get("currency", row.currency) != row.currency:
        raise InvalidArgument.of("business.currency", "cannot change", "IMMUTABLE")
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    return await _write(tx, row, changed) if changed else row


async def archive_business(tx: Tx, business_id: UUID) -> Row[Any]:
    """Makes a business read only; gives its row. Emits BusinessUpdated, once. Raises BusinessNotFound."""
    row = await queries.business(tx, business_id, lock=True)
    return row if row.archived_at else await _write(tx, row, {"archived_at": tx.now})


async def _write(tx: Tx, row: Row[Any], changed: Mapping[str, Any]) -> Row[Any]:
    mine = businesses.c
    written = await tx.execute(
        update(businesses)
        .where(mine.tenant_id == tx.tenant_id, mine.business_id == row.business_id)
        .values(**changed, version=row.version + 1, updated_at=tx.now)
        .returning(businesses)
    )
    after = written.one()
    await emit(
        tx,
        _updated(after, changed),
        aggregate_id=after.business_id,
        version=after.version,
        business_id=after.business_id,
    )
    return after


def _updated(row: Row[Any], changed: Iterable[str]) -> BusinessUpdated:
    return BusinessUpdated(
        business_id=str(row.business_id),
        currency=row.currency,
        time_zone=row.time_zone,
        country=row.country,
        language=row.language,
        archived=row.archived_at is not None,
        changed_fields=sorted(changed),
    )


async def create_attribute(tx: Tx, business_id: UUID, values: Mapping[str, Any]) -> None:
    """Declares an attribute. Raises AttributeExists (by its constraint) and TooManyAttributes."""
    await queries.business(tx, business_id, lock=True)  # so that the count below holds
    if await queries.count_attributes(tx, business_id) >= MAX_ATTRIBUTES:
        raise TooManyAttributes(limit=MAX_ATTRIBUTES)
    row = {"tenant_id": tx.tenant_id, "business_id": business_id, "created_at": tx.now, **values}
    await tx.execute(insert(attribute_definitions).values(row))


async def archive_attribute(tx: Tx, business_id: UUID, name: str) -> None:
    """Closes an attribute for new values. Idempotent. Raises AttributeNotFound."""
    row = await queries.attribute(tx, business_id, name)
    if not row.archived_at:
        mine = attribute_definitions.c
        await tx.execute(
            update(attribute_definitions)
            .where(mine.tenant_id == tx.tenant_id, mine.business_id == business_id, mine.name == name)
            .values(archived_at=tx.now)
        )
