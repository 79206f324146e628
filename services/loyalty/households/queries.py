"""Reads of households: who is in which, and what each of them has."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, func, select, text

from libs.crypto import Column
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.pipeline import Query
from services.loyalty.households.tables import household_invitations, household_members, households
from services.loyalty.ledger import reading
from services.loyalty.problems import HouseholdInvitationNotFound, HouseholdNotFound
from services.loyalty.programs.queries import Program

SEALED = Column("household_members", "sealed")

_h, _m, _i, _k = households.c, household_members.c, household_invitations.c, subject_keys.c

# What stands in the way of those in a household and which account each has; who has none yet has nothing.
_STANDING = Query(
    text("""
    select k.customer_id, m.deleted or m.blocked as frozen, a.account_id
    from household_members k
    cross join lateral (
        select m.deleted, m.blocked from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = k.customer_id
          and m.present and m.joined_at is not null and m.merged_into is null limit 1
    ) m
    left join lateral (
        select a.account_id from accounts a
        where a.tenant_id = :tenant and a.program_id = :program and a.customer_id = k.customer_id limit 1
    ) a on true
    where k.tenant_id = :tenant and k.household_id = :household
""")
)
# The household of a member, which nobody leaves from now on. By a statement of its own: only the next one sees who is
# in it once the lock is held.
_SHARE = Query(
    text("""
    select h.household_id from household_members m
    join households h on h.tenant_id = :tenant and h.household_id = m.household_id
    where m.tenant_id = :tenant and m.program_id = :program and m.customer_id = :customer
    for share of h
