"""Writes about segments: what is newer counts, in whatever order it comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from sqlalchemy import delete, text

from libs.db import Tx
from services.loyalty.segments.tables import segment_members

_s = segment_members.c
_MEMBERS = text("""
    insert into segment_members as s
    select r.* from json_populate_recordset(null::segment_members, cast(:rows as json)) r
    on conflict on constraint segment_members_pkey do update
    set business_id = excluded.business_id, inside = excluded.inside, version = excluded.version
    where s.version < excluded.version
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an event says of a customer and a segment."""

    segment_id: UUID
    customer_id: UUID
    business_id: UUID
    inside: bool
    version: int


async def place(tx: Tx, told: Sequence[Told]) -> None:
    """Puts customers into segments and takes them out, as the newest version of each says."""
    newest: dict[tuple[UUID, UUID], Told] = {}
    for each in sorted(told, key=lambda each: each.version):
        newest[each.segment_id, each.customer_id] = each
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "segment_id": each.segment_id,
            "customer_id": each.customer_id,
            "business_id": each.business_id,
            "inside": each.inside,
            "version": each.version,
        }
        for _, each in sorted(newest.items())
    ]
    if rows:
        await tx.execute(_MEMBERS, {"rows": orjson.dumps(rows).decode()})


async def forget(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Erases in which segments people were."""
    mine = (_s.tenant_id == tx.tenant_id, _s.customer_id.in_(customer_ids))
    await tx.execute(delete(segment_members).where(*mine))
