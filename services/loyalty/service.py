"""RPCs about memberships."""

from uuid import UUID

from libs import caller as callers
from libs.db import Tx
from libs.problems import PermissionDenied
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import loyalty_pb2 as pb
from regulars.loyalty.v1.loyalty_pb2_grpc import LoyaltyServiceServicer
from services.loyalty import queries, wire
from services.loyalty.cards import queries as cards
from services.loyalty.cards.rules import Card
from services.loyalty.households import pooling
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger.wire import balance
from services.loyalty.problems import ProgramNotFound
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import STAMP_CARD, Rule
from services.loyalty.referrals.service import code_of as referral_code
from services.loyalty.tiers import cache
from services.loyalty.tiers.rules import ladder_of
from services.loyalty.tiers.service import standing


class LoyaltyService(LoyaltyServiceServicer):
    """See loyalty.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetMembership(self, request: pb.GetMembershipRequest, context: Context) -> pb.Membership:
        return await self._membership(UUID(request.customer_id), request.business_id, request.program_id)

    async def GetMyMembership(self, request: pb.GetMyMembershipRequest, context: Context) -> pb.Membership:
        me = callers.current().customer_id
        if me is None:
            raise PermissionDenied("Only a customer's own token may call this.", permission="self_service")
        return await self._membership(me, request.business_id, request.program_id)

    async def _membership(self, customer_id: UUID, business_id: str, program_id: str) -> pb.Membership:
        async with self.rt.db.read() as tx:
            message, program = await self._of_program(tx, customer_id, business_id, program_id)
        code = await referral_code(self.rt, program, customer_id) if program else None
        if code is not None:
            message.referral.CopyFrom(code)
        return message

    async def _of_program(
        self, tx: Tx, customer_id: UUID, business_id: str, program_id: str
    ) -> tuple[pb.Membership, Program | None]:
        row = await queries.membership(tx, customer_id, business_id)
        message = wire.membership(row)
        try:
            program = await programs.meant(tx, str(row.business_id), program_id)
        except ProgramNotFound:
            if program_id:
                raise
            return message, None  # the business itself was not heard of yet
        found = await ledger.balance(tx, program, customer_id, None)
        message.points.CopyFrom(balance(found, program))
        message.pooled_spendable = found.spendable
        if program.settings.pooling_allowed:
            household_id, message.pooled_spendable = await pooling.spendable(tx, program, customer_id)
            message.household_id = str(household_id or "")
        tiers = await cache.configuration(tx, self.rt.cache, program)
        of = ladder_of(tiers.definition)
        message.tier.CopyFrom(await standing(tx, program, customer_id, of))
        for rule, card in await _cards(tx, program, customer_id):
            message.stamp_cards.append(wire.stamp_card(rule, card))
        return message, program


async def _cards(tx: Tx, program: Program, customer_id: UUID) -> list[tuple[Rule, Card]]:
    """The stamp cards of a program, as far as the member has come with each."""
    rules = [
        rule
        for rule in (await programs.rule_book(tx, program.program_id)).now
        if rule.kind == STAMP_CARD and rule.active
    ]
    found = await cards.cards_of_member(tx, program.program_id, customer_id) if rules else {}
    return [
        (rule, found.get(rule.rule_id, Card()))
        for rule in sorted(rules, key=lambda rule: (rule.priority, rule.rule_id))
    ]
