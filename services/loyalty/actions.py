"""Writes about memberships. Each applies what is newer, so events may come twice, late and in any order."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from libs.db import Tx
from libs.pipeline import Query
from services.loyalty.ledger.reading import FIND_BY_KEY
from services.loyalty.people.actions import FOR_GOOD, NOT_NOW
from services.loyalty.tables import memberships

_mine = memberships.c

# The last joining counts, also if something newer was heard before it. Whoever was erased is gone for good.
_JOIN = Query(
    text("""
    insert into memberships as m (tenant_id, business_id, customer_id, joined_at, blocked, guest, standing_version,
                                  present, deleted, presence_version)
    select :tenant, j.business_id, j.customer_id, j.joined_at, j.blocked or e.gone, j.guest,
           greatest(j.version, e.version), not e.gone, e.gone, greatest(j.version, e.version)
    from json_to_recordset(cast(:joinings as json))
        as j (business_id uuid, customer_id uuid, joined_at timestamptz, blocked boolean, guest boolean, version bigint)
    cross join lateral (
        select count(*) > 0 as gone, max(p.version) as version from people p
        where p.tenant_id = :tenant and p.customer_id = j.customer_id and p.version = :erased
    ) e
    on conflict on constraint memberships_pkey do update
    set joined_at = greatest(m.joined_at, excluded.joined_at),
        blocked = case when m.standing_version < excluded.standing_version then excluded.blocked else m.blocked end,
        guest = case when m.standing_version < excluded.standing_version then excluded.guest else m.guest end,
        standing_version = greatest(m.standing_version, excluded.standing_version),
        present = case when m.presence_version < excluded.presence_version then excluded.present else m.present end,
        deleted = case when m.presence_version < excluded.presence_version then excluded.deleted else m.deleted end,
        presence_version = greatest(m.presence_version, excluded.presence_version)
""")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """A customer became a member as of `joined_at`, in the standing of this version."""

    business_id: UUID
    customer_id: UUID
    version: int
    joined_at: datetime
    blocked: bool
    guest: bool


async def join(tx: Tx, joinings: Iterable[Joining]) -> None:
    """Makes customers members, but for those who were erased."""
    newest: dict[tuple[UUID, UUID], Joining] = {}
    for each in joinings:
        key = each.customer_id, each.business_id
        before = newest.get(key, each)
        last = max(each, before, key=lambda one: one.version)
        newest[key] = replace(last, joined_at=max(each.joined_at, before.joined_at))
    rows = [_joining(newest[key]) for key in sorted(newest)]  # in one order everywhere
    where = {"tenant": tx.tenant_id, "erased": FOR_GOOD, "joinings": orjson.dumps(rows).decode()}
    await tx.together((FIND_BY_KEY, {}), (NOT_NOW, {"tenant": str(tx.tenant_id)}), (_JOIN, where))


def _joining(each: Joining) -> dict[str, object]:
    return {name: getattr(each, name) for name in Joining.__slots__}


async def set_standing(
    tx: Tx, business_id: UUID, customer_id: UUID, *, version: int, blocked: bool, guest: bool = False
) -> None:
    """Blocks or unblocks a member, and says whether they are a guest, as of this version of the customer."""
    fresh = insert(memberships).values(
        tenant_id=tx.tenant_id,
        business_id=business_id,
        customer_id=customer_id,
        blocked=blocked,
        guest=guest,
        standing_version=version,
    )
    await tx.execute(
        fresh.on_conflict_do_update(
            constraint="memberships_pkey",
            set_={
                "blocked": fresh.excluded.blocked,
                "guest": fresh.excluded.guest,
                "standing_version": fresh.excluded.standing_version,
            },
            where=_mine.standing_version < fresh.excluded.standing_version,
        )
    )


async def set_presence(
    tx: Tx, business_ids: Iterable[UUID], customer_id: UUID, *, version: int, present: bool, deleted: bool
) -> None:
    """Says whether a customer still belongs to these businesses, as of this version of the customer."""
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "business_id": business_id,
            "customer_id": customer_id,
            "present": present,
            "deleted": deleted,
            "presence_version": version,
        }
        for business_id in sorted(business_ids)
    ]
    fresh = insert(memberships).values(rows)
    await tx.execute(
        fresh.on_conflict_do_update(
            constraint="memberships_pkey",
            set_={
                "present": fresh.excluded.present,
                "deleted": fresh.excluded.deleted,
                "presence_version": fresh.excluded.presence_version,
            },
            where=_mine.presence_version < fresh.excluded.presence_version,
        )
    )
