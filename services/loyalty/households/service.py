"""RPCs about households."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import Row

from libs import caller as callers
from libs import idempotency
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import households_pb2 as pb
from regulars.loyalty.v1.households_pb2_grpc import HouseholdsServiceServicer, MyHouseholdServiceServicer
from services.loyalty.households import actions, queries, rules, wire
from services.loyalty.households.queries import Share
from services.loyalty.ledger.service import itself
from services.loyalty.programs import queries as programs

REASONS = "user.content"


class HouseholdsService(HouseholdsServiceServicer):
    """See households.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateHousehold(self, request: pb.CreateHouseholdRequest, context: Context) -> pb.Household:
        with self.rt.audit.reading(REASONS) as reading:
            async with self.rt.db.tx() as tx:
                row = await _create(tx, request, UUID(request.customer_id))
                return await self._message(tx, reading, row)

    async def ListHouseholds(
        self, request: pb.ListHouseholdsRequest, context: Context
    ) -> pb.ListHouseholdsResponse:
        with self.rt.audit.reading(REASONS) as reading:
            async with self.rt.db.read() as tx:
                rows = await queries.of_customer(tx, UUID(request.customer_id))
                found = [await self._message(tx, reading, row) for row in rows]
        return pb.ListHouseholdsResponse(households=found)

    async def GetHousehold(self, request: pb.GetHouseholdRequest, context: Context) -> pb.Household:
        with self.rt.audit.reading(REASONS) as reading:
            async with self.rt.db.read() as tx:
                return await self._message(tx, reading, await queries.household(tx, UUID(request.id)))

    async def AddHouseholdMember(
        self, request: pb.AddHouseholdMemberRequest, context: Context
    ) -> pb.Household:
        reason = wire.reason_of(request)
        with self.rt.audit.reading(REASONS) as reading:
            async with self.rt.db.tx() as tx:
                before = await queries.household(tx, UUID(request.id), lock=True)
                if not await idempotency.claim(tx, request, before.household_id):
                    await actions.add_member(
                        tx, _keys(self.rt), before, UUID(request.customer_id), reason, request.etag
                    )
                return await self._message(tx, reading, await queries.household(tx, before.household_id))

    async def RemoveHouseholdMember(
        self, request: pb.RemoveHouseholdMemberRequest, context: Context
    ) -> pb.Household:
        with self.rt.audit.reading(REASONS) as reading:
            async with self.rt.db.tx() as tx:
                before = await queries.household(tx, UUID(request.id), lock=True)
                after = await actions.leave_household(
                    tx, before, UUID(request.customer_id), rules.REMOVED, request.etag
                )
                return await self._message(tx, reading, after)

    async def _message(self, tx: Tx, reading: Reading, row: Row[Any]) -> pb.Household:
        members = (await queries.members(tx, [row.household_id]))[row.household_id]
        told = {each.customer_id: _told(self.rt, reading, each) for each in members}
        return await _household(tx, row, members, told=told)


class MyHouseholdService(MyHouseholdServiceServicer):
    """See households.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateMyHousehold(self, request: pb.CreateMyHouseholdRequest, context: Context) -> pb.Household:
        me = itself()
        async with self.rt.db.tx() as tx:
            return await _own(tx, await _create(tx, request, me), me)

    async def GetMyHousehold(self, request: pb.GetMyHouseholdRequest, context: Context) -> pb.Household:
        me = itself()
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            return await _own(tx, await queries.of_member(tx, program.program_id, me), me)

    async def CreateHouseholdInvitation(
        self, request: pb.CreateHouseholdInvitationRequest, context: Context
    ) -> pb.HouseholdInvitation:
        me, invitation_id = itself(), new_id()
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            household = await queries.of_member(tx, program.program_id, me, lock=True)
            done = await idempotency.claim(tx, request, invitation_id)
            if not done:
                await actions.create_invitation(tx, program, household, me, invitation_id)
            return wire.invitation(await queries.invitation_row(tx, done or invitation_id))

    async def JoinHousehold(self, request: pb.JoinHouseholdRequest, context: Context) -> pb.Household:
        me = itself()
        async with self.rt.db.tx() as tx:
            done = await idempotency.claim(tx, request, new_id())
            if not done:
                invitation = await queries.invitation(tx, rules.plain(request.invitation_code))
                await actions.join_household(tx, invitation, me)
                done = invitation.household_id
                await idempotency.point(tx, request, done)
            return await _own(tx, await queries.household(tx, done), me)

    async def LeaveMyHousehold(self, request: pb.LeaveMyHouseholdRequest, context: Context) -> Empty:
        me = itself()
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            if await queries.is_inside(tx, program.program_id, me):
                before = await queries.of_member(tx, program.program_id, me, lock=True)
                await actions.leave_household(tx, before, me, rules.LEFT)
        return Empty()


async def _create(
    tx: Tx, request: pb.CreateHouseholdRequest | pb.CreateMyHouseholdRequest, customer_id: UUID
) -> Row[Any]:
    """The household that a customer begins, now or when the request came first."""
    household_id = new_id()
    program = await programs.meant(tx, request.business_id, request.program_id)
    done = await idempotency.claim(tx, request, household_id)
    if not done:
        await actions.create_household(tx, program, customer_id, household_id)
    return await queries.household(tx, done or household_id)


async def _own(tx: Tx, row: Row[Any], me: UUID) -> pb.Household:
    """A household as a member sees it; nobody in it is told to who is not."""
    members = (await queries.members(tx, [row.household_id]))[row.household_id]
    if all(each.customer_id != me for each in members):
        members = []
    return await _household(tx, row, members)


async def _household(
    tx: Tx, row: Row[Any], members: Sequence[Row[Any]], *, told: dict[UUID, dict[str, str]] | None = None
) -> pb.Household:
    program = programs.program_of(await programs.row(tx, row.program_id))
    known = await queries.shares(tx, program, row.household_id)
    shares = {each.customer_id: known.get(each.customer_id, Share(frozen=True)) for each in members}
    return wire.household(row, program, members, shares, told or {}, own=told is None)


def _told(rt: Runtime, reading: Reading, row: Row[Any]) -> dict[str, str]:
    """What was sealed of a member; nothing once the key is destroyed."""
    if row.sealed is None or row.wrapped is None:
        return {}
    keys = _keys(rt)
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    opened: dict[str, str] = orjson.loads(
        keys.open(reading, row.customer_id, key, queries.SEALED, row.household_id, row.sealed)
    )
    return opened


def _keys(rt: Runtime) -> TenantKeys:
    return rt.keys.for_tenant(callers.current().tenant())
