"""What is done again and again for the ledger: what holds already is booked, and what will lapse soon is told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.db import Tx
from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty import due
from services.loyalty.ledger import anniversaries, expiry, occasions
from services.loyalty.people import actions as people
from services.loyalty.people import queries as people_queries
from services.loyalty.people.peers import facts_of
from services.loyalty.programs.queries import Program

ACCOUNTS_AT_ONCE = 500
LOTS_AT_ONCE = 2_000
LANES = 2  # of accounts whose lots lapse


async def book_what_holds(rt: Any) -> None:
    """Every tenant's holds past their time, pending points whose day has come, and lots past their expiry."""
    await due.for_each(rt, await due.tenants(rt, "ledger"), _book)


async def _book(runtime: Runtime) -> None:
    booked = 1
    while booked:
        async with runtime.db.tx() as tx:
            booked = await expiry.settle_due(tx, ACCOUNTS_AT_ONCE)
    await asyncio.gather(*(_expire(runtime, lane) for lane in range(LANES)))


async def _expire(runtime: Runtime, lane: int) -> None:
    """While one lane waits for the database, the other tells what it booked."""
    booked = 1
    while booked:
        async with runtime.db.tx() as tx:
            booked = await expiry.expire_lots(tx, LOTS_AT_ONCE, lane, LANES)


async def tell_what_will_lapse(rt: Any) -> None:
    """Tells each member's points that will lapse within the program's notice, each lot once."""
    await due.for_each(rt, await due.everybody(rt), _tell)


async def _tell(runtime: Runtime) -> None:
    told = 1
    while told:
        async with runtime.db.tx() as tx:
            told = await expiry.notice(tx, LOTS_AT_ONCE)


async def keep_anniversaries(rt: Any) -> None:
    """Gives every tenant's members what is due for another year, once."""
    await due.for_each(rt, await due.everybody(rt), _keep_anniversaries)


async def _keep_anniversaries(runtime: Runtime) -> None:
    await _celebrate(runtime, anniversaries.celebrating, anniversaries.celebrate)


async def keep_birthdays(rt: Any) -> None:
    """Gives every tenant's members what is due for their birthday, once a year."""
    await due.for_each(rt, await due.everybody(rt), _keep_birthdays)


async def _keep_birthdays(runtime: Runtime) -> None:
    await _celebrate(runtime, occasions.giving, occasions.celebrate)


async def _celebrate(
    runtime: Runtime,
    giving: Callable[[Tx], Awaitable[Sequence[Program]]],
    celebrate: Callable[[Tx, Program, UUID, int], Awaitable[UUID | None]],
) -> None:
    """Gives in all programs that give something, member after member."""
    async with runtime.db.read() as tx:
        found = await giving(tx)
    for program in found:
        last: UUID | None = UUID(int=0)
        while last is not None:
            async with runtime.db.tx() as tx:
                last = await celebrate(tx, program, last, ACCOUNTS_AT_ONCE)


async def ask_for_people(rt: Any) -> None:
    """Asks customers of those whom nobody could ask for when something of them changed."""
    await due.for_each(rt, await due.tenants(rt, "people"), _ask)


async def _ask(runtime: Runtime) -> None:
    more = True
    while more:
        async with runtime.db.read() as tx:
            wanted = await people_queries.wanted(tx, ACCOUNTS_AT_ONCE)
        told = await facts_of(runtime, wanted) if wanted else None
        if told is None:
            break
        async with runtime.db.tx() as tx:
            await people.gone(tx, set(wanted) - {each.customer_id for each in told})
            await people.know(tx, told)
            await occasions.complete_profiles(tx, wanted)
        more = len(wanted) == ACCOUNTS_AT_ONCE


PERIODIC = [
    Periodic("book what holds", timedelta(minutes=1), book_what_holds),
    Periodic("keep anniversaries", timedelta(hours=1), keep_anniversaries),
    Periodic("ask for people", timedelta(minutes=10), ask_for_people),
    Periodic("keep birthdays", timedelta(hours=1), keep_birthdays),
    Periodic("tell what will lapse", timedelta(hours=1), tell_what_will_lapse),
]
