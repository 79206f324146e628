"""Reads about merges: who a customer is by now, and what became of points that moved."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, bindparam, or_, select, text

from libs import arrays
from libs.db import Tx
from libs.pipeline import Query
from services.loyalty.ledger.reading import FIND_BY_KEY
from services.loyalty.merges.tables import merged_accounts, merges

_m, _ma = merges.c, merged_accounts.c

# What became of twins for good: redeemed, given away, or taken by hand. What lapsed or was returned would have been
# lost without the merge as well, and a hold that came with them was the source's own. What is pooled is of others.
_SPENT = text("""
    select al.lot_id, -sum(al.points) as points
    from allocations al join entries e on e.tenant_id = al.tenant_id and e.entry_id = al.entry_id
    join lots l on l.tenant_id = al.tenant_id and l.lot_id = al.lot_id and not l.pooled
    where al.tenant_id = :tenant and al.lot_id = any(:lots)
      and (e.kind in (2, 4, 6) or (e.kind = 5 and e.reverses_id is not null and al.points > 0))
      and (e.hold_id is null or e.hold_id <> all(:holds))
    group by 1 having sum(al.points) < 0
""").bindparams(bindparam("lots", type_=ARRAY(Uuid)), bindparam("holds", type_=ARRAY(Uuid)))


_STEPS = Query(
    text("""
    select m.source_id, m.target_id from merges m
    where m.tenant_id = :tenant and m.source_id = any(:asked) and m.merged_at is not null and m.undone_at is null
""")
)


async def survivors(tx: Tx, customer_ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Who each of these customers is by now: themselves, or whom they were merged into."""
    found = {each: each for each in customer_ids}
    asked: Collection[UUID] = set(found)
    while asked:
        where = {"tenant": tx.tenant_id, "asked": arrays.uuids(list(asked))}
        _, rows = await tx.together((FIND_BY_KEY, {}), (_STEPS, where))
        step = {row.source_id: row.target_id for row in rows}
        found = {each: step.get(now, now) for each, now in found.items()}
        asked = set(step.values())
    return found


async def merge(tx: Tx, operation_id: UUID) -> Row[Any] | None:
    """A merge, or None."""
    wanted = select(merges).where(_m.tenant_id == tx.tenant_id, _m.operation_id == operation_id)
    return (await tx.execute(wanted)).first()


async def later(tx: Tx, row: Row[Any]) -> list[Row[Any]]:
    """The merges that hold, were applied after this one, and touch the same people; the oldest first."""
    wanted = select(merges).where(
        _m.tenant_id == tx.tenant_id,
        _m.merged_at.is_not(None),
        _m.undone_at.is_(None),
        _m.step > row.step,
    )
    people, found = {row.source_id, row.target_id, row.survivor_id}, []
    for each in await tx.execute(wanted.order_by(_m.step)):
        theirs = {each.source_id, each.target_id, each.survivor_id}
        if theirs & people:
            people |= theirs
            found.append(each)
    return found


async def merged_with(tx: Tx, customer_id: UUID) -> set[UUID]:
    """A customer and all who were ever merged into them."""
    found, asked = {customer_id}, {customer_id}
    while asked:
        wanted = select(_m.source_id).where(
            _m.tenant_id == tx.tenant_id,
            or_(_m.survivor_id.in_(list(asked)), _m.target_id.in_(list(asked))),
            _m.merged_at.is_not(None),
            _m.undone_at.is_(None),
        )
        asked = set((await tx.execute(wanted)).scalars()) - found
        found |= asked
    return found


async def accounts_of(tx: Tx, operation_id: UUID) -> list[Row[Any]]:
    """What a merge moved, account by account."""
    wanted = select(merged_accounts).where(_ma.tenant_id == tx.tenant_id, _ma.operation_id == operation_id)
    return list((await tx.execute(wanted.order_by(_ma.program_id))).all())


async def spent(tx: Tx, twins: Sequence[UUID], holds: Sequence[UUID]) -> dict[UUID, int]:
    """What was spent for good of these lots, but for these holds."""
    where = {"tenant": tx.tenant_id, "lots": list(twins), "holds": list(holds)}
    return {row.lot_id: int(row.points) for row in await tx.execute(_SPENT, where)}
