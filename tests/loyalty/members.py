"""Members of a shop for tests: how they came, what they bought, and whether their accounts agree."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import grpc

from libs.caller import Caller, acting_as
from libs.db import Tx
from regulars.customers.v1 import orders_pb2 as orders
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.loyalty.v1.ledger_pb2_grpc import LedgerServiceStub
from regulars.loyalty.v1.programs_pb2_grpc import ProgramsServiceStub
from services.loyalty.ledger import checks
from tests.customers.purchases import order, record
from tests.customers.shop import Shop

SECONDS = 20


def ledger(shop: Shop, *roles: str, **claims: Any) -> LedgerServiceStub:
    """Calls about points."""
    found: LedgerServiceStub = shop.calls(LedgerServiceStub, *roles, **claims)
    return found


def rules(shop: Shop, *roles: str) -> ProgramsServiceStub:
    """Calls about programs."""
    found: ProgramsServiceStub = shop.calls(ProgramsServiceStub, *roles)
    return found


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """What `look` finds once it finds something; a member or program that is not heard of yet counts as nothing."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                found = await look()
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                found = None
            if found:
                return found
            await asyncio.sleep(0.02)


async def default_program(shop: Shop) -> programs.Program:
    """The shop's default program, once loyalty has heard of the shop."""

    async def look() -> Any:
        found = await rules(shop).ListPrograms(programs.ListProgramsRequest(business_id=shop.id))
        return found.programs[0] if found.programs else None

    found: programs.Program = await until(look)
    return found


async def set_program(shop: Shop, **settings: Any) -> programs.Program:
    """Gives the shop's default program these settings."""
    program = await default_program(shop)
    changed = programs.Program(settings=programs.ProgramSettings(**settings))
    return await rules(shop).UpdateProgram(programs.UpdateProgramRequest(id=program.id, program=changed))


async def add_rule(shop: Shop, **fields: Any) -> programs.EarningRule:
    """A rule of the shop's default program."""
    program = await default_program(shop)
    fields.setdefault("name", "a rule")
    rule = programs.EarningRule(**fields)
    return await rules(shop).CreateRule(programs.CreateRuleRequest(program_id=program.id, rule=rule))


async def join(shop: Shop, **fields: Any) -> str:
    """The id of a new member, of whom loyalty has heard."""
    customer = await shop.create(**fields)
    await until(lambda: balance(shop, customer.id))
    return str(customer.id)


async def balance(shop: Shop, customer_id: str, **fields: Any) -> pb.Balance:
    """A member's points."""
    return await ledger(shop).GetBalance(pb.GetBalanceRequest(customer_id=customer_id, **fields))


async def has(shop: Shop, customer_id: str, points: int) -> pb.Balance:
    """The member's points once the balance is this."""

    async def look() -> Any:
        found = await balance(shop, customer_id)
        return found if found.balance == points else None

    try:
        found: pb.Balance = await until(look)
    except TimeoutError:
        raise AssertionError(f"{await balance(shop, customer_id)} is not {points}") from None
    return found


async def buy(shop: Shop, customer_id: str, minor: int = 10_000, **fields: Any) -> str:
    """The id of a paid order of a member."""
    total: dict[str, Any] = {} if "items" in fields else {"total": {"amount_minor": minor}}
    (result,) = await record(shop, order(customer_id=customer_id, **total, **fields))
    assert result.order_id
    return str(result.order_id)


async def cancelled(shop: Shop, customer_id: str, external_id: str, minor: int, revision: int) -> None:
    """Tells that an order was cancelled."""
    told = order(
        orders.ORDER_STATUS_CANCELLED,
        customer_id=customer_id,
        external_id=external_id,
        revision=revision,
        total={"amount_minor": minor},
    )
    await record(shop, told)


async def transactions(shop: Shop, customer_id: str, **fields: Any) -> list[pb.Transaction]:
    """A member's transactions, newest first."""
    request = pb.ListTransactionsRequest(customer_id=customer_id, **fields)
    return list((await ledger(shop).ListTransactions(request)).transactions)


async def give(shop: Shop, customer_id: str, points: int, **fields: Any) -> pb.Transaction:
    """Adds points by hand."""
    fields.setdefault("reason", "a gift")
    return await ledger(shop).AdjustPoints(
        pb.AdjustPointsRequest(customer_id=customer_id, points=points, **fields)
    )


async def in_ledger(shop: Shop, do: Callable[[Tx], Awaitable[Any]]) -> Any:
    """What `do` gives in a transaction of loyalty, as the service itself."""
    runtime = shop.tenant.stack.runtimes["loyalty"]
    itself = Caller(tenant_id=shop.tenant.id, subject="loyalty", kind="service", service="loyalty")
    with acting_as(itself):
        async with runtime.db.tx() as tx:
            return await do(tx)


async def faults(shop: Shop) -> list[Any]:
    """Where balances, lots, holds and entries of the shop do not agree."""
    found: list[Any] = await in_ledger(shop, lambda tx: checks.faults(tx, UUID(shop.id)))
    return found
