"""RPCs about points."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row

from libs import caller as callers
from libs import idempotency
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.instants import instant
from libs.problems import InvalidArgument, PermissionDenied
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1.ledger_pb2_grpc import LedgerServiceServicer, MyLoyaltyServiceServicer
from services.loyalty.ledger import actions, queries, wire
from services.loyalty.problems import NotReversible
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.rewards import queries as rewards

DEFAULT_PAGE = 50


class LedgerService(LedgerServiceServicer):
    """See ledger.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Context) -> pb.Balance:
        customer_id = UUID(request.customer_id)
        async with self.rt.db.read() as tx:
            as_of = wire.as_of(request, tx.now)
            program = await programs.meant(tx, request.business_id, request.program_id)
            await queries.member(tx, program.business_id, customer_id)
            found = await queries.balance(tx, program, customer_id, as_of)
        return wire.balance(found, program)

    async def ListTransactions(
        self, request: pb.ListTransactionsRequest, context: Context
    ) -> pb.ListTransactionsResponse:
        with self.rt.audit.reading("user.content") as reading:
            async with self.rt.db.read() as tx:
                program = await programs.meant(tx, request.business_id, request.program_id)
                await queries.member(tx, program.business_id, UUID(request.customer_id))
                rows, token = await page(self.rt, tx, request, program, UUID(request.customer_id))
            found = [wire.transaction(row, told=self._told(reading, row)) for row in rows]
        return pb.ListTransactionsResponse(transactions=found, next_page_token=token)

    async def GetTransaction(self, request: pb.GetTransactionRequest, context: Context) -> pb.Transaction:
        async with self.rt.db.read() as tx:
            return await self._transaction(tx, UUID(request.id))

    async def AdjustPoints(self, request: pb.AdjustPointsRequest, context: Context) -> pb.Transaction:
        reason, entry_id = wire.reason_of(request), new_id()
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            done = await idempotency.claim(tx, request, entry_id)
            if not done:
                effective_at, expires_at = wire.dates_of(request, tx.now)  # told again, they may be past
                await actions.adjust_points(
                    tx,
                    self._keys(),
                    program,
                    UUID(request.customer_id),
                    entry_id,
                    request.points,
                    reason,
                    effective_at=effective_at,
                    expires_at=expires_at,
                )
            return await self._transaction(tx, done or entry_id)

    async def RedeemPoints(self, request: pb.RedeemPointsRequest, context: Context) -> pb.Transaction:
        entry_id, order_id = new_id(), wire.optional_id(request.order_id)
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            done = await idempotency.claim(tx, request, entry_id)
            if not done:
                await actions.redeem_points(
                    tx, program, UUID(request.customer_id), entry_id, request.points, order_id
                )
            return await self._transaction(tx, done or entry_id)

    async def ReverseRedemption(
        self, request: pb.ReverseRedemptionRequest, context: Context
    ) -> pb.Transaction:
        entry_id = new_id()
        async with self.rt.db.tx() as tx:
            spent = await queries.entry(tx, UUID(request.id))
            program = programs.program_of(await programs.row(tx, spent.program_id))
            done = await idempotency.claim(tx, request, entry_id)
            if not done:
                if await rewards.spent_on_reward(tx, spent.entry_id):
                    raise NotReversible("What paid for a reward comes back when its code is cancelled.")
                done = await actions.reverse_redemption(
                    tx, program, spent.customer_id, spent.entry_id, entry_id
                )
                if done != entry_id:
                    await idempotency.point(tx, request, done)
            return await self._transaction(tx, done)

    async def HoldPoints(self, request: pb.HoldPointsRequest, context: Context) -> pb.Hold:
        hold_id, order_id = new_id(), wire.optional_id(request.order_id)
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            done = await idempotency.claim(tx, request, hold_id)
            if not done:
                await actions.hold_points(
                    tx,
                    program,
                    UUID(request.customer_id),
                    hold_id,
                    request.points,
                    request.ttl_seconds,
                    order_id,
                )
            return await self._hold(tx, done or hold_id)

    async def GetHold(self, request: pb.GetHoldRequest, context: Context) -> pb.Hold:
        async with self.rt.db.read() as tx:
            return await self._hold(tx, UUID(request.id))

    async def CaptureHold(self, request: pb.CaptureHoldRequest, context: Context) -> pb.Hold:
        order_id = wire.optional_id(request.order_id)
        async with self.rt.db.tx() as tx:
            hold = await queries.hold_row(tx, UUID(request.id))
            program = programs.program_of(await programs.row(tx, hold.program_id))
            if not await idempotency.claim(tx, request, hold.hold_id):
                await actions.capture_hold(
                    tx, program, hold.customer_id, hold.hold_id, request.points, order_id
                )
            return await self._hold(tx, hold.hold_id)

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, context: Context) -> pb.Hold:
        async with self.rt.db.tx() as tx:
            hold = await queries.hold_row(tx, UUID(request.id))
            program = programs.program_of(await programs.row(tx, hold.program_id))
            if not await idempotency.claim(tx, request, hold.hold_id):
                await actions.release_hold(tx, program, hold.customer_id, hold.hold_id)
            return await self._hold(tx, hold.hold_id)

    async def TransferPoints(
        self, request: pb.TransferPointsRequest, context: Context
    ) -> pb.TransferPointsResponse:
        giver, receiver, entry_id = UUID(request.from_customer_id), UUID(request.to_customer_id), new_id()
        if giver == receiver:
            raise InvalidArgument.of("to_customer_id", "must be another customer", "SAME_CUSTOMER")
        async with self.rt.db.tx() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            done = await idempotency.claim(tx, request, entry_id)
            if not done:
                await actions.transfer_points(tx, program, giver, receiver, entry_id, request.points)
            given = await self._transaction(tx, done or entry_id)
            received = await self._transaction(tx, UUID(given.counterpart_id))
        return pb.TransferPointsResponse(given=given, received=received)

    async def _transaction(self, tx: Tx, entry_id: UUID) -> pb.Transaction:
        row, moved = await queries.entry_and_moved(tx, entry_id)
        with self.rt.audit.reading("user.content") as reading:
            return wire.transaction(row, moved=moved, told=self._told(reading, row))

    async def _hold(self, tx: Tx, hold_id: UUID) -> pb.Hold:
        return wire.hold(await queries.hold_row(tx, hold_id), tx.now)

    def _told(self, reading: Reading, row: Row[Any]) -> dict[str, str]:
        """What was sealed of an entry; nothing once its key is destroyed."""
        if row.sealed is None or row.wrapped is None:
            return {}
        keys = self._keys()
        key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
        opened: dict[str, str] = orjson.loads(
            keys.open(reading, row.customer_id, key, queries.SEALED, row.entry_id, row.sealed)
        )
        return opened

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())


