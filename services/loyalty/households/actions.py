"""Writes about households. Whoever changes who is in one holds its row."""

import secrets
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, delete, insert, update

from libs.crypto import TenantKeys
from libs.db import Tx
from libs.outbox import Fact, emit_all
from libs.problems import EtagMismatch
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.households import queries, rules, wire
from services.loyalty.households.tables import household_invitations, household_members, households
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger.actions import text_key
from services.loyalty.problems import (
    AlreadyInHousehold,
    HouseholdClosed,
    HouseholdInvitationNotFound,
    HouseholdMemberNotFound,
    PoolingNotAllowed,
)
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program

_h, _m, _i = households.c, household_members.c, household_invitations.c


async def create_household(tx: Tx, program: Program, customer_id: UUID, household_id: UUID) -> None:
    """Makes a household with one member. Emits HouseholdCreated.

    Raises PoolingNotAllowed, MembershipNotFound, MembershipFrozen, ProgramInactive, AlreadyInHousehold.
    """
    await _may_share(tx, program, customer_id)
    row = {
        "tenant_id": tx.tenant_id,
        "household_id": household_id,
        "business_id": program.business_id,
        "program_id": program.program_id,
        "created_at": tx.now,
        "version": 1,
    }
    await tx.execute(insert(households).values(row))
    first = await queries.household(tx, household_id)
    await insert_member(tx, first, customer_id)
    await emit_all(tx, [_fact(first, events.HouseholdCreated, [customer_id])])


async def add_member(
    tx: Tx, keys: TenantKeys, before: Row[Any], customer_id: UUID, reason: str, etag: str
) -> None:
    """Takes a member into a locked household; the reason is sealed. Emits HouseholdJoined.

    Raises EtagMismatch, HouseholdClosed, HouseholdFull, and what `create_household` does.
    """
    if wire.is_stale(before, etag):
        raise EtagMismatch
    if before.closed_at is not None:
        raise HouseholdClosed
    inside = (await queries.members(tx, [before.household_id]))[before.household_id]
    if any(row.customer_id == customer_id for row in inside):
        return
    program = programs.program_of(await programs.row(tx, before.program_id))
    await _may_share(tx, program, customer_id)
    rules.make_room(len(inside), program.settings.largest_household)
    key = await text_key(tx, keys, customer_id)
    caller = tx.caller
    written = {"reason": reason, "actor_name": caller.display_name or ""}
    sealed = keys.seal(key, queries.SEALED, before.household_id, orjson.dumps(written))
    actor = caller.on_behalf_of or caller.subject
    await insert_member(tx, before, customer_id, added_by=actor, key_id=key.key_id, sealed=sealed)
    await tell_joined(tx, before, customer_id)


async def create_invitation(
    tx: Tx, program: Program, household: Row[Any], customer_id: UUID, invitation_id: UUID
) -> None:
    """Makes a code for one more in a locked household that the customer is in.

    Raises PoolingNotAllowed, MembershipNotFound, MembershipFrozen, ProgramInactive, HouseholdFull.
    """
    await _may_share(tx, program, customer_id, inside=True)
    past = (_i.tenant_id == tx.tenant_id, _i.household_id == household.household_id, _i.expires_at <= tx.now)
    await tx.execute(delete(household_invitations).where(*past))
    inside = (await queries.members(tx, [household.household_id]))[household.household_id]
    invited = await queries.count_invitations(tx, household.household_id)
    rules.make_room(len(inside) + invited, program.settings.largest_household)
    row = {
        "tenant_id": tx.tenant_id,
        "invitation_id": invitation_id,
        "household_id": household.household_id,
        "business_id": program.business_id,
        "program_id": program.program_id,
        "code": rules.code_of(secrets.token_bytes(rules.CODE_BYTES)),
        "invited_by": customer_id,
        "created_at": tx.now,
        "expires_at": tx.now + rules.INVITATION_HOLDS,
    }
    await tx.execute(insert(household_invitations).values(row))


