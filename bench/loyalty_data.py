"""Members, orders and points by the million: put in by set-based SQL, as if the service had booked them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from bench.data import COLUMNS, TYPES, admin_url
from bench.stack import Stack
from libs import clock, envelope
from libs.caller import Caller
from libs.ids import new_id
from regulars.customers.v1 import events_pb2 as events
from regulars.customers.v1.orders_pb2 import ORDER_STATUS_PAID

STEP = 50_000  # members in a transaction
WAIT_SECONDS = 60


def customer(number: int) -> UUID:
    """The id of a member."""
    return UUID(f"0c000000-0000-7000-8000-{number:012x}")


# Member n has some orders in the last twelve months, an entry and a lot for each, and is in the lowest tier.
_IDS = """
    create function pg_temp.id(kind text, n bigint) returns uuid language sql immutable as $$
        select cast('0' || kind || '000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') as uuid) $$
"""
_MEMBERS = """
    insert into memberships (tenant_id, business_id, customer_id, joined_at, blocked, standing_version, present,
                             deleted, presence_version, guest)
    select %(tenant)s, %(business)s, pg_temp.id('c', n), %(now)s - (1 + n %% 360) * interval '1 day', false, 1, true,
           false, 1, false
    from generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
_BOUGHT = """
    create temp table bought as
    select n, i, n * %(each)s::bigint + i as k, 500 + (n * 7919 + i * 104729) %% 20000 as minor,
           %(now)s - (1 + (n * 31) %% 170 + (%(each)s::bigint - i) * 170) * interval '1 day' as at
    from generate_series(%(first)s::bigint, %(last)s::bigint) n, generate_series(1::bigint, %(each)s::bigint) i
"""
_ACCOUNTS = """
    insert into accounts (tenant_id, account_id, business_id, program_id, customer_id, balance, lifetime, entries,
                          version, opened_at, active_at)
    select %(tenant)s, pg_temp.id('a', n), %(business)s, %(program)s, pg_temp.id('c', n), sum(minor / 100),
           sum(minor / 100), count(*), count(*), min(at), max(at)
    from bought group by n order by n
"""
_ORDERS = """
    insert into orders (tenant_id, order_id, business_id, customer_id, version, cancelled, placed_at, completed_at,
                        local_day, total_minor, refunded_minor, facts)
    select %(tenant)s, pg_temp.id('0', k), %(business)s, pg_temp.id('c', n), 1, false, at, at, at::date, minor, 0, '{}'
    from bought order by k
"""
_ENTRIES = """
    insert into entries (tenant_id, entry_id, account_id, seq, business_id, kind, points, balance_points,
                         pending_points, opening_balance, opening_pending, booked_at, effective_at, order_id, source,
                         expires_at, shortfall, reasons, actor)
    select %(tenant)s, pg_temp.id('e', k), pg_temp.id('a', n), i, %(business)s, 1, minor / 100, minor / 100, 0,
           coalesce(sum(minor / 100) over (partition by n order by i rows between unbounded preceding and 1 preceding),
                    0), 0, at, at, pg_temp.id('0', k), '', at + interval '1 year', 0, '[]', ''
    from bought order by k
"""
_LOTS = """
    insert into lots (tenant_id, lot_id, account_id, business_id, points, remaining, held, pending, earned_at,
                      expires_at, order_id, entry_id)
    select %(tenant)s, pg_temp.id('1', k), pg_temp.id('a', n), %(business)s, minor / 100, minor / 100, 0, false, at,
           at + interval '1 year', pg_temp.id('0', k), pg_temp.id('e', k)
    from bought order by k
"""
_JUDGED = """
    insert into judged_orders (tenant_id, program_id, order_id, business_id, account_id, version, judged_at, context,
                               given, reclaimed, shortfall)
    select %(tenant)s, %(program)s, pg_temp.id('0', k), %(business)s, pg_temp.id('a', n), 1, at, '{}', minor / 100, 0, 0
    from bought order by k
"""