class MyLoyaltyService(MyLoyaltyServiceServicer):
    """See ledger.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def GetMyBalance(self, request: pb.GetMyBalanceRequest, context: Context) -> pb.Balance:
        me = itself()
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            await queries.member(tx, program.business_id, me)
            found = await queries.balance(tx, program, me, None)
        return wire.balance(found, program)

    async def ListMyTransactions(
        self, request: pb.ListMyTransactionsRequest, context: Context
    ) -> pb.ListMyTransactionsResponse:
        me = itself()
        async with self.rt.db.read() as tx:
            program = await programs.meant(tx, request.business_id, request.program_id)
            await queries.member(tx, program.business_id, me)
            rows, token = await page(self.rt, tx, request, program, me)
        found = [wire.transaction(row, own=True) for row in rows]
        return pb.ListMyTransactionsResponse(transactions=found, next_page_token=token)


def itself() -> UUID:
    """The customer that the caller's token names. Raises PermissionDenied for any other token."""
    customer_id = callers.current().customer_id
    if customer_id is None:
        raise PermissionDenied("Only a customer's own token may call this.", permission="self_service")
    return customer_id


async def page(
    rt: Runtime, tx: Tx, request: Any, program: Program, customer_id: UUID
) -> tuple[Sequence[Row[Any]], str]:
    """A page of the entries of a member and of those merged into them, and the token of the next one."""
    size = request.page_size or DEFAULT_PAGE
    after = rt.pages.after(request)
    line = await queries.line_of(tx, program.program_id, customer_id)
    rows = await queries.page(
        tx,
        line,
        size=size + 1,
        before=after or (),
        kinds=[int(kind) for kind in request.types],
        order_id=wire.optional_id(request.order_id),
        booked_after=instant(request.booked_after) if request.HasField("booked_after") else None,
        booked_before=instant(request.booked_before) if request.HasField("booked_before") else None,
    )
    token = rt.pages.next(request, queries.place(rows[size - 1], line)) if len(rows) > size else ""
    return rows[:size], token
