"""Transactions on PostgreSQL: one tenant each, walled in by the settings that its BEGIN carries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
from sqlalchemy import CursorResult, Executable, PoolProxiedConnection, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from libs import caller as callers
from libs import clock, pipeline
from libs.caller import Caller
from libs.pipeline import Driver, Query, Step

# No transaction outlives 5 s (decision 31): a slow statement fails before it piles up locks.
SESSION_OPTIONS = (
    "-c statement_timeout=5000 -c lock_timeout=4000 -c idle_in_transaction_session_timeout=5000"
    " -c timezone=UTC -c jit=off"
)
_BEGIN: Step = (b"BEGIN", {})
_BEGIN_READ: Step = (b"BEGIN READ ONLY", {})
_COMMIT: Step = (b"COMMIT", {})
_WALLS = Query(
    text("select set_config('app.tenant_id', :tenant, true), set_config('app.businesses', :businesses, true)")
)
# Of a connection that died while it lay in the pool: without a state, or ended by the server.
_ENDED = {None, "57P01", "57P02", "57P03"}

_ACROSS = select(func.set_config("app.businesses", "*", True))

_open: ContextVar[bool] = ContextVar("transaction_open", default=False)


def in_transaction() -> bool:
    """True while the running task has a transaction open: then it calls no peer and publishes nothing."""
    return _open.get()


class Tx:
    """One open transaction: its connection, whose it is, and its instant.

    `now` is the clock at BEGIN; every row written in the transaction bears it.
    """

    __slots__ = ("_after", "_caller", "connection", "driver", "now")

    def __init__(self, connection: AsyncConnection, driver: Driver, caller: Caller | None) -> None:
        self.connection = connection
        # psycopg's own connection inside this transaction, for COPY, pipelines and the few hot reads.
        self.driver = driver
        self.now: datetime = clock.now()
        self._caller = caller
        self._after: list[Callable[[], None]] = []

    @property
    def caller(self) -> Caller:
        """Who is calling. Raises Unauthenticated in a worker's transaction, which is nobody's."""
        return self._caller or callers.current()

    @property
    def tenant_id(self) -> UUID:
        """The caller's tenant."""
        return self.caller.tenant()

    async def execute(
        self, statement: Executable, params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Runs one Core statement. Several `params` run it once for each."""
        return await self.connection.execute(statement, params)

    async def scalar(self, statement: Executable, params: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        return await self.connection.scalar(statement, params)

    async def together(self, *steps: Step) -> list[list[Any]]:
        """Runs several statements in one round trip; gives the rows of each.

        The first that fails ends the transaction. Raises its psycopg error.
        """
        return await pipeline.run(self.driver, steps)

    async def across_businesses(self) -> None:
        """Lets the rest of the transaction see rows of all of the tenant's businesses.

        For rules about a customer as a whole; what it shows of other businesses never reaches the caller.
        """
        await self.execute(_ACROSS)

    async def within_businesses(self) -> None:
        """Ends `across_businesses`: the transaction sees rows of the caller's businesses alone again."""
        mine = self.caller.businesses
        seen = "*" if mine is None else ",".join(map(str, mine))
        await self.execute(select(func.set_config("app.businesses", seen, True)))

    def after_commit(self, wake: Callable[[], None]) -> None:
        """Calls `wake` once the commit is done. For wake-ups inside the process, never for work."""
        if wake not in self._after:
            self._after.append(wake)

    def _committed(self) -> None:
        for wake in self._after:
            wake()


class Database:
    """The pools of one service: its application role, and its worker role for the plumbing of all tenants."""

    def __init__(self, app_url: str, worker_url: str, pool_size: int = 8) -> None:
        self._app = _engine(app_url, pool_size)
        self._worker = _engine(worker_url, 3)

    @asynccontextmanager
    async def tx(self) -> AsyncIterator[Tx]:
        """A transaction of the current caller's tenant. Commits on leaving, rolls back on any exception.

        Raises whatever the database raises; Boundary turns it into a refusal.
        """
        caller = callers.current()
        async with _transaction(self._app, _BEGIN, caller) as tx:
            yield tx

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """The same, read only."""
        caller = callers.current()
        async with _transaction(self._app, _BEGIN_READ, caller) as tx:
            yield tx

    async def fetch(self, *steps: Step) -> list[list[Any]]:
        """Reads in a transaction of the current caller's tenant, all in one round trip; gives the rows of each.

        For the few reads that are hot. Raises whatever the database raises.
        """
        whole = (_BEGIN_READ, _walls(callers.current()), *steps, _COMMIT)
        return (await _answered(self._app, whole))[2:-1]

    async def at_once(self, *steps: Step) -> list[list[Any]]:
        """Runs statements as the worker role, all or none, in one round trip; gives the rows of each.

        For what loops do again and again: one that finds no work costs next to nothing. They may be done twice,
        where a connection died.
        """
        return await _answered(self._worker, steps)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Tx]:
        """A transaction of the worker role, which sees the plumbing of all tenants and nothing else."""
        async with _transaction(self._worker, _BEGIN, None) as tx:
            yield tx

    async def ping(self) -> None:
        """Returns if the database answers; raises what it raises otherwise."""
        async with self.worker():
            pass

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(self._app.dispose(), self._worker.dispose())