def put_in(stack: Stack, members: int, orders_each: int) -> None:
    """Puts members in, each with so many orders (1 or 2)."""
    with _owner(stack) as owner:
        program = _program(owner, stack)
        owner.execute(_IDS)
        for first in range(0, members, STEP):
            where = {
                "tenant": stack.tenant_id,
                "business": stack.business_id,
                "program": program,
                "now": clock.now(),
                "first": first,
                "last": min(first + STEP, members) - 1,
                "each": orders_each,
            }
            with owner.transaction():
                owner.execute(_MEMBERS, where)
                owner.execute(_BOUGHT, where)
                for each in (_ACCOUNTS, _ORDERS, _ENTRIES, _LOTS, _JUDGED):
                    owner.execute(each, where)
                owner.execute("drop table bought")
        owner.execute("vacuum analyze")


def _program(owner: psycopg.Connection[Any], stack: Stack) -> UUID:
    """The default program, once loyalty has heard of the business."""
    wanted = "select program_id from programs where tenant_id = %s and is_default"
    for _ in range(WAIT_SECONDS * 10):
        found = owner.execute(wanted, [stack.tenant_id]).fetchone()
        if found is not None:
            return UUID(str(found[0]))
        owner.execute("select pg_sleep(0.1)")
    raise TimeoutError("loyalty has not heard of the business")


def _owner(stack: Stack) -> psycopg.Connection[Any]:
    return psycopg.connect(admin_url(stack, "loyalty"), autocommit=True)


# ---------------------------------------------------------------------- limits


def aggregate(stack: Stack) -> None:
    """What members spent this year, and no more: the least that a preview does."""
    with _owner(stack) as owner:
        owner.execute("set work_mem = '64MB'")
        owner.execute(
            "select count(*), sum(spent) from (select customer_id, sum(total_minor - refunded_minor) as spent"
            " from orders where tenant_id = %s and business_id = %s and not cancelled"
            " and local_day >= '2026-01-01' group by 1) s",
            [stack.tenant_id, stack.business_id],
        ).fetchall()


def make_due(stack: Stack) -> int:
    """Puts the expiry of all lots into the past; gives how many have points."""
    with _owner(stack) as owner:
        owner.execute("update lots set expires_at = now() - interval '1 day' where remaining > 0")
        owner.execute("vacuum analyze lots")
        found: Any = owner.execute("select count(*) from lots where remaining > 0").fetchone()
    return int(found[0])


def empty_and_undo(stack: Stack) -> None:
    """One UPDATE of all lots that are due, taken back at the end."""
    with _owner(stack) as owner, owner.transaction(force_rollback=True):
        owner.execute(
            "update lots set remaining = 0 where tenant_id = %s and remaining > 0", [stack.tenant_id]
        )


def faults(stack: Stack) -> int:
    """Accounts whose balance is not what is left of their lots, or not the sum of their entries."""
    with _owner(stack) as owner:
        found: Any = owner.execute("""
            select count(*) from accounts a
            left join (select account_id, sum(remaining) as points from lots group by 1) l using (account_id)
            left join (select account_id, sum(balance_points) as points from entries group by 1) e using (account_id)
            where a.balance + a.debt <> coalesce(l.points, 0) or a.balance <> coalesce(e.points, 0)
        """).fetchone()
    return int(found[0])


