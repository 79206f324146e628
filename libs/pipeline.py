"""Statements that travel together: planned once on each connection, sent at once, answered in one round trip."""

import itertools
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import abc as kinds
from psycopg import generators, pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from libs import telemetry

Driver = psycopg.AsyncConnection[Any]
Step = tuple["Query | bytes", Mapping[str, Any]]

_BINARY = 1
_DIALECT = dialect()  # type: ignore[no-untyped-call]  # for its $1, $2, which the protocol wants
_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)

_numbers = itertools.count(1)
# What each connection has planned already: the name of a statement by its text and its parameters' types.
_planned: WeakKeyDictionary[Driver, dict[tuple[bytes, tuple[int, ...]], bytes]] = WeakKeyDictionary()


class Query:
    """A Core statement that can travel. Made once, as a constant.

    Parameters go by name and are dumped by psycopg: what goes into a jsonb column comes as Jsonb. Values that the
    statement has in itself travel as they are; a list of them (`in_`) cannot.
    """

    __slots__ = ("_constants", "_make", "_names", "text")

    def __init__(self, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=_DIALECT)
        self.text = str(compiled).encode()
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._constants: dict[str, Any] = {
            name: compiled.params[name] for name in self._names if not compiled.binds[name].required
        }
        self._make: Callable[[Sequence[Any]], Any] | None = None

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        """What to send for $1, $2 and so on."""
        known = {**self._constants, **params} if self._constants else params
        return [known[name] for name in self._names]

    def rows(self, transformer: kinds.Transformer, result: pq.abc.PGresult) -> list[Any]:
        """The rows of a result, whose columns are their attributes."""
        if result.status != pq.ExecStatus.TUPLES_OK:
            return []
        if self._make is None:
            names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
            row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # of the statement's columns
            self._make = row._make
        transformer.set_pgresult(result)
        return list(transformer.load_rows(0, result.ntuples, self._make))


async def run(driver: Driver, steps: Sequence[Step]) -> list[list[Any]]:
    """Sends all steps at once and gives the rows of each. Bytes are statements without parameters or rows.

    The first step that fails ends all: those after it are not done. Raises its psycopg error.
    """
    # Named after the last: it does what those before it prepare.
    name = next((query.text for query, _ in steps[::-1] if isinstance(query, Query)), b"")
    with telemetry.statement(name.decode()):
        async with driver.lock:
            return await _run(driver, steps)


def forget(driver: Driver) -> None:
    """Plans are lost: psycopg drops all of a connection's statements at a rollback."""
    _planned.pop(driver, None)


async def _run(driver: Driver, steps: Sequence[Step]) -> list[list[Any]]:
    connection = driver.pgconn
    known = _planned.setdefault(driver, {})
    new: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
    transformer: kinds.Transformer = Transformer(driver)
    mine: list[int] = []  # which of the results belong to the steps
    sent = 0
    connection.enter_pipeline_mode()
    try:
        for query, params in steps:
            if isinstance(query, bytes):
                connection.send_query_params(query, None)
            else:
                values = query.values(params)
                dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
                types = tuple(transformer.types or ())
                name = known.get((query.text, types)) or new.get((query.text, types))
                if name is None:
                    name = new[query.text, types] = b"travels_%d" % next(_numbers)
                    connection.send_prepare(name, query.text, types)
                    sent += 1
                connection.send_query_prepared(name, dumped, transformer.formats, _BINARY)
            mine.append(sent)
            sent += 1
        connection.pipeline_sync()
        results = await driver.wait(_exchanged(connection, sent + 1))
    finally:
        if connection.status == pq.ConnStatus.OK:
            connection.exit_pipeline_mode()
    for result in results:
        if result.status in _FAILED:
            raise error_from_result(result, encoding=driver.info.encoding)
    known |= new
    return [
        [] if isinstance(query, bytes) else query.rows(transformer, results[at])
        for (query, _), at in zip(steps, mine, strict=True)
    ]


def _exchanged(connection: pq.abc.PGconn, count: int) -> kinds.PQGen[list[pq.abc.PGresult]]:
    """Sends what is queued, and gives the `count` results that come."""
    yield from generators.send(connection)
    found = []
    for _ in range(count):
        found += yield from generators.fetch_many(connection)
    return found