def _engine(url: str, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",  # BEGIN and COMMIT are ours: BEGIN also carries the tenant
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
        json_deserializer=orjson.loads,
        pool_reset_on_return=None,  # whoever returns a connection has ended its transaction
        connect_args={"options": SESSION_OPTIONS, "connect_timeout": 5},
        hide_parameters=True,
    )


@asynccontextmanager
async def _transaction(engine: AsyncEngine, begin: Step, caller: Caller | None) -> AsyncIterator[Tx]:
    connection, driver = await _begun(engine, begin, _walls(caller))
    tx = Tx(connection, driver, caller)
    token = _open.set(True)
    try:
        yield tx
        await driver.commit()
    except BaseException:
        await asyncio.shield(_abandon(connection, driver))
        raise
    finally:
        _open.reset(token)
    await connection.close()
    tx._committed()


def _walls(caller: Caller | None) -> Step:
    """The settings that the policies read: the tenant, and the businesses as "*" or a list of ids."""
    if caller is None:
        return _WALLS, {"tenant": "", "businesses": ""}
    businesses = "*" if caller.businesses is None else ",".join(map(str, caller.businesses))
    return _WALLS, {"tenant": str(caller.tenant_id or ""), "businesses": businesses}


def _attempts(engine: AsyncEngine) -> int:
    """After as many, every connection that lay in the pool was tried, and a fresh one."""
    return int(engine.pool.size()) + 1  # type: ignore[attr-defined]  # a queue pool has one


def _driver(connection: PoolProxiedConnection) -> Driver:
    return connection.driver_connection  # type: ignore[return-value]  # psycopg's, as the URL says


async def _answered(engine: AsyncEngine, steps: Sequence[Step]) -> list[list[Any]]:
    """Runs reads in one round trip. Connections that died in the pool are replaced: nothing was done yet."""
    pool = engine.sync_engine.pool
    attempts = _attempts(engine)
    token = _open.set(True)
    try:
        while True:
            connection = await greenlet_spawn(pool.connect)
            attempts -= 1
            try:
                found = await pipeline.run(_driver(connection), steps)
            except psycopg.OperationalError as error:
                await asyncio.shield(_let_go(connection))
                if error.sqlstate not in _ENDED or not attempts:
                    raise
            except BaseException:
                await asyncio.shield(_let_go(connection))
                raise
            else:
                connection.close()
                return found
    finally:
        _open.reset(token)


async def _begun(engine: AsyncEngine, *begin: Step) -> tuple[AsyncConnection, Driver]:
    """A connection inside a transaction. Connections that died in the pool are replaced: nothing was done yet."""
    attempts = _attempts(engine)
    for attempt in range(1, attempts + 1):
        connection = await engine.connect()
        driver = _driver(await connection.get_raw_connection())
        try:
            await pipeline.run(driver, begin)
        except psycopg.OperationalError:
            await connection.invalidate()
            await connection.close()
            if attempt == attempts:
                raise
        except BaseException:
            await asyncio.shield(_abandon(connection, driver))
            raise
        else:
            return connection, driver
    raise AssertionError("unreachable")


async def _abandon(connection: AsyncConnection, driver: Driver) -> None:
    """Rolls back and returns the connection to the pool; one that does not answer is thrown away."""
    pipeline.forget(driver)
    try:
        await driver.rollback()
    except (psycopg.Error, OSError):
        await connection.invalidate()
    finally:
        await connection.close()


async def _let_go(connection: PoolProxiedConnection) -> None:
    """The same for a connection straight from the pool."""
    driver = _driver(connection)
    pipeline.forget(driver)
    try:
        await driver.rollback()
    except (psycopg.Error, OSError):
        await greenlet_spawn(connection.invalidate)
    finally:
        connection.close()
