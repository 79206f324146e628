"""Transactions on PostgreSQL: one tenant each, set for row-level security with the BEGIN itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from libs import caller as callers
from libs import clock
from libs.caller import Caller

# No transaction outlives 5 s (decision 31): a slow statement fails before it piles up locks.
SESSION_OPTIONS = (
    "-c statement_timeout=5000 -c lock_timeout=4000 -c idle_in_transaction_session_timeout=5000"
    " -c timezone=UTC -c jit=off"
)
_BEGIN = sql.SQL("BEGIN; SELECT set_config('app.tenant_id', {tenant}, true)")
_BEGIN_READ = sql.SQL("BEGIN READ ONLY; SELECT set_config('app.tenant_id', {tenant}, true)")

_open: ContextVar[bool] = ContextVar("transaction_open", default=False)


def in_transaction() -> bool:
    """True while the running task has a transaction open: then it calls no peer and publishes nothing."""
    return _open.get()


class Tx:
    """One open transaction: its connection, whose it is, and its instant.

    `now` is the clock at BEGIN; every row written in the transaction bears it.
    """

    __slots__ = ("_after", "_caller", "connection", "now")

    def __init__(self, connection: AsyncConnection, caller: Caller | None) -> None:
        self.connection = connection
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

    async def driver(self) -> psycopg.AsyncConnection[Any]:
        """psycopg's own connection inside this transaction, for COPY, pipelines and the few hot reads."""
        raw = await self.connection.get_raw_connection()
        driver = raw.driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        return driver

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
        connect_args={"options": SESSION_OPTIONS, "connect_timeout": 5},
        hide_parameters=True,
    )


@asynccontextmanager
async def _transaction(engine: AsyncEngine, begin: sql.SQL, caller: Caller | None) -> AsyncIterator[Tx]:
    tenant = str(caller.tenant_id) if caller and caller.tenant_id else ""
    connection = await _begun(engine, begin.format(tenant=sql.Literal(tenant)))
    tx = Tx(connection, caller)
    token = _open.set(True)
    try:
        yield tx
        driver = await tx.driver()
        await driver.commit()
    except BaseException:
        await asyncio.shield(_abandon(connection))
        raise
    finally:
        _open.reset(token)
    await connection.close()
    tx._committed()


async def _begun(engine: AsyncEngine, begin: sql.Composed) -> AsyncConnection:
    """A connection inside a transaction. Connections that died in the pool are replaced: nothing was done yet."""
    attempts = engine.pool.size() + 1  # type: ignore[attr-defined]  # a queue pool has one
    for attempt in range(1, attempts + 1):
        connection = await engine.connect()
        try:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, psycopg.AsyncConnection)
            await driver.execute(begin, prepare=False)
        except psycopg.OperationalError:
            await connection.invalidate()
            await connection.close()
            if attempt == attempts:
                raise
        except BaseException:
            await asyncio.shield(_abandon(connection))
            raise
        else:
            return connection
    raise AssertionError("unreachable")


async def _abandon(connection: AsyncConnection) -> None:
    """Rolls back and returns the connection to the pool; one that does not answer is thrown away."""
    try:
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        await driver.rollback()
    except (psycopg.Error, OSError):
        await connection.invalidate()
    finally:
        await connection.close()
