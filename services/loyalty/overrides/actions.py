"""Writes about bulk overrides: each member once, however often the job begins again."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.db import Tx
from services.loyalty.ledger import queries as ledger
from services.loyalty.overrides.tables import tier_bulk_members, tier_bulks
from services.loyalty.problems import MembershipNotFound, TierNotFound
from services.loyalty.programs.queries import Program
from services.loyalty.tiers import actions as tiers
from services.loyalty.tiers import queries as tiers_queries
from services.loyalty.tiers.actions import Said

_b, _m = tier_bulks.c, tier_bulk_members.c


async def begin(
    tx: Tx,
    bulk_id: UUID,
    program: Program,
    *,
    customer_ids: Iterable[UUID],
    segment_id: UUID | None,
    tier: str | None,
    until: datetime | None,
    reason: str,
) -> None:
    """Keeps what a job is to do: for these customers, or for a segment. Raises TierNotFound."""
    if tier is not None and not (await tiers_queries.ladder(tx, program.program_id)).has(tier):
        raise TierNotFound
    whose = {"tenant_id": tx.tenant_id, "bulk_id": bulk_id, "business_id": program.business_id}
    values = {
        "program_id": program.program_id,
        "segment_id": segment_id,
        "tier": tier,
        "override_until": until,
        "reason": reason,
        "actor": tx.caller.on_behalf_of or tx.caller.subject,
        "created_at": tx.now,
    }
    await tx.execute(insert(tier_bulks).values(**whose, **values))
    listed = [{**whose, "customer_id": each, "fault": None} for each in customer_ids]
    if listed:
        await tx.execute(insert(tier_bulk_members), listed)


async def override(tx: Tx, program: Program, bulk: Row[Any], customer_ids: Sequence[UUID]) -> None:
    """Does it for some of the members, and keeps for whom it could not be done.

    Emits TierUpgraded, TierDowngraded. Raises TierNotFound.
    """
    known = await ledger.members(tx, program.business_id, customer_ids)
    said = Said(actor=bulk.actor, bulk_id=bulk.bulk_id)
    if bulk.tier is None:
        await tiers.clear_overrides(tx, program, known, said)
    else:
        await tiers.set_overrides(tx, program, known, bulk.tier, bulk.override_until, said)
    wrong = [
        {
            "tenant_id": tx.tenant_id,
            "bulk_id": bulk.bulk_id,
            "customer_id": each,
            "business_id": program.business_id,
            "fault": MembershipNotFound.reason,
        }
        for each in customer_ids
        if each not in known
    ]
    if wrong:
        fresh = upsert(tier_bulk_members).values(wrong)
        same = {"fault": fresh.excluded.fault}
        await tx.execute(fresh.on_conflict_do_update(constraint="tier_bulk_members_pkey", set_=same))


async def forget(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Erases on which lists people were."""
    mine = (_m.tenant_id == tx.tenant_id, _m.customer_id.in_(customer_ids))
    await tx.execute(delete(tier_bulk_members).where(*mine))


async def clean(tx: Tx, kept_for: timedelta, limit: int) -> int:
    """Forgets members of bulks that are older than this; gives how many."""
    old = (
        select(_m.bulk_id, _m.customer_id)
        .join(tier_bulks, (_b.tenant_id == _m.tenant_id) & (_b.bulk_id == _m.bulk_id))
        .where(_m.tenant_id == tx.tenant_id, _b.created_at < tx.now - kept_for)
        .limit(limit)
        .subquery()
    )
    gone = delete(tier_bulk_members).where(
        _m.tenant_id == tx.tenant_id, _m.bulk_id == old.c.bulk_id, _m.customer_id == old.c.customer_id
    )
    return (await tx.execute(gone)).rowcount
