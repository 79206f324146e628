"""Reads of the timeline: which entries a page has, from all their tables at once, and then those entries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Row,
    SmallInteger,
    Table,
    TextClause,
    Uuid,
    bindparam,
    select,
    text,
)

from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from services.customers.activities import queries as activities
from services.customers.notes import queries as notes
from services.customers.orders.tables import orders
from services.customers.timeline.tables import customer_changes, customer_reports

ACTIVITY, ORDER, PROFILE, MEMBERSHIP, NOTE, REPORT = range(1, 7)  # TimelineKind


class At(NamedTuple):
    """Where an entry stands: a timeline is sorted by this, the greatest first."""

    occurred_at: datetime
    entry_id: UUID
    kind: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries of a timeline are asked for. Empty `kinds` or `activity_kinds`: all."""

    kinds: frozenset[int] = frozenset()
    activity_kinds: frozenset[int] = frozenset()
    since: datetime | None = None
    before: datetime | None = None
    notes: bool = True

    def has(self, kind: int) -> bool:
        """True if entries of this kind are asked for."""
        if kind == NOTE and not self.notes:
            return False
        return not self.kinds or kind in self.kinds


class _Source(NamedTuple):
    """A table of entries, its two columns that say where they stand, and which of its rows are meant."""

    table: str
    at: str
    id: str
    rows: str = ""


# Each has an index by (tenant, business, customer, at, id): it gives the last of them without looking at others.
_SOURCES = {
    ACTIVITY: _Source("activities", "occurred_at", "activity_id"),
    ORDER: _Source("orders", "placed_at", "order_id", " and status <> 0"),
    PROFILE: _Source("customer_changes", "changed_at", "change_id", " and kind = 1"),
    MEMBERSHIP: _Source("customer_changes", "changed_at", "change_id", " and kind <> 1"),
    NOTE: _Source("notes", "created_at", "note_id"),
    REPORT: _Source("customer_reports", "reported_at", "event_id"),
}


async def page(
    tx: Tx, business_id: UUID, customer_id: UUID, wanted: Wanted, size: int, after: At | None
) -> list[At]:
    """Where the next `size` entries of a timeline stand, newest first, those after `after`."""
    kinds = [kind for kind in _SOURCES if wanted.has(kind)]
    if not kinds:
        return []
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "business": business_id,
        "customer": customer_id,
        "size": size,
    }
    if wanted.since:
        where["since"] = wanted.since
    if wanted.before:
        where["before"] = wanted.before
    if wanted.activity_kinds and ACTIVITY in kinds:
        where["activity_kinds"] = sorted(wanted.activity_kinds)
    if after:
        where |= {"at": after.occurred_at, "id": after.entry_id}
    rows = await tx.execute(_merged(kinds, wanted, after), where)
    return [At(row.at, row.id, row.kind) for row in rows]


def _merged(kinds: Sequence[int], wanted: Wanted, after: At | None) -> TextClause:
    """The statement of a page: of each source its last `size`, and of all those the last `size`."""
    limits = ""
    if wanted.since:
        limits += " and {at} >= :since"
    if wanted.before:
        limits += " and {at} < :before"
    parts = []
    for kind in kinds:
        source = _SOURCES[kind]
        rows = source.rows + limits.format(at=source.at)
        if kind == ACTIVITY and wanted.activity_kinds:
            rows += " and kind = any (:activity_kinds)"
        if after:
            # Two entries of one instant and id stand in the order of their kinds.
            beyond = "<=" if kind < after.kind else "<"
            rows += f" and ({source.at}, {source.id}) {beyond} (:at, :id)"
        parts.append(
            f"(select {source.at} as at, {source.id} as id, {kind} as kind from {source.table}"  # noqa: S608
            f" where tenant_id = :tenant and business_id = :business and customer_id = :customer{rows}"
            f" order by {source.at} desc, {source.id} desc limit :size)"
        )
    merged = " union all ".join(parts)
    statement = f"select * from ({merged}) as merged order by at desc, id desc, kind desc limit :size"  # noqa: S608
    types: dict[str, Any] = {
        "since": DateTime(timezone=True),
        "before": DateTime(timezone=True),
        "at": DateTime(timezone=True),
        "id": Uuid(),
        "activity_kinds": ARRAY(SmallInteger),
    }
    return text(statement).bindparams(
        *(bindparam(name, type_=type_) for name, type_ in types.items() if f":{name}" in _words(statement))
    )


def _words(statement: str) -> set[str]:
    return {word.strip("(),") for word in statement.split()}


async def entries(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    business_id: UUID,
    customer_id: UUID,
    places: Sequence[At],
) -> Mapping[At, Any]:
    """What stands at these places: views of activities and notes, opened, and rows of the rest."""
    by_kind: dict[int, list[At]] = {}
    for place in places:
        by_kind.setdefault(place.kind, []).append(place)
    found: dict[At, Any] = {}
    for kind, mine in by_kind.items():
        at = [(place.occurred_at, place.entry_id) for place in mine]
        views: Mapping[UUID, Any]
        if kind == ACTIVITY:
            views = await activities.these(tx, keys, reading, business_id, customer_id, at)
        elif kind == NOTE:
            views = await notes.these(tx, keys, reading, customer_id, [id_ for _, id_ in at])
        elif kind == ORDER:
            views = await _orders(tx, business_id, [id_ for _, id_ in at])
        elif kind == REPORT:
            views = await _rows(tx, customer_reports, kind, business_id, customer_id, at)
        else:
            views = await _rows(tx, customer_changes, kind, business_id, customer_id, at)
        # What was deleted since the page was made is left out.
        found |= {place: views[place.entry_id] for place in mine if place.entry_id in views}
    return found


async def _orders(tx: Tx, business_id: UUID, order_ids: Collection[UUID]) -> dict[UUID, Row[Any]]:
    mine = orders.c
    wanted = select(orders).where(
        mine.tenant_id == tx.tenant_id, mine.business_id == business_id, mine.order_id.in_(order_ids)
    )
    return {row.order_id: row for row in await tx.execute(wanted)}


async def _rows(
    tx: Tx, table: Table, kind: int, business_id: UUID, customer_id: UUID, at: Sequence[tuple[datetime, UUID]]
) -> dict[UUID, Row[Any]]:
    mine, source = table.c, _SOURCES[kind]
    wanted = select(table).where(
        mine.tenant_id == tx.tenant_id,
        mine.business_id == business_id,
        mine.customer_id == customer_id,
        mine[source.at].between(min(at)[0], max(at)[0]),
        mine[source.id].in_([id_ for _, id_ in at]),
    )
    return {getattr(row, source.id): row for row in await tx.execute(wanted)}