class Bare:
    """The rows of an earning or a redemption in one transaction that locks the account and asks no rule."""

    def __init__(self, stack: Stack, connections: asyncio.Queue[psycopg.AsyncConnection[Any]]) -> None:
        self._tenant, self._business, self._connections = stack.tenant_id, stack.business_id, connections

    async def book(self, points: int, number: int) -> None:
        """Books points of a member: into a new lot, or out of the one that lapses first."""
        account = UUID(f"0a000000-0000-7000-8000-{number:012x}")
        entry, lot = new_id(), new_id()
        connection = await self._connections.get()
        try:
            async with connection.transaction():
                cursor = await connection.execute(
                    "select balance, entries from accounts where tenant_id = %s and account_id = %s for update",
                    [self._tenant, account],
                )
                balance, entries = await cursor.fetchone() or (0, 0)
                await connection.execute(
                    "insert into entries (tenant_id, entry_id, account_id, seq, business_id, kind, points,"
                    " balance_points, pending_points, opening_balance, opening_pending, booked_at, effective_at,"
                    " source, shortfall, reasons, actor)"
                    " values (%s, %s, %s, %s, %s, 4, %s, %s, 0, %s, 0, now(), now(), '', 0, '[]', '')",
                    [self._tenant, entry, account, entries + 1, self._business, points, points, balance],
                )
                if points > 0:
                    await connection.execute(
                        "insert into lots (tenant_id, lot_id, account_id, business_id, points, remaining, held,"
                        " pending, earned_at, entry_id) values (%s, %s, %s, %s, %s, %s, 0, false, now(), %s)",
                        [self._tenant, lot, account, self._business, points, points, entry],
                    )
                else:
                    cursor = await connection.execute(
                        "update lots set remaining = remaining + %s where tenant_id = %s and lot_id = ("
                        " select lot_id from lots where tenant_id = %s and account_id = %s and remaining >= %s"
                        " order by expires_at limit 1) returning lot_id",
                        [points, self._tenant, self._tenant, account, -points],
                    )
                    (lot,) = await cursor.fetchone() or (lot,)
                    await connection.execute(
                        "insert into allocations (tenant_id, entry_id, lot_id, business_id, points)"
                        " values (%s, %s, %s, %s, %s)",
                        [self._tenant, entry, lot, self._business, points],
                    )
                await connection.execute(
                    "update accounts set balance = balance + %s, entries = entries + 1, version = version + 1"
                    " where tenant_id = %s and account_id = %s",
                    [points, self._tenant, account],
                )
        finally:
            self._connections.put_nowait(connection)


@asynccontextmanager
async def bare(stack: Stack, connections: int) -> AsyncIterator[Bare]:
    """The limit of earning and redeeming, over so many connections."""
    pool: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.LifoQueue()
    made = [
        await psycopg.AsyncConnection.connect(
            stack.url("loyalty", "owner"), autocommit=True, prepare_threshold=0
        )
        for _ in range(connections)
    ]
    for each in made:
        pool.put_nowait(each)
    try:
        yield Bare(stack, pool)
    finally:
        for each in made:
            await each.close()


# ---------------------------------------------------------------------- orders that are told


def tell_orders(stack: Stack, count: int, members: int) -> None:
    """Puts the two events of each of `count` new orders into the outbox of customers."""
    with psycopg.connect(stack.url("customers", "owner"), autocommit=True) as owner:
        columns = ", ".join(COLUMNS["outbox"].split())
        with (
            owner.cursor() as cursor,
            cursor.copy(f"copy outbox ({columns}) from stdin binary".encode()) as copy,
        ):
            copy.set_types(TYPES["outbox"].split())
            for number in range(count):
                for found in _events(stack, number, members):
                    copy.write_row(found)


def _events(stack: Stack, number: int, members: int) -> Iterator[tuple[Any, ...]]:
    order_id, now = new_id(), clock.now()
    state = events.OrderState(
        order_id=str(order_id),
        business_id=str(stack.business_id),
        customer_id=str(customer(number * 7919 % members)),
        source="bench",
        status=ORDER_STATUS_PAID,
        local_day=now.date().isoformat(),
        currency="EUR",
        total_minor=1_000 + number % 5_000,
        items=[events.OrderItemFact(sku="SKU", quantity=1, amount_minor=1_000 + number % 5_000)],
    )
    state.placed_at.FromDatetime(now)
    state.completed_at.FromDatetime(now)
    for kind in (events.OrderRecorded, events.OrderCompleted):
        event_id = new_id()
        letter = envelope.write(
            kind(order=state),
            event_id=event_id,
            at=now,
            caller=Caller(tenant_id=stack.tenant_id, subject="bench"),
            aggregate_id=order_id,
            version=1,
            business_id=stack.business_id,
            cause=None,
        )
        yield stack.tenant_id, event_id, letter.subject, Jsonb(dict(letter.headers)), letter.body, now
