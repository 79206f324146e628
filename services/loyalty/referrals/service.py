"""RPCs about referrals."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs import idempotency
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import referrals_pb2 as pb
from regulars.loyalty.v1.referrals_pb2_grpc import MyReferralsServiceServicer, ReferralsServiceServicer
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger.service import itself
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.referrals import actions, queries, wire
from services.loyalty.referrals.actions import terms_of
from services.loyalty.reports.service import days

DEFAULT_PAGE = 50


class ReferralsService(ReferralsServiceServicer):
    """See referrals.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateReferral(self, request: pb.CreateReferralRequest, context: Context) -> pb.Referral:
        row, program = await _invite(self.rt, request, UUID(request.customer_id))
        return wire.referral(row, terms_of(program))

    async def ListReferrals(
        self, request: pb.ListReferralsRequest, context: Context
    ) -> pb.ListReferralsResponse:
        customer_id = UUID(request.customer_id)
        program, rows, token, points = await _of_member(self.rt, request, customer_id)
        terms = terms_of(program)
        return pb.ListReferralsResponse(
            referrals=[wire.referral(row, terms) for row in rows],
            next_page_token=token,
            code=await code_of(self.rt, program, customer_id),
            points=points,
        )

    async def ListProgramReferrals(
        self, request: pb.ListProgramReferralsRequest, context: Context
    ) -> pb.ListProgramReferralsResponse:
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            rows, token = await _page(self.rt, tx, request, program, states=request.states)
        terms = terms_of(program)
        return pb.ListProgramReferralsResponse(
            referrals=[wire.referral(row, terms) for row in rows], next_page_token=token
        )

    async def GetReferral(self, request: pb.GetReferralRequest, context: Context) -> pb.Referral:
        async with self.rt.db.read() as tx:
            return await _message(tx, await queries.referral(tx, UUID(request.id)))

    async def ApproveReferral(self, request: pb.ApproveReferralRequest, context: Context) -> pb.Referral:
        async with self.rt.db.tx() as tx:
            before = await queries.referral(tx, UUID(request.id), lock=True)
            return await _message(tx, await actions.approve_referral(tx, before))

    async def RejectReferral(self, request: pb.RejectReferralRequest, context: Context) -> pb.Referral:
        async with self.rt.db.tx() as tx:
            before = await queries.referral(tx, UUID(request.id), lock=True)
            return await _message(tx, await actions.reject_referral(tx, before))

    async def GetReferralReport(
        self, request: pb.GetReferralReportRequest, context: Context
    ) -> pb.ReferralReport:
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            first, last = days(request, tx.now.astimezone(program.zone).date())
            rows = await queries.report(tx, program, first, last)
            found = pb.ReferralReport(
                program_id=str(program.program_id),
                first_day=first.isoformat(),
                last_day=last.isoformat(),
                as_of=stamp(tx.now),
            )
        wire.count(rows, found)
        return found


class MyReferralsService(MyReferralsServiceServicer):
    """See referrals.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateMyReferral(self, request: pb.CreateMyReferralRequest, context: Context) -> pb.MyReferral:
        row, program = await _invite(self.rt, request, itself())
        return wire.mine(row, terms_of(program))

    async def ListMyReferrals(
        self, request: pb.ListMyReferralsRequest, context: Context
    ) -> pb.ListMyReferralsResponse:
        me = itself()
        program, rows, token, points = await _of_member(self.rt, request, me)
        terms = terms_of(program)
        async with self.rt.db.read() as tx:
            brought = await queries.brought(tx, program.program_id, me)
        return pb.ListMyReferralsResponse(
            referrals=[wire.mine(row, terms) for row in rows],
            next_page_token=token,
            code=await code_of(self.rt, program, me),
            points=points,
            brought=wire.mine(brought, terms, brought=True) if brought else None,
        )


async def code_of(rt: Runtime, program: Program, customer_id: UUID) -> pb.ReferralCode | None:
    """A member's own code, made if this is the first time; None where the program has no referrals."""
    terms = terms_of(program)
    if not terms.enabled:
        return None
    async with rt.db.read() as tx:
        found = await queries.code_of(tx, program.program_id, customer_id)
    if found is None:
        async with rt.db.tx() as tx:
            found = await actions.own_code(tx, program, customer_id)
    return wire.code(terms, found)


async def _invite(
    rt: Runtime, request: pb.CreateReferralRequest | pb.CreateMyReferralRequest, customer_id: UUID
) -> tuple[Row[Any], Program]:
    """The invitation of a member, now or when the request came first."""
    referral_id = new_id()
    async with rt.db.tx() as tx:
        program = await programs.meant(tx, request.business_id, request.program_id)
        done = await idempotency.claim(tx, request, referral_id)
        if not done:
            await actions.create_referral(tx, program, customer_id, referral_id)
        return await queries.referral(tx, done or referral_id), program


async def _of_member(
    rt: Runtime, request: pb.ListReferralsRequest | pb.ListMyReferralsRequest, customer_id: UUID
) -> tuple[Program, list[Row[Any]], str, int]:
    """A page of a member's referrals with its program, the token of the next one, and the points in all."""
    async with rt.db.read() as tx:
        program = await programs.meant(tx, request.business_id, request.program_id)
        await ledger.member(tx, program.business_id, customer_id)
        rows, token = await _page(rt, tx, request, program, referrer_id=customer_id)
        points = await queries.points_for_friends(tx, program.program_id, customer_id)
    return program, rows, token, points


async def _page(
    rt: Runtime, tx: Tx, request: Any, program: Program, **chosen: Any
) -> tuple[list[Row[Any]], str]:
    size, after = request.page_size or DEFAULT_PAGE, rt.pages.after(request)
    rows = await queries.page(
        tx, program.program_id, size=size + 1, before=UUID(str(after[0])) if after else None, **chosen
    )
    token = rt.pages.next(request, [rows[size - 1].referral_id]) if len(rows) > size else ""
    return rows[:size], token


async def _message(tx: Tx, row: Row[Any]) -> pb.Referral:
    program = programs.program_of(await programs.row(tx, row.program_id))
    return wire.referral(row, terms_of(program))
