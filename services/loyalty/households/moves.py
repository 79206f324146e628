"""What becomes of households when customers go, and when two of them are one."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, select, text, update

from libs.db import Tx
from services.loyalty.households import actions, queries, rules
from services.loyalty.households.tables import household_invitations, household_members

_m, _i = household_members.c, household_invitations.c

_GONE = text("""
    select h.household_id, h.customer_id from household_members h
    join memberships m on m.tenant_id = :tenant and m.business_id = h.business_id and m.customer_id = h.customer_id
    where h.tenant_id = :tenant and h.customer_id = any(:customers) and (m.deleted or not m.present)
    order by h.household_id, h.joined_at, h.customer_id
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))


async def leave_gone(tx: Tx, customer_ids: Collection[UUID]) -> None:
    """Takes those of these customers out who are deleted or no members of the business any more.

    Emits HouseholdLeft, HouseholdClosed.
    """
    rows = (await tx.execute(_GONE, {"tenant": tx.tenant_id, "customers": list(customer_ids)})).all()
    await queries.lock(tx, {row.household_id for row in rows})
    for row in rows:
        household = await queries.household(tx, row.household_id)
        await actions.leave_household(tx, household, row.customer_id, rules.GONE)


async def lock(tx: Tx, customer_ids: Collection[UUID], notes: Iterable[Mapping[str, Any]] = ()) -> None:
    """Locks the households of customers whom a merge concerns, before any account; `notes` are of `move`."""
    theirs = select(_m.household_id).where(
        _m.tenant_id == tx.tenant_id, _m.customer_id.in_(list(customer_ids))
    )
    ids = set((await tx.execute(theirs)).scalars())
    ids |= {UUID(each["household"]) for note in notes for each in note.get("left", ())}
    await queries.lock(tx, ids)


async def move(tx: Tx, source_id: UUID, survivor_id: UUID) -> dict[str, Any]:
    """Gives the survivor the source's places in households that are locked; gives what that was, for `move_back`.

    Where the survivor has a place in the program, the source leaves theirs. Emits HouseholdLeft, HouseholdJoined,
    HouseholdClosed.
    """
    theirs = select(household_members).where(_m.tenant_id == tx.tenant_id, _m.customer_id == source_id)
    taken, left = [], []
    for row in (await tx.execute(theirs.order_by(_m.household_id))).all():
        if await queries.is_inside(tx, row.program_id, survivor_id):
            household = await queries.household(tx, row.household_id)
            await actions.leave_household(tx, household, source_id, rules.MERGED)
            left.append(
                {
                    "household": str(row.household_id),
                    "joined_at": row.joined_at.isoformat(),
                    "added_by": row.added_by,
                    "key": str(row.key_id) if row.key_id else None,
                    "sealed": row.sealed.hex() if row.sealed else None,
                }
            )
        else:
            await _replace(tx, row.household_id, source_id, survivor_id)
            taken.append(str(row.household_id))
    return {"taken": taken, "left": left}


async def move_back(tx: Tx, moved: Mapping[str, Any], source_id: UUID, survivor_id: UUID) -> None:
    """Gives the source their places back, unless the survivor has left them since; a closed household is open again.

    Emits HouseholdLeft, HouseholdJoined.
    """
    for household_id in map(UUID, moved.get("taken", ())):
        inside = (await queries.members(tx, [household_id]))[household_id]
        if any(row.customer_id == survivor_id for row in inside):
            await _replace(tx, household_id, survivor_id, source_id)
    for each in moved.get("left", ()):
        household = await queries.household(tx, UUID(each["household"]))
        if not await queries.is_inside(tx, household.program_id, source_id):
            await actions.insert_member(
                tx,
                household,
                source_id,
                joined_at=datetime.fromisoformat(each["joined_at"]),
                added_by=each["added_by"],
                key_id=UUID(each["key"]) if each["key"] else None,
                sealed=bytes.fromhex(each["sealed"]) if each["sealed"] else None,
            )
            await actions.tell_joined(tx, household, source_id)


async def _replace(tx: Tx, household_id: UUID, customer_id: UUID, other_id: UUID) -> None:
    """Puts a customer into the place of another, in a locked household."""
    place = (_m.tenant_id == tx.tenant_id, _m.household_id == household_id, _m.customer_id == customer_id)
    await tx.execute(update(household_members).where(*place).values(customer_id=other_id))
    invited = (_i.tenant_id == tx.tenant_id, _i.household_id == household_id, _i.invited_by == customer_id)
    await tx.execute(update(household_invitations).where(*invited).values(invited_by=other_id))
    household = await queries.household(tx, household_id)
    await actions.tell_replaced(tx, household, customer_id, other_id)
