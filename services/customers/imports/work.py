"""The work of an import: reads, seals and looks ahead in a thread while a chunk is written, one transaction each."""

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
from sqlalchemy import Row, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from libs import arrays, clock, outages
from libs.crypto import LiveVersions, TenantKeys, live_versions
from libs.db import Tx
from libs.jobs import Job, JobCancelled
from libs.outbox import emit, in_bulk
from libs.pipeline import Query
from libs.problems import Problem
from libs.run.service import Runtime
from regulars.customers.v1 import events_pb2 as events
from services.customers.businesses import queries as businesses
from services.customers.imports import dry, orders, queries, rules, writing
from services.customers.imports.actions import counts_of
from services.customers.imports.people import Newcomers, Person, newcomers, persons
from services.customers.imports.queries import Import, wrote
from services.customers.imports.reading import records
from services.customers.imports.rows import Facts, Parsed, Refused, RowError, RowReader
from services.customers.imports.rules import Counts, Outcome, State
from services.customers.imports.tables import COUNTS, import_errors, imports
from services.customers.imports.writing import House, IdentifiersTaken, Result
from services.customers.problems import EmailTaken, ExternalIdTaken, PhoneTaken

CHUNK = 1000  # rows in one transaction: a fraction of a second
ATTEMPTS = 60
MOST_ERRORS = 20  # kept of one row
# After each chunk the work rests this share of the time that it took, so that others come through.
REST = 0.03
_COUNTED = ("csv", "jsonl")  # formats whose rows are counted in a few seconds
_RACES = (EmailTaken, PhoneTaken, ExternalIdTaken)

_CUSTOMERS = ("customers", "customer_identifiers", "memberships")
_ORDERS = ("orders", "customer_metrics", "customer_daily", "customer_favourites")
_REFRESH = text("select refresh_statistics(:name)")
_ROWS = Query(
    text("""
    insert into import_rows (tenant_id, import_id, row, customer_id, customer_outcome, customer_version,
                             customer_before, order_id, order_outcome, order_version, order_before)
    select :tenant, :import, n.row, n.customer_id, n.customer_outcome, n.customer_version, n.customer_before,
           n.order_id, n.order_outcome, n.order_version, n.order_before
    from unnest(:rows, :customers, :customer_outcomes, :customer_versions, :customer_befores,
                :orders, :order_outcomes, :order_versions, :order_befores)
        as n (row, customer_id, customer_outcome, customer_version, customer_before,
              order_id, order_outcome, order_version, order_before)
""")
)


@dataclass(slots=True)
class Chunk:
    """Rows of the file on their way: read, and as far as could be foreseen, sealed.

    `surely`: nobody who was taken for new has turned out to be known.
    """

    parsed: list[Parsed]
    refused: list[Refused]
    last_row: int
    rows: int
    people: list[Person] = field(default_factory=list)
    live: LiveVersions | None = None
    new: Newcomers | None = None
    surely: bool = True
    others: list[Person] = field(default_factory=list)


