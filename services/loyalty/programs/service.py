"""RPCs about programs and earning rules."""

from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from libs import idempotency
from libs.ids import new_id
from libs.instants import stamp
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import programs_pb2 as pb
from regulars.loyalty.v1.programs_pb2_grpc import ProgramsServiceServicer
from services.loyalty.cards import queries as cards
from services.loyalty.cards.rules import awards_of, would_stamp
from services.loyalty.ledger import queries as ledger
from services.loyalty.programs import actions, queries, rules, wire


class ProgramsService(ProgramsServiceServicer):
    """See programs.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateProgram(self, request: pb.CreateProgramRequest, context: Context) -> pb.Program:
        program_id, values = new_id(), wire.new_program(request.program)
        async with self.rt.db.tx() as tx:
            business_id = await queries.named(tx, request.business_id)
            done = await idempotency.claim(tx, request, program_id)
            if not done:
                await actions.create_program(tx, program_id, business_id, values)
            row = await queries.row(tx, done or program_id)
        return wire.program(row)

    async def GetProgram(self, request: pb.GetProgramRequest, context: Context) -> pb.Program:
        async with self.rt.db.read() as tx:
            row = await queries.row(tx, UUID(request.id))
        return wire.program(row)

    async def ListPrograms(
        self, request: pb.ListProgramsRequest, context: Context
    ) -> pb.ListProgramsResponse:
        async with self.rt.db.read() as tx:
            rows = await queries.of_business(tx, await queries.named(tx, request.business_id))
        return pb.ListProgramsResponse(programs=map(wire.program, rows))

    async def UpdateProgram(self, request: pb.UpdateProgramRequest, context: Context) -> pb.Program:
        async with self.rt.db.tx() as tx:
            before = await queries.row(tx, UUID(request.id))
            await queries.business(tx, before.business_id, lock=True)
            before = await queries.row(tx, before.program_id, lock=True)
            values = wire.program_changes(before, request.program, request.update_mask)
            await actions.update_program(tx, before, values, request.etag)
            row = await queries.row(tx, before.program_id)
        return wire.program(row)

    async def CreateRule(self, request: pb.CreateRuleRequest, context: Context) -> pb.EarningRule:
        rule_id, definition = new_id(), wire.new_rule(request.rule)
        async with self.rt.db.tx() as tx:
            program = await queries.row(tx, UUID(request.program_id), lock=True)
            done = await idempotency.claim(tx, request, rule_id)
            if not done:
                await actions.create_rule(tx, rule_id, program, definition)
            row = await queries.rule_row(tx, done or rule_id)
        return wire.rule(row)

    async def ListRules(self, request: pb.ListRulesRequest, context: Context) -> pb.ListRulesResponse:
        async with self.rt.db.read() as tx:
            program = await queries.row(tx, UUID(request.program_id))
            rows = await queries.rule_rows(tx, program.program_id)
        return pb.ListRulesResponse(rules=map(wire.rule, sorted(rows, key=wire.rule_order)))

    async def UpdateRule(self, request: pb.UpdateRuleRequest, context: Context) -> pb.EarningRule:
        async with self.rt.db.tx() as tx:
            before = await queries.rule_row(tx, UUID(request.id), lock=True)
            definition = wire.changed_rule(before, request.rule, request.update_mask)
            await actions.update_rule(tx, before, definition, request.etag)
            row = await queries.rule_row(tx, before.rule_id)
        return wire.rule(row)

    async def DeleteRule(self, request: pb.DeleteRuleRequest, context: Context) -> Empty:
        async with self.rt.db.tx() as tx:
            await actions.end_rule(tx, await queries.rule_row(tx, UUID(request.id), lock=True))
        return Empty()

    async def SimulateEarning(
        self, request: pb.SimulateEarningRequest, context: Context
    ) -> pb.SimulateEarningResponse:
        async with self.rt.db.read() as tx:
            program = await queries.meant(tx, request.business_id, request.program_id)
            purchase = wire.purchase(request.order, program.currency, tx.now)
            of_program = (await queries.rule_book(tx, program.program_id)).now
            whose, context_of_member, of_cards = request.customer_id, rules.Context(), {}
            if whose:
                context_of_member = await ledger.context(
                    tx, program, UUID(whose), of_program, purchase.placed_at
                )
                of_cards = await cards.cards_of_member(tx, program.program_id, UUID(whose))
        judgement = rules.judge(of_program, purchase, context_of_member, program.zone)
        stamped = would_stamp(of_program, purchase, context_of_member, program.zone, of_cards)
        awards = [*judgement.awards, *(each for card in stamped for each in awards_of(*card))]
        counted = {rule.rule_id for rule, _, _ in stamped}
        return pb.SimulateEarningResponse(
            points=sum(award.points for award in awards),
            reasons=wire.reasons(awards),
            skipped=wire.skipped(each for each in judgement.skipped if each.rule_id not in counted),
            available_at=stamp(rules.available_at(program.settings, purchase.placed_at)),
            expires_at=stamp(rules.expires_at(program.settings, purchase.placed_at, program.zone)),
            stamps=[wire.stamps(*card) for card in stamped],
        )
