"""Reads about segments: in which a member is, and who is in one."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, bindparam, text

from libs.db import Tx

Segments = dict[tuple[UUID, UUID], frozenset[str]]

# Whoever was merged into a member brings their segments along.
_SEGMENTS = text("""
    with recursive people as (
        select c as customer_id, c as root from unnest(:customers) as c
        union
        select m.source_id, p.root from people p
        join merges m on m.tenant_id = :tenant and m.target_id = p.customer_id
         and m.merged_at is not null and m.undone_at is null
    )
    select distinct p.root, s.business_id, s.segment_id
    from people p join segment_members s
      on s.tenant_id = :tenant and s.customer_id = p.customer_id and s.inside
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))
_MEMBERS = text("""
    select s.customer_id from segment_members s
    where s.tenant_id = :tenant and s.segment_id = :segment and s.business_id = :business and s.inside
      and s.customer_id > :after
    order by s.customer_id limit :limit
""")
_COUNT = text("""
    select count(*) from segment_members s
    where s.tenant_id = :tenant and s.segment_id = :segment and s.business_id = :business and s.inside
""")


async def segments_of(tx: Tx, customer_ids: Iterable[UUID]) -> Segments:
    """The ids of the segments that members are in, by (business, customer); who is in none is left out."""
    rows: list[Row[Any]] = list(
        (await tx.execute(_SEGMENTS, {"tenant": tx.tenant_id, "customers": sorted(set(customer_ids))})).all()
    )
    found: dict[tuple[UUID, UUID], set[str]] = {}
    for row in rows:
        found.setdefault((row.business_id, row.root), set()).add(str(row.segment_id))
    return {key: frozenset(ids) for key, ids in found.items()}


async def members_after(tx: Tx, business_id: UUID, segment_id: UUID, after: UUID, limit: int) -> list[UUID]:
    """Up to `limit` customers of a segment as events named them, in the order of their ids, those after one."""
    where = {"segment": segment_id, "business": business_id, "after": after, "limit": limit}
    return list((await tx.execute(_MEMBERS, {"tenant": tx.tenant_id, **where})).scalars())


async def count(tx: Tx, business_id: UUID, segment_id: UUID) -> int:
    """How many customers are in a segment."""
    where = {"tenant": tx.tenant_id, "segment": segment_id, "business": business_id}
    return int(await tx.scalar(_COUNT, where))
