"""RPCs about tiers."""

from uuid import UUID

from libs import caller as callers
from libs import idempotency, jobs, jobs_service
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.instants import instant
from libs.problems import InvalidArgument
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import tiers_pb2 as pb
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceServicer
from regulars.type.v1 import job_pb2
from services.loyalty.ledger import queries as ledger
from services.loyalty.overrides import actions as overrides
from services.loyalty.overrides import queries as overrides_queries
from services.loyalty.overrides import wire as overrides_wire
from services.loyalty.overrides.jobs import OVERRIDE
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.segments import queries as segments
from services.loyalty.tiers import actions, cache, queries, rules, wire
from services.loyalty.tiers.jobs import RECALCULATE

DEFAULT_PAGE = 50
TEXTS = "user.content"


class TiersService(TiersServiceServicer):
    """See tiers.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetTierConfiguration(
        self, request: pb.GetTierConfigurationRequest, context: Context
    ) -> pb.TierConfiguration:
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            found = await cache.configuration(tx, self.rt.cache, program)
        return wire.configuration(found)

    async def UpdateTierConfiguration(
        self, request: pb.UpdateTierConfigurationRequest, context: Context
    ) -> pb.TierConfiguration:
        job_id = None
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            await programs.row(tx, program.program_id, lock=True)  # one change after another
            before = await queries.configuration(tx, program.program_id)
            definition = wire.changed(before.definition, request.configuration, request.update_mask)
            changed = await actions.configure(tx, program, before, definition, request.reason, request.etag)
            then = rules.ladder_of(definition)
            if changed and not rules.judges_alike(rules.ladder_of(before.definition), then):
                job_id = await self._recalculate(tx, program, new_id())
            row = await queries.configuration(tx, program.program_id)
        await self._drop(tx, program)
        return wire.configuration(row, job_id)

    async def PreviewTierConfiguration(
        self, request: pb.PreviewTierConfigurationRequest, context: Context
    ) -> pb.PreviewTierConfigurationResponse:
        then = rules.ladder_of(wire.definition(request.configuration))
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            now = await queries.ladder(tx, program.program_id)
            rows = await queries.preview(tx, program, then)
        return wire.moves(rows, now, then)

    async def RecalculateTiers(self, request: pb.RecalculateTiersRequest, context: Context) -> job_pb2.Job:
        job_id = new_id()
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            done = await idempotency.claim(tx, request, job_id)
            if not done:
                await self._recalculate(tx, program, job_id)
            row = await jobs.get(tx, done or job_id)
        return jobs_service.message(row)

    async def ListTierAudits(
        self, request: pb.ListTierAuditsRequest, context: Context
    ) -> pb.ListTierAuditsResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            rows = await queries.configurations(tx, program.program_id, size + 1, after[0] if after else None)
        before = [*rows[1:], None]
        audits = [wire.audit(row, old) for row, old in zip(rows, before, strict=True)][:size]
        token = self.rt.pages.next(request, [rows[size - 1].version]) if len(rows) > size else ""
        return pb.ListTierAuditsResponse(audits=audits, next_page_token=token)

    async def SetTierOverride(self, request: pb.SetTierOverrideRequest, context: Context) -> pb.TierStanding:
        customer_id, reason = UUID(request.customer_id), request.reason.strip()
        if not reason:
            raise InvalidArgument.of("reason", "must not be blank", "REQUIRED")
        until = instant(request.until) if request.HasField("until") else None
        with self.rt.audit.reading(TEXTS) as reading:
            async with self.rt.db.tx() as tx:
                if until is not None and until <= tx.now:
                    raise InvalidArgument.of("until", "must be in the future", "OUT_OF_RANGE")
                program = await programs.meant(tx, request.business_id, request.program_id)
                await actions.set_override(
                    tx, self._keys(), reading, program, customer_id, request.tier, reason, until
                )
                return await standing(tx, program, customer_id)

    async def UpdateTierOverride(
        self, request: pb.UpdateTierOverrideRequest, context: Context
    ) -> pb.TierStanding:
        customer_id = UUID(request.customer_id)
        with self.rt.audit.reading(TEXTS) as reading:
            async with self.rt.db.tx() as tx:
                changes = wire.override_changes(request.override, request.update_mask, tx.now)
                program = await programs.meant(tx, request.business_id, request.program_id)
                await actions.change_override(tx, self._keys(), reading, program, customer_id, changes)
                return await standing(tx, program, customer_id)

    async def ClearTierOverride(
        self, request: pb.ClearTierOverrideRequest, context: Context
    ) -> pb.TierStanding:
        customer_id = UUID(request.customer_id)
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            await actions.clear_override(tx, program, customer_id)
            return await standing(tx, program, customer_id)

    async def OverrideTiers(self, request: pb.OverrideTiersRequest, context: Context) -> job_pb2.Job:
        job_id = new_id()
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            done = await idempotency.claim(tx, request, job_id)
            if not done:
                asked = overrides_wire.asked(request, tx.now)  # told again, its end may be past
                await overrides.begin(
                    tx,
                    job_id,
                    program,
                    customer_ids=asked.customer_ids,
                    segment_id=asked.segment_id,
                    tier=asked.tier,
                    until=asked.until,
                    reason=asked.reason,
                )
                total = len(asked.customer_ids)
                if asked.segment_id is not None:
                    total += await segments.count(tx, program.business_id, asked.segment_id)
                await jobs.enqueue(tx, OVERRIDE, job_id=job_id, business_id=program.business_id, total=total)
            row = await jobs.get(tx, done or job_id)
        return jobs_service.message(row)

    async def ListTierOverrideFaults(
        self, request: pb.ListTierOverrideFaultsRequest, context: Context
    ) -> pb.ListTierOverrideFaultsResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        async with self.rt.db.read() as tx:
            bulk = await overrides_queries.bulk(tx, UUID(request.job_id))
            last = UUID(after[0]) if after else None
            rows = await overrides_queries.faults_after(tx, bulk.bulk_id, last, size + 1)
        token = self.rt.pages.next(request, [str(rows[size - 1].customer_id)]) if len(rows) > size else ""
        return pb.ListTierOverrideFaultsResponse(
            faults=map(overrides_wire.fault, rows[:size]), next_page_token=token
        )

    async def ListTierHistory(
        self, request: pb.ListTierHistoryRequest, context: Context
    ) -> pb.ListTierHistoryResponse:
        size, customer_id = request.page_size or DEFAULT_PAGE, UUID(request.customer_id)
        after = self.rt.pages.after(request)
        with self.rt.audit.reading(TEXTS) as reading:
            async with self.rt.db.read() as tx:
                program = await programs.meant(tx, request.business_id, request.program_id)
                await ledger.member(tx, program.business_id, customer_id)
                line = await ledger.line_of(tx, program.program_id, customer_id)
                before = UUID(after[0]) if after else None
                rows = await queries.changes(tx, line, size + 1, before)
            keys = self._keys()
            found = [wire.change(row, actions.opened(keys, reading, row)) for row in rows[:size]]
        token = self.rt.pages.next(request, [str(rows[size - 1].change_id)]) if len(rows) > size else ""
        return pb.ListTierHistoryResponse(changes=found, next_page_token=token)

    async def _drop(self, tx: Tx, program: Program) -> None:
        """Makes room in the cache: what was replaced is asked for by nobody any more."""
        await self.rt.cache.drop(tx.tenant_id, cache.key(program.program_id, program.tiers_version))

    @staticmethod
    async def _recalculate(tx: Tx, program: Program, job_id: UUID) -> UUID:
        return await jobs.enqueue(
            tx,
            RECALCULATE,
            {"program_id": str(program.program_id)},
            job_id=job_id,
            business_id=program.business_id,
        )

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())


async def standing(
    tx: Tx, program: Program, customer_id: UUID, of: rules.Ladder | None = None
) -> pb.TierStanding:
    """Where a member stands on a ladder (by default the program's), and what counts of them so far."""
    of = of or await queries.ladder(tx, program.program_id)
    account = await ledger.account_id(tx, program.program_id, customer_id)
    found, facts = None, rules.Facts()
    if account is not None:
        facts, before = (await queries.facts(tx, program, of, [account], tx.now))[account]
        found = (await queries.standings_of(tx, [account])).get(account)
        if found is not None:
            found = rules.as_of(of, found, facts, before, tx.now, program.zone)
    return wire.standing(program, of, customer_id, found, facts, queries.last_day(program, of, tx.now))
