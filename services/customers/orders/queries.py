"""Reads about orders and their metrics."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Row, literal_column, select, tuple_

from libs.audit import Reading
from libs.crypto import Column, TenantKeys
from libs.crypto.tables import subject_keys
from libs.db import Tx
from services.customers.orders.rules import WAITING
from services.customers.orders.tables import customer_metrics, orders
from services.customers.problems import OrderNotFound

SEALED = Column("orders", "sealed")
_o = orders.c
_NEVER: ColumnElement[int] = literal_column(str(WAITING))  # as a number, so that the lists' indexes fit


async def one(tx: Tx, order_id: UUID, business_id: UUID | None) -> Row[Any]:
    """An order of the caller's businesses, or of the one named. Raises OrderNotFound."""
    wanted = select(orders).where(_o.tenant_id == tx.tenant_id, _o.order_id == order_id, _o.status != WAITING)
    if business_id:
        wanted = wanted.where(_o.business_id == business_id)
    elif tx.caller.businesses is not None:
        wanted = wanted.where(_o.business_id.in_(tx.caller.businesses))
    found = (await tx.execute(wanted)).first()
    if found is None:
        raise OrderNotFound
    return found


async def private(tx: Tx, keys: TenantKeys, reading: Reading, row: Row[Any]) -> dict[str, Any]:
    """The addresses and tracking numbers of an order's row."""
    if row.sealed is None:
        return {}
    k = subject_keys.c
    wanted = select(k.epoch, k.wrapped).where(k.tenant_id == tx.tenant_id, k.key_id == row.key_id)
    stored = (await tx.execute(wanted)).one()
    key = keys.unwrap(row.key_id, stored.epoch, stored.wrapped)
    opened: dict[str, Any] = orjson.loads(
        keys.open(reading, row.customer_id, key, SEALED, row.order_id, row.sealed)
    )
    return opened


async def page(
    tx: Tx,
    business_id: UUID,
    *,
    size: int,
    after: Sequence[Any] | None,
    customer_id: UUID | None = None,
    statuses: Sequence[int] = (),
    placed_after: datetime | None = None,
    placed_before: datetime | None = None,
    source: str = "",
    external_id: str = "",
) -> list[Row[Any]]:
    """Up to `size` orders of a business, the last placed first; `after` are instant and id of the last one seen."""
    wanted = select(orders).where(_o.tenant_id == tx.tenant_id, _o.business_id == business_id)
    wanted = wanted.where(_o.status != _NEVER)
    if statuses:
        wanted = wanted.where(_o.status.in_(statuses))
    if customer_id:
        wanted = wanted.where(_o.customer_id == customer_id)
    if placed_after:
        wanted = wanted.where(_o.placed_at >= placed_after)
    if placed_before:
        wanted = wanted.where(_o.placed_at < placed_before)
    if source:
        wanted = wanted.where(_o.source == source)
    if external_id:
        wanted = wanted.where(_o.external_id == external_id)
    if after:
        wanted = wanted.where(tuple_(_o.placed_at, _o.order_id) < tuple_(*after))
    ordered = wanted.order_by(_o.placed_at.desc(), _o.order_id.desc()).limit(size)
    return list((await tx.execute(ordered)).all())


async def metrics(tx: Tx, business_id: UUID, customer_id: UUID) -> Row[Any] | None:
    """What is counted of a customer's orders, or None before the first."""
    m = customer_metrics.c
    wanted = select(customer_metrics).where(
        m.tenant_id == tx.tenant_id, m.business_id == business_id, m.customer_id == customer_id
    )
    return (await tx.execute(wanted)).first()
