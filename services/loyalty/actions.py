"""Writes about memberships. Each applies what is newer, so events may come twice, late and in any order."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func
from sqlalchemy.dialects.postgresql import insert

from libs.db import Tx
from services.loyalty.tables import memberships

_mine = memberships.c


async def join(
    tx: Tx,
    business_id: UUID,
    customer_id: UUID,
    *,
    version: int,
    joined_at: datetime,
    blocked: bool,
    guest: bool = False,
) -> None:
    """Makes a customer a member as of `joined_at`, in the standing of this version."""
    fresh = insert(memberships).values(
        tenant_id=tx.tenant_id,
        business_id=business_id,
        customer_id=customer_id,
        joined_at=joined_at,
        blocked=blocked,
        guest=guest,
        standing_version=version,
        present=True,
        deleted=False,
        presence_version=version,
    )

    def later(name: str) -> ColumnElement[Any]:
        newer = _mine.presence_version < fresh.excluded.presence_version
        return case((newer, fresh.excluded[name]), else_=_mine[name])

    merged = {
        # The last joining counts, also if something newer was heard before it.
        "joined_at": func.greatest(_mine.joined_at, fresh.excluded.joined_at),
        "blocked": case(
            (_mine.standing_version < fresh.excluded.standing_version, fresh.excluded.blocked),
            else_=_mine.blocked,
        ),
        "guest": case(
            (_mine.standing_version < fresh.excluded.standing_version, fresh.excluded.guest),
            else_=_mine.guest,
        ),
        "standing_version": func.greatest(_mine.standing_version, fresh.excluded.standing_version),
        "present": later("present"),
        "deleted": later("deleted"),
        "presence_version": func.greatest(_mine.presence_version, fresh.excluded.presence_version),
    }
    await tx.execute(fresh.on_conflict_do_update(constraint="memberships_pkey", set_=merged))


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