""")
)

_FREE = text("""
    select a.account_id, a.program_id, a.customer_id from accounts a
    where a.tenant_id = :tenant and a.account_id > :after and a.merged_into is null and a.account_id in (
        select l.account_id from lots l
        where l.tenant_id = :tenant and l.pooled and l.remaining > 0 and l.remaining > l.held)
    order by a.account_id limit :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a member brings into a household."""

    balance: int = 0
    spendable: int = 0
    frozen: bool = False


async def household(tx: Tx, id_: UUID, *, lock: bool = False) -> Row[Any]:
    """A household of the caller's businesses. Raises HouseholdNotFound."""
    wanted = select(households).where(_h.tenant_id == tx.tenant_id, _h.household_id == id_)
    found = (await tx.execute(wanted.with_for_update(key_share=True) if lock else wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise HouseholdNotFound
    return found


async def lock(tx: Tx, household_ids: Iterable[UUID]) -> None:
    """Locks households, in the order of their ids."""
    wanted = select(_h.household_id).where(
        _h.tenant_id == tx.tenant_id, _h.household_id.in_(list(household_ids))
    )
    await tx.execute(wanted.order_by(_h.household_id).with_for_update(key_share=True))


async def is_inside(tx: Tx, program_id: UUID, customer_id: UUID) -> bool:
    """True if a customer is in a household of a program."""
    return await household_id(tx, program_id, customer_id) is not None


async def shared(tx: Tx, program_id: UUID, customer_id: UUID) -> UUID | None:
    """The household of a program that a customer is in, which nobody leaves from now on; None if they are in none."""
    where = {"tenant": tx.tenant_id, "program": program_id, "customer": customer_id}
    _, rows = await tx.together((reading.FIND_BY_KEY, {}), (_SHARE, where))
    return rows[0].household_id if rows else None


async def of_member(tx: Tx, program_id: UUID, customer_id: UUID, *, lock: bool = False) -> Row[Any]:
    """The household of a program that a customer is in. Raises HouseholdNotFound."""
    found = await household_id(tx, program_id, customer_id)
    if found is None:
        raise HouseholdNotFound
    return await household(tx, found, lock=lock)


async def household_id(tx: Tx, program_id: UUID, customer_id: UUID) -> UUID | None:
    """The household of a program that a customer is in; None if they are in none."""
    wanted = select(_m.household_id).where(
        _m.tenant_id == tx.tenant_id, _m.program_id == program_id, _m.customer_id == customer_id
    )
    found: UUID | None = await tx.scalar(wanted)
    return found


async def of_customer(tx: Tx, customer_id: UUID) -> list[Row[Any]]:
    """The households of the caller's businesses that a customer is in."""
    wanted = (
        select(households)
        .join(household_members, and_(_m.tenant_id == _h.tenant_id, _m.household_id == _h.household_id))
        .where(_m.tenant_id == tx.tenant_id, _m.customer_id == customer_id)
        .order_by(_h.household_id)
    )
    return [row for row in await tx.execute(wanted) if tx.caller.sees(row.business_id)]


_MEMBER: Select[Any] = select(household_members, _k.epoch, _k.wrapped).outerjoin(
    subject_keys, and_(_k.tenant_id == _m.tenant_id, _k.key_id == _m.key_id)
)


async def members(tx: Tx, household_ids: Iterable[UUID]) -> dict[UUID, list[Row[Any]]]:
    """Who is in each of these households, the first ones first, with the key of what is sealed."""
    ids = list(household_ids)
    found: dict[UUID, list[Row[Any]]] = {each: [] for each in ids}
    wanted = _MEMBER.where(_m.tenant_id == tx.tenant_id, _m.household_id.in_(ids))
    for row in await tx.execute(wanted.order_by(_m.joined_at, _m.customer_id)):
        found[row.household_id].append(row)
    return found


async def count_invitations(tx: Tx, household_id: UUID) -> int:
    """How many invitations into a household are good."""
    wanted = select(func.count()).where(
        _i.tenant_id == tx.tenant_id, _i.household_id == household_id, _i.expires_at > tx.now
    )
    return int(await tx.scalar(wanted))


async def invitation(tx: Tx, code: str) -> Row[Any]:
    """The invitation with this code, at a business of the caller's. Raises HouseholdInvitationNotFound."""
    wanted = select(household_invitations).where(
        _i.tenant_id == tx.tenant_id, _i.code == code, _i.expires_at > tx.now
    )
    found = (await tx.execute(wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise HouseholdInvitationNotFound
    return found


async def invitation_row(tx: Tx, invitation_id: UUID) -> Row[Any]:
    """An invitation, past its time or not. Raises HouseholdInvitationNotFound."""
    wanted = select(household_invitations).where(
        _i.tenant_id == tx.tenant_id, _i.invitation_id == invitation_id
    )
    found = (await tx.execute(wanted)).first()
    if found is None:
        raise HouseholdInvitationNotFound
    return found


async def having_others_points(tx: Tx, after: UUID, limit: int) -> list[Row[Any]]:
    """Who has points of others that are not set aside: rows (account_id, program_id, customer_id), by account."""
    where = {"tenant": tx.tenant_id, "after": after, "limit": limit}
    return list((await tx.execute(_FREE, where)).all())


async def standings(tx: Tx, program: Program, household_id: UUID) -> list[Row[Any]]:
    """Of those in a household who are members of the business: rows (customer_id, frozen, account_id or None)."""
    where = {
        "tenant": tx.tenant_id,
        "business": program.business_id,
        "program": program.program_id,
        "household": household_id,
    }
    return (await tx.together((_STANDING, where)))[0]


async def shares(tx: Tx, program: Program, household_id: UUID) -> dict[UUID, Share]:
    """What each member of a household has, as of now; nothing of whom nobody knows here any more."""
    rows = await standings(tx, program, household_id)
    ids = [row.account_id for row in rows if row.account_id is not None]
    books = await reading.books(tx, ids, {program.program_id: program}, lock=False)
    return {
        row.customer_id: Share(
            balance=books[row.account_id].account.balance if row.account_id in books else 0,
            spendable=books[row.account_id].spendable if row.account_id in books else 0,
            frozen=row.frozen,
        )
        for row in rows
    }