async def join_household(tx: Tx, invitation: Row[Any], customer_id: UUID) -> None:
    """Accepts an invitation. Emits HouseholdJoined.

    Raises HouseholdInvitationNotFound, HouseholdFull, and what `create_household` does.
    """
    before = await queries.household(tx, invitation.household_id, lock=True)
    program = programs.program_of(await programs.row(tx, before.program_id))
    await _may_share(tx, program, customer_id)
    used = delete(household_invitations).where(
        _i.tenant_id == tx.tenant_id, _i.invitation_id == invitation.invitation_id
    )
    if (await tx.execute(used.returning(_i.invitation_id))).first() is None:
        raise HouseholdInvitationNotFound  # somebody else was faster, or the inviter has left
    inside = (await queries.members(tx, [before.household_id]))[before.household_id]
    rules.make_room(len(inside), program.settings.largest_household)
    await insert_member(tx, before, customer_id)
    await tell_joined(tx, before, customer_id)


async def leave_household(
    tx: Tx, before: Row[Any], customer_id: UUID, reason: str, etag: str = ""
) -> Row[Any]:
    """Takes a member out of a locked household; gives it as it is now. Emits HouseholdLeft, HouseholdClosed.

    Raises EtagMismatch, HouseholdMemberNotFound.
    """
    if wire.is_stale(before, etag):
        raise EtagMismatch
    gone = delete(household_members).where(
        _m.tenant_id == tx.tenant_id,
        _m.household_id == before.household_id,
        _m.customer_id == customer_id,
    )
    if (await tx.execute(gone.returning(_m.customer_id))).first() is None:
        raise HouseholdMemberNotFound
    theirs = (_i.household_id == before.household_id, _i.invited_by == customer_id)
    await tx.execute(delete(household_invitations).where(_i.tenant_id == tx.tenant_id, *theirs))
    inside = await _inside(tx, before.household_id)
    after = await _write(tx, before)
    facts = [_fact(after, events.HouseholdLeft, inside, customer_id=str(customer_id), reason=reason)]
    if not inside:
        after = await _write(tx, after, closed_at=tx.now)
        facts.append(_fact(after, events.HouseholdClosed, []))
    await emit_all(tx, facts)
    return after


async def insert_member(tx: Tx, household: Row[Any], customer_id: UUID, **more: Any) -> None:
    """Writes that a customer is in a household, from now on unless `more` says otherwise.

    Raises AlreadyInHousehold.
    """
    row = {
        "tenant_id": tx.tenant_id,
        "household_id": household.household_id,
        "customer_id": customer_id,
        "business_id": household.business_id,
        "program_id": household.program_id,
        "joined_at": tx.now,
        "added_by": "",
    }
    await tx.execute(insert(household_members).values(row | more))


async def tell_joined(tx: Tx, before: Row[Any], customer_id: UUID) -> Row[Any]:
    """Tells that a customer is in a locked household now; gives it as it is. Emits HouseholdJoined."""
    after = await _write(tx, before, closed_at=None)
    inside = await _inside(tx, before.household_id)
    await emit_all(tx, [_fact(after, events.HouseholdJoined, inside, customer_id=str(customer_id))])
    return after


async def tell_replaced(tx: Tx, before: Row[Any], customer_id: UUID, other_id: UUID) -> None:
    """Tells that a customer has the place of another in a locked household. Emits HouseholdLeft, HouseholdJoined."""
    after = await _write(tx, before)
    without = [each for each in await _inside(tx, before.household_id) if each != other_id]
    left = _fact(after, events.HouseholdLeft, without, customer_id=str(customer_id), reason=rules.MERGED)
    await emit_all(tx, [left])
    await tell_joined(tx, after, other_id)


# ---------------------------------------------------------------------- inside


async def _may_share(tx: Tx, program: Program, customer_id: UUID, *, inside: bool = False) -> None:
    """Raises unless the customer may come into a household of the program, or is `inside` and may share."""
    if not program.settings.pooling_allowed:
        raise PoolingNotAllowed
    await ledger.free_member(tx, program, customer_id)
    if not inside and await queries.is_inside(tx, program.program_id, customer_id):
        raise AlreadyInHousehold


async def _inside(tx: Tx, household_id: UUID) -> list[UUID]:
    return [row.customer_id for row in (await queries.members(tx, [household_id]))[household_id]]


async def _write(tx: Tx, before: Row[Any], **values: Any) -> Row[Any]:
    """The row after a change."""
    mine = _h.tenant_id == tx.tenant_id, _h.household_id == before.household_id
    changed = update(households).where(*mine).values(**values, version=before.version + 1).returning(*_h)
    return (await tx.execute(changed)).one()


def _fact(row: Row[Any], event: type[Any], inside: Sequence[UUID], **more: str) -> Fact:
    message = event(household=wire.facts(row, inside), **more)
    return Fact(message, row.household_id, row.version, row.business_id)