class Work:
    """One try of one import."""

    def __init__(self, rt: Runtime, job: Job) -> None:
        self.rt = rt
        self.job = job
        self.import_id = UUID(job.input["import"])
        self.keys: TenantKeys = rt.keys.for_tenant(job.tenant_id)
        self._grown, self._next_look = 0, CHUNK

    async def run(self) -> None:
        """Does the import from where it stopped. Raises FileFault, FileGone, JobCancelled, LeaseLost."""
        with self.rt.audit.reading("user.content") as reading:
            mine, business, facts = await self._begin(reading)
            async with self.rt.files.open(self.rt.db, reading, mine.row.file_id) as file:
                source = file.sync()
            reading.only(())
        self.mine, self.business = mine, business
        self.dry = dry.Seen() if mine.row.dry_run else None
        try:
            if mine.row.rows_total is None and mine.plan.layout.format in _COUNTED:
                await self._count(source)
            found = records(source, mine.plan.layout, mine.row.last_row)
            reader = RowReader(mine.row.kind, mine.plan.mapping, facts)
            await self._flow(reader.read(found), mine.row.last_row)
            await self._end()
        finally:
            source.close()

    async def _count(self, source: BinaryIO) -> None:
        """Notes how many rows the file has, so that one can tell how long it will take."""
        layout = self.mine.plan.layout
        total = await asyncio.to_thread(lambda: sum(1 for _ in records(source, layout)))
        async with self.rt.db.tx() as tx:
            await tx.execute(update(imports).where(*_at(tx, self.import_id)).values(rows_total=total))

    async def _begin(self, reading: Any) -> tuple[Import, Row[Any], Facts]:
        async with self.rt.db.tx() as tx:
            mine = await queries.one(tx, self.keys, reading, self.import_id, lock=True)
            if mine.row.state not in (State.QUEUED, State.RUNNING):
                raise JobCancelled
            business = await businesses.business(tx, mine.row.business_id)
            attributes = await businesses.definitions(tx, mine.row.business_id)
            if mine.row.dry_run:  # it holds what it has seen in memory: each try begins anew
                await tx.execute(delete(import_errors).where(*_errors_at(tx, self.import_id)))
            anew: dict[str, Any] = (
                dict.fromkeys(("rows_done", "last_row", *COUNTS), 0) if mine.row.dry_run else {}
            )
            await tx.execute(
                update(imports)
                .where(*_at(tx, self.import_id))
                .values(
                    state=int(State.RUNNING),
                    started_at=mine.row.started_at or tx.now,
                    try_began_at=tx.now,
                    try_began_rows=0 if mine.row.dry_run else mine.row.rows_done,
                    **anew,
                )
            )
            await self.job.save(tx, {}, done=0 if mine.row.dry_run else mine.row.rows_done)
            mine = await queries.one(tx, self.keys, reading, self.import_id)
        return mine, business, self._facts(mine, business, attributes)

    def _facts(self, mine: Import, business: Row[Any], attributes: Any) -> Facts:
        return facts_of(self.keys, mine.row.source, business, attributes)

    async def _flow(self, rows: Iterator[Parsed | Refused], last_row: int) -> None:
        """Reads a chunk ahead of the one that is written."""
        ready: asyncio.Queue[Chunk | None] = asyncio.Queue(1)

        async def read() -> None:
            at = last_row
            while (chunk := await asyncio.to_thread(_taken, rows, at)) is not None:
                at = chunk.last_row
                await self._prepare(chunk)
                await ready.put(chunk)
            await ready.put(None)

        reader = asyncio.create_task(read())
        try:
            while True:
                getting = asyncio.create_task(ready.get())
                await asyncio.wait({getting, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    await reader  # raises what kept it from reading on
                    if (chunk := await ready.get()) is None:
                        return
                elif (chunk := getting.result()) is None:
                    await reader
                    return
                began = asyncio.get_running_loop().time()
                await self._written(chunk)
                await self._refresh(chunk.rows)
                await asyncio.sleep(REST * (asyncio.get_running_loop().time() - began))
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _refresh(self, rows: int) -> None:
        """Has the database look again at tables that have grown, each time that the rows have doubled."""
        self._grown += rows
        if self._grown < self._next_look or self.dry is not None:
            return
        self._next_look = 2 * self._grown
        for name in _CUSTOMERS if self.mine.row.kind == rules.CUSTOMERS else (*_CUSTOMERS, *_ORDERS):
            with contextlib.suppress(DBAPIError, psycopg.Error):  # the next look will do
                async with self.rt.db.tx() as tx:
                    await tx.execute(_REFRESH, {"name": name})

    async def _prepare(self, chunk: Chunk) -> None:
        """Fingerprints the people of a chunk and seals those whom nobody knows yet."""
        if self.mine.row.kind not in (rules.CUSTOMERS, rules.CUSTOMERS_AND_ORDERS):
            return
        async with self.rt.db.read() as tx:
            live = await live_versions(tx)
        chunk.live = live
        here = self.business.business_id
        chunk.people = await asyncio.to_thread(persons, self.keys, live, here, chunk.parsed)
        if self.dry is not None:
            return
        async with self.rt.db.read() as tx:
            if await live_versions(tx) != live:
                chunk.others = chunk.people
                return
            held = await writing.holders(tx, live, chunk.people)
        fresh: list[Person] = []
        seen: set[bytes] = set()
        for person, holders in zip(chunk.people, held, strict=True):
            mine = {digest for some in person.current.values() for digest in some}
            if holders or mine & seen:
                chunk.others.append(person)
            else:
                fresh.append(person)
            seen |= mine
        now = clock.now()
        if fresh:
            chunk.new = await asyncio.to_thread(
                newcomers, self.keys, live, self.business, fresh, self.mine.row.source, now
            )

    async def _written(self, chunk: Chunk) -> None:
        """Writes a chunk, again while other transactions come in between or the database is away."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._write(chunk)
                return
            except IdentifiersTaken:
                chunk.surely = False
                if attempt < ATTEMPTS:
                    continue
                raise
            except _RACES:
                if attempt == ATTEMPTS:
                    raise
            except (DBAPIError, psycopg.Error, Problem, OSError) as error:
                if attempt == ATTEMPTS or not (outages.is_conflict(error) or outages.is_passing(error)):
                    raise
            await asyncio.sleep(random.uniform(0.5, 1.5) * outages.delay_seconds(attempt, 0.02, 2.0))  # noqa: S311

    async def _write(self, chunk: Chunk) -> None:
        with in_bulk(), self.rt.audit.reading("user.name", "user.contact") as reading:
            async with self.rt.db.tx() as tx:
                locked = select(imports.c.state, imports.c.last_row).where(*_at(tx, self.import_id))
                now = (await tx.execute(locked.with_for_update())).one()
                if now.last_row >= chunk.last_row:
                    return  # it was committed, and the connection lost before we heard of it
                if now.state != State.RUNNING:
                    raise JobCancelled
                errors = [error for each in chunk.refused for error in each.errors[:MOST_ERRORS]]
                counts = await self._write_rows(tx, reading, chunk, errors)
                counts.rows_refused += len(chunk.refused)
                counts.rows_done = chunk.rows
                await write_errors(tx, self.import_id, errors)
                await self._note(tx, chunk, counts)

    async def _write_rows(self, tx: Tx, reading: Any, chunk: Chunk, errors: list[RowError]) -> Counts:
        """Writes the rows that can be written, or says what would become of them; adds to `errors` the others."""
        if self.dry is not None:
            return await self.dry.judge(tx, self.mine.row, chunk, errors)
        kind = self.mine.row.kind
        counts = Counts()
        people: dict[int, Result] = {}
        if kind != rules.ORDERS:
            people = await self._write_people(tx, reading, chunk, counts, errors)
        told: dict[int, orders.Result] = {}
        if kind != rules.CUSTOMERS:
            told = await self._write_orders(tx, chunk, people, counts, errors)
        await self._keep_rows(tx, people, told)
        return counts

    async def _write_people(
        self, tx: Tx, reading: Any, chunk: Chunk, counts: Counts, errors: list[RowError]
    ) -> dict[int, Result]:
        row = self.mine.row
        live = await live_versions(tx)
        house = House(self.import_id, self.business, row.duplicates, row.match_by, row.source, clock.now())
        new, others = chunk.new, chunk.others
        if live != chunk.live:  # the keys are being rotated
            others = await asyncio.to_thread(
                persons, self.keys, live, self.business.business_id, chunk.parsed
            )
            new = None
        results = await writing.write(tx, self.keys, reading, house, live, new, others, surely=chunk.surely)
        for each in results:
            match each.outcome:
                case Outcome.CREATED:
                    counts.customers_created += 1
                case Outcome.SKIPPED:
                    counts.customers_skipped += 1
                case Outcome.REFUSED:
                    counts.rows_refused += 1
                    errors.append(self._taken_error(each.row, each.taken))
                case _:
                    counts.customers_updated += 1
        return {each.row: each for each in results}

    def _taken_error(self, row: int, kind: str) -> RowError:
        target = f"customer.{rules.EMAIL if kind == rules.NO_CONTACT else kind}"
        column = next((c for c in self.mine.plan.mapping.columns if c.target == target), None)
        field_name = "customer.sources" if kind == rules.EXTERNAL_ID else target
        return RowError(
            row,
            column.index + 1 if column else 0,
            column.name if column else "",
            field_name,
            rules.TAKEN[kind],
            rules.EXPECTED[kind],
        )

    async def _write_orders(
        self,
        tx: Tx,
        chunk: Chunk,
        people: dict[int, Result],
        counts: Counts,
        errors: list[RowError],
    ) -> dict[int, orders.Result]:
        told = []
        for each in chunk.parsed:
            if each.order is None:
                continue
            person = people.get(each.row)
            if person is not None and person.outcome is Outcome.REFUSED:
                continue
            told.append((each, person.customer_id if person else None))
        results = await orders.record(tx, self.keys, self.business, self.mine.row.duplicates, told)
        for row, result in results.items():
            match result.outcome:
                case Outcome.CREATED:
                    counts.orders_created += 1
                case Outcome.UPDATED:
                    counts.orders_updated += 1
                case Outcome.REFUSED:
                    counts.rows_refused += 1
                    errors.append(RowError(row, 0, "", result.field, result.reason, result.expected))
                case _:
                    counts.orders_skipped += 1
            counts.customers_created += result.guest
        return results

    async def _keep_rows(self, tx: Tx, people: dict[int, Result], told: dict[int, orders.Result]) -> None:
        """What undo and a second look need to know of each row that wrote something."""
        kept = sorted(
            {row for row, each in people.items() if each.outcome in _WROTE}
            | {row for row, order in told.items() if order.outcome in _WROTE}
        )
        if not kept:
            return
        nobody, nothing = Result(0, Outcome.NONE), orders.Result(0, Outcome.NONE)
        mine = [people.get(row, nobody) for row in kept]
        theirs = [told.get(row, nothing) for row in kept]
        guests = [each.guest and not person.customer_id for each, person in zip(theirs, mine, strict=True)]
        who = [
            person.customer_id or (order.customer_id if guest else None)
            for person, order, guest in zip(mine, theirs, guests, strict=True)
        ]
        outcomes = [
            int(Outcome.CREATED) if guest else int(person.outcome)
            for person, guest in zip(mine, guests, strict=True)
        ]
        versions = [1 if guest else person.version for person, guest in zip(mine, guests, strict=True)]
        await tx.together(
            (
                _ROWS,
                {
                    "tenant": tx.tenant_id,
                    "import": self.import_id,
                    "rows": arrays.longs(kept),
                    "customers": arrays.maybe_uuids(who),
                    "customer_outcomes": arrays.shorts(outcomes),
                    "customer_versions": arrays.longs(versions),
                    "customer_befores": arrays.maybe_octets([each.before for each in mine]),
                    "orders": arrays.maybe_uuids([each.order_id for each in theirs]),
                    "order_outcomes": arrays.shorts([int(each.outcome) for each in theirs]),
                    "order_versions": arrays.longs([each.version for each in theirs]),
                    "order_befores": arrays.maybe_octets([each.before for each in theirs]),
                },
            )
        )

    async def _note(self, tx: Tx, chunk: Chunk, counts: Counts) -> None:
        """The checkpoint, with the work."""
        mine = imports.c
        sums = {name: mine[name] + getattr(counts, name) for name in ("rows_done", *COUNTS)}
        done = (
            await tx.execute(
                update(imports)
                .where(*_at(tx, self.import_id))
                .values(**sums, last_row=chunk.last_row, updated_at=tx.now)
                .returning(mine.rows_done, mine.rows_total)
            )
        ).one()
        await self.job.save(tx, {"last_row": chunk.last_row}, done=done.rows_done, total=done.rows_total)

    async def _end(self) -> None:
        async with self.rt.db.tx() as tx:
            locked = select(imports).where(*_at(tx, self.import_id)).with_for_update()
            row = (await tx.execute(locked)).one()
            if row.state == State.COMPLETED:
                return
            if row.state != State.RUNNING:
                raise JobCancelled
            undo_until = tx.now + rules.UNDO_FOR if wrote(row) and not row.dry_run else None
            await tx.execute(
                update(imports)
                .where(*_at(tx, self.import_id))
                .values(
                    state=int(State.COMPLETED),
                    finished_at=tx.now,
                    updated_at=tx.now,
                    rows_total=row.rows_done,
                    undo_until=undo_until,
                    version=row.version + 1,
                )
            )
            if not row.dry_run:
                event = events.ImportCompleted(
                    import_id=str(row.import_id),
                    business_id=str(row.business_id),
                    kind=row.kind,
                    source=row.source,
                    counts=counts_of(row),
                )
                await emit(
                    tx,
                    event,
                    aggregate_id=row.import_id,
                    version=row.version + 1,
                    business_id=row.business_id,
                )
            await self.job.save(tx, {"last_row": row.last_row}, done=row.rows_done, total=row.rows_done)


_WROTE = (Outcome.CREATED, Outcome.UPDATED, Outcome.JOINED)


def facts_of(keys: TenantKeys, source: str, business: Row[Any], attributes: Any) -> Facts:
    """What rows are read by."""
    return Facts(
        business_id=business.business_id,
        currency=business.currency,
        country=business.country,
        time_zone=business.time_zone,
        attributes=attributes,
        source=source,
        content_key=keys.request_hash_key,
        now=clock.now(),
    )


def _taken(rows: Iterator[Parsed | Refused], last_row: int) -> Chunk | None:
    """The next rows of the file; None at its end."""
    taken = list(islice(rows, CHUNK))
    if not taken:
        return None
    chunk = Chunk([], [], taken[-1].last_row, sum(each.last_row - each.row + 1 for each in taken))
    for each in taken:
        if isinstance(each, Parsed):
            chunk.parsed.append(each)
        else:
            chunk.refused.append(each)
    return chunk


async def write_errors(tx: Tx, import_id: UUID, errors: Sequence[RowError]) -> None:
    """Keeps what is wrong with rows, numbered within each row."""
    places: dict[int, int] = {}
    found = []
    for error in errors:
        place = places.get(error.row, 0)
        places[error.row] = place + 1
        found.append(
            {
                "tenant_id": tx.tenant_id,
                "import_id": import_id,
                "row": error.row,
                "place": place,
                "column_index": error.column - 1,
                "field": error.field,
                "reason": error.reason,
                "expected": error.expected,
            }
        )
    for i in range(0, len(found), 500):
        await tx.execute(insert(import_errors).values(found[i : i + 500]))


def _at(tx: Tx, import_id: UUID) -> tuple[Any, ...]:
    return imports.c.tenant_id == tx.tenant_id, imports.c.import_id == import_id


def _errors_at(tx: Tx, import_id: UUID) -> tuple[Any, ...]:
    return import_errors.c.tenant_id == tx.tenant_id, import_errors.c.import_id == import_id
