"""Takes back what an import wrote, a batch of rows in one transaction each, the last rows first.

A row that was dealt with is forgotten, so that the work goes on where it stopped.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson
import psycopg
from sqlalchemy import Row, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from libs import arrays, outages
from libs.audit import Reading
from libs.crypto import LiveVersions, TenantKeys, live_versions
from libs.db import Tx
from libs.ids import new_id
from libs.jobs import Job, JobCancelled
from libs.outbox import Fact, emit, emit_all, in_bulk, posting_alike
from libs.pipeline import Query
from libs.problems import Problem
from libs.run.service import Runtime
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2 as events
from services.customers.businesses import queries as businesses
from services.customers.imports import addresses
from services.customers.imports.rules import Outcome, State
from services.customers.imports.tables import import_errors, import_rows, imports
from services.customers.imports.writing import BEFORE, snapshot_id
from services.customers.orders import actions as order_actions
from services.customers.orders import metrics
from services.customers.orders.rules import CANCELLED, UPDATED, Change, Order, Tally
from services.customers.orders.tables import customer_metrics, orders
from services.customers.profiles import actions as profiles
from services.customers.profiles import identifiers, queries
from services.customers.profiles import rules as profile_rules
from services.customers.profiles.membership import leave_business
from services.customers.profiles.queries import View
from services.customers.profiles.rules import Profile, Source, Standing
from services.customers.profiles.wire import Written
from services.customers.tables import customer_identifiers
from services.customers.timeline import actions as timeline

BATCH = 300
ATTEMPTS = 60
REST = 0.03
PLACE = 1000  # conflicts come after the errors of their row
CHANGED, NEWER, SPENT = "CHANGED_SINCE", "NEWER_REVISION", "POINTS_SPENT"
_EXPECTED = {
    CHANGED: "was changed since, and stays as it is now",
    NEWER: "was known before the import, and keeps its newer revision",
}

_r = import_rows.c

# What else hangs on a customer: then they are more than the import made them.
_LOCK = Query(
    text("""
    select c.customer_id, c.version,
           c.deleted_at is not null or c.merged_into is not null or c.erasing_at is not null as gone,
           exists (select from orders o
                   where o.tenant_id = :tenant and o.customer_id = c.customer_id and o.status <> 0 limit 1)
           or exists (select from notes n where n.tenant_id = :tenant and n.customer_id = c.customer_id limit 1)
           or exists (select from activities a
                      where a.tenant_id = :tenant and a.business_id = :business
                        and a.customer_id = c.customer_id limit 1)
           or (select count(*) > 1 from memberships m
               where m.tenant_id = :tenant and m.customer_id = c.customer_id) as in_use
    from unnest(:ids) as wanted (id)
    cross join lateral (
        select * from customers c
        where c.tenant_id = :tenant and c.customer_id = wanted.id limit 1 for update
    ) c
""")
)
_DELETE = [
    Query(text(statement))
    for statement in (
        """
        update memberships m set deleted_at = :now, deletion_mode = :soft
        from unnest(:ids) as n (id)
        where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = n.id
          and m.deleted_at is null
        """,
        """
        update customers c set version = c.version + 1, updated_at = :now, deleted_at = :now
        from unnest(:ids) as n (id) where c.tenant_id = :tenant and c.customer_id = n.id
        """,
        "delete from customer_identifiers where tenant_id = :tenant and customer_id = any (:ids)",
        "delete from customer_search where tenant_id = :tenant and customer_id = any (:ids)",
        """
        insert into customer_changes (tenant_id, business_id, customer_id, changed_at, change_id, kind, fields,
                                      actor)
        select :tenant, :business, n.id, :now, n.change_id, :deleted, '{}', :actor
        from unnest(:ids, :changes) as n (id, change_id)
        """,
    )
]


_RENEW = text("""
    update import_rows r set customer_version = :now
    where r.tenant_id = :tenant and r.import_id = :import and r.customer_id = :customer
      and r.row = (select max(e.row) from import_rows e
                   where e.tenant_id = :tenant and e.import_id = :import
                     and e.customer_id = :customer and e.row < :row)
""")


_WROTE = (Outcome.CREATED, Outcome.UPDATED, Outcome.JOINED)


@dataclass(slots=True)
class Left:
    """What stays as it is, and why."""

    row: int
    reason: str
    customer_id: UUID | None = None
    order_id: UUID | None = None
    expected: str = ""


class Undoing:
    """One try of taking one import back."""

    def __init__(self, rt: Runtime, job: Job) -> None:
        self.rt = rt
        self.job = job
        self.import_id = UUID(job.input["import"])
        self.keys: TenantKeys = rt.keys.for_tenant(job.tenant_id)

    async def run(self) -> None:
        """Goes on where it stopped. Raises JobCancelled, LeaseLost."""
        done = await self._count()
        while True:
            began = asyncio.get_running_loop().time()
            some = await self._again(done)
            if not some:
                return
            done += some
            await asyncio.sleep(REST * (asyncio.get_running_loop().time() - began))

    async def _count(self) -> int:
        async with self.rt.db.tx() as tx:
            left = int(await tx.scalar(select(func.count()).where(*self._mine(tx))))
            await self.job.save(tx, {}, done=self.job.done, total=self.job.done + left)
        return self.job.done

    async def _again(self, done: int) -> int:
        """A batch, again while other transactions come in between or the database is away."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._batch(done)
            except (DBAPIError, psycopg.Error, Problem, OSError) as error:
                if attempt == ATTEMPTS or not (outages.is_conflict(error) or outages.is_passing(error)):
                    raise
            await asyncio.sleep(random.uniform(0.5, 1.5) * outages.delay_seconds(attempt, 0.02, 2.0))  # noqa: S311
        raise AssertionError("unreachable")

    async def _batch(self, done: int) -> int:
        with in_bulk(), self.rt.audit.reading("user.name", "user.contact") as reading:
            async with self.rt.db.tx() as tx:
                locked = select(imports).where(*self.at(tx)).with_for_update()
                mine = (await tx.execute(locked)).one()
                if mine.state != State.UNDOING:
                    raise JobCancelled
                wanted = select(import_rows).where(*self._mine(tx)).order_by(_r.row.desc()).limit(BATCH)
                rows = (await tx.execute(wanted)).all()
                if not rows:
                    await self.end(tx, mine)
                    return 0
                business = await businesses.business(tx, mine.business_id)
                left = await self._undo(tx, reading, business, rows)
                await self.note(tx, left)
                await tx.execute(
                    delete(import_rows).where(*self._mine(tx), _r.row.in_([row.row for row in rows]))
                )
                await tx.execute(
                    update(imports)
                    .where(*self.at(tx))
                    .values(conflicts=imports.c.conflicts + len(left), updated_at=tx.now)
                )
                await self.job.save(tx, {}, done=done + len(rows))
                return len(rows)

    async def _undo(
        self, tx: Tx, reading: Reading, business: Row[Any], rows: Sequence[Row[Any]]
    ) -> list[Left]:
        live = await live_versions(tx)
        owners = {row.order_id: row.customer_id for row in rows if row.order_id}
        found = await tx.execute(
            select(orders.c.order_id, orders.c.customer_id).where(
                orders.c.tenant_id == tx.tenant_id, orders.c.order_id.in_(owners)
            )
        )
        owners = {row.order_id: row.customer_id for row in found}
        people = {row.customer_id for row in rows if row.customer_id}
        where = {"tenant": tx.tenant_id, "business": business.business_id}
        ids = sorted(people | {each for each in owners.values() if each})
        await tx.together((_LOCK, where | {"ids": arrays.uuids(ids)}))  # people before their orders
        left = await self._undo_orders(tx, business, [row for row in rows if row.order_id])
        (states,) = await tx.together((_LOCK, where | {"ids": arrays.uuids(sorted(people))}))
        at = {state.customer_id: state for state in states}
        gone: dict[UUID, int] = {}
        now: dict[UUID, int] = {}  # versions that this batch made
        for row in rows:
            if row.customer_id is None or row.customer_outcome not in _WROTE:
                continue
            state = at.get(row.customer_id)
            if state is None or state.gone:
                continue  # somebody else has deleted them
            version = now.get(row.customer_id, state.version)
            expected = now.get(row.customer_id, row.customer_version)
            changed = version != expected
            if row.customer_outcome == Outcome.CREATED:
                changed = changed or state.in_use
                if not changed:
                    gone[row.customer_id] = version
            elif not changed:
                restored = await self._restore(tx, reading, live, business, row)
                changed = restored is None
                if restored is not None:
                    now[row.customer_id] = restored
            if changed:
                left.append(Left(row.row, CHANGED, customer_id=row.customer_id))
        await self._delete(tx, business, gone)
        return left

    # --- customers ---------------------------------------------------------------------------------------

    async def _restore(
        self, tx: Tx, reading: Reading, live: LiveVersions, business: Row[Any], row: Row[Any]
    ) -> int | None:
        """Gives a customer their former values back, and says their version then; None if that cannot be."""
        here = business.business_id
        views = await queries.many(tx, self.keys, reading, [row.customer_id], here)
        view = views.get(row.customer_id)
        if view is None or view.key is None or view.customer_id != row.customer_id:
            return None
        place = snapshot_id(self.import_id, row.row)
        known = orjson.loads(
            self.keys.open(reading, view.customer_id, view.key, BEFORE, place, row.customer_before)
        )
        before = _written(known)
        if await self._taken(tx, live, view, before, here):
            return None
        if known["joined"] and await self._has_orders(tx, here, view.customer_id):
            return None
        after = await profiles.update_customer(tx, self.keys, view, before)
        if "address" in known:
            after = await addresses.put_back(tx, self.keys, reading, live, after, known["address"])
        if known["joined"]:
            await leave_business(tx, self.keys, after)
            await tx.within_businesses()
        version = await self._customer_version(tx, view.customer_id)
        # An earlier row of the import may have written to the same customer: for it they are as it left them.
        await tx.execute(
            _RENEW,
            {
                "tenant": tx.tenant_id,
                "import": self.import_id,
                "customer": view.customer_id,
                "row": row.row,
                "now": version,
            },
        )
        return version

    async def _has_orders(self, tx: Tx, here: UUID, customer_id: UUID) -> bool:
        wanted = select(orders.c.order_id).where(
            orders.c.tenant_id == tx.tenant_id,
            orders.c.business_id == here,
            orders.c.customer_id == customer_id,
        )
        return (await tx.execute(wanted.limit(1))).first() is not None

    async def _customer_version(self, tx: Tx, customer_id: UUID) -> int:
        return int(
            await tx.scalar(
                text("select version from customers where tenant_id = :tenant and customer_id = :customer"),
                {"tenant": tx.tenant_id, "customer": customer_id},
            )
        )

    async def _taken(self, tx: Tx, live: LiveVersions, view: View, before: Written, here: UUID) -> bool:
        """True if somebody else has an identifier by now that the customer had before."""
        wanted = profile_rules.identifiers(before.profile, {here: before.standing})
        claims = identifiers.claims_of(self.keys, live, {view.customer_id: wanted})
        mine = customer_identifiers.c
        found = await tx.execute(
            select(mine.customer_id).where(
                mine.tenant_id == tx.tenant_id,
                tuple_(mine.kind, mine.key_version, mine.bidx).in_([claim[:3] for claim in claims]),
                mine.customer_id != view.customer_id,
            )
        )
        return found.first() is not None

    async def _delete(self, tx: Tx, business: Row[Any], gone: Mapping[UUID, int]) -> None:
        """Deletes customers who are as the import made them. Emits CustomerDeleted."""
        if not gone:
            return
        here, ids = business.business_id, sorted(gone)
        where = {
            "tenant": tx.tenant_id,
            "business": here,
            "now": tx.now,
            "soft": int(pb.DELETION_MODE_SOFT),
            "deleted": timeline.DELETED,
            "actor": timeline.actor(tx),
            "ids": arrays.uuids(ids),
            "changes": arrays.uuids([new_id() for _ in ids]),
        }
        told = events.CustomerDeleted(
            business_ids=[str(here)], mode=pb.DELETION_MODE_SOFT, approved=False, everywhere=True
        )
        rest = told.SerializeToString()
        bodies = [b"\x0a\x24" + str(each).encode() + rest for each in ids]  # field 1, 36 bytes
        versions = [gone[each] + 1 for each in ids]
        await tx.together(
            *((statement, where) for statement in _DELETE), posting_alike(tx, told, ids, bodies, versions)
        )

    # --- orders ------------------------------------------------------------------------------------------

    async def _undo_orders(self, tx: Tx, business: Row[Any], rows: Sequence[Row[Any]]) -> list[Left]:
        """Takes out orders that are as the import recorded them. Emits OrderRecorded and OrderCancelled."""
        if not rows:
            return []
        o = orders.c
        wanted = (
            select(orders)
            .where(o.tenant_id == tx.tenant_id, o.order_id.in_([row.order_id for row in rows]))
            .order_by(o.source, o.external_id)
        )
        found = {each.order_id: each for each in await tx.execute(wanted.with_for_update())}
        left, out = [], []
        for row in rows:
            order = found.get(row.order_id)
            if order is None:
                continue
            if row.order_outcome != Outcome.CREATED:
                left.append(Left(row.row, NEWER, order_id=row.order_id))
            elif order.version != row.order_version:
                left.append(Left(row.row, CHANGED, order_id=row.order_id))
            else:
                out.append(order_actions.order_of(order))
        if out:
            await self._take_out(tx, business, out)
        return left

    async def _take_out(self, tx: Tx, business: Row[Any], out: Sequence[Order]) -> None:
        await tx.execute(
            delete(orders).where(
                orders.c.tenant_id == tx.tenant_id, orders.c.order_id.in_([each.order_id for each in out])
            )
        )
        tally, facts = Tally(), list[Fact]()
        for each in out:
            tally.remove(each)
            told = ("recorded",) if each.told.status == CANCELLED else ("recorded", "cancelled")
            after = replace(each, told=replace(each.told, status=CANCELLED), version=each.version + 1)
            facts += order_actions.facts_of(business, Change(after, UPDATED, told))
        await metrics.write(tx, business.business_id, tally)
        m = customer_metrics.c
        await tx.execute(
            delete(customer_metrics).where(
                m.tenant_id == tx.tenant_id,
                m.business_id == business.business_id,
                m.customer_id.in_(list(tally.customers)),
                m.orders_recorded == 0,
            )
        )
        await emit_all(tx, facts)

    # --- the import --------------------------------------------------------------------------------------

    async def note(self, tx: Tx, left: Iterable[Left]) -> None:
        """Lists what stays as it is."""
        rows = [
            {
                "tenant_id": tx.tenant_id,
                "import_id": self.import_id,
                "row": each.row,
                "place": PLACE + (each.order_id is not None),
                "column_index": -1,
                "field": "balance" if each.reason == SPENT else "order" if each.order_id else "customer",
                "reason": each.reason,
                "expected": each.expected or _EXPECTED[each.reason],
                "customer_id": each.customer_id,
                "order_id": each.order_id,
            }
            for each in left
        ]
        if rows:
            await tx.execute(insert(import_errors).values(rows).on_conflict_do_nothing())

    async def end(self, tx: Tx, mine: Row[Any]) -> None:
        """Notes that all is taken back. Emits ImportUndone."""
        await tx.execute(
            update(imports)
            .where(*self.at(tx))
            .values(
                state=int(State.UNDONE),
                finished_at=tx.now,
                updated_at=tx.now,
                undo_until=None,
                version=mine.version + 1,
            )
        )
        event = events.ImportUndone(
            import_id=str(mine.import_id), business_id=str(mine.business_id), conflicts=mine.conflicts
        )
        await emit(
            tx, event, aggregate_id=mine.import_id, version=mine.version + 1, business_id=mine.business_id
        )

    def at(self, tx: Tx) -> tuple[Any, ...]:
        """The import's row."""
        return imports.c.tenant_id == tx.tenant_id, imports.c.import_id == self.import_id

    def _mine(self, tx: Tx) -> tuple[Any, ...]:
        return _r.tenant_id == tx.tenant_id, _r.import_id == self.import_id


def _written(known: dict[str, Any]) -> Written:
    """The customer of a snapshot."""
    return Written(
        Profile.of(known["profile"]),
        Standing(
            known["status"],
            known["type"],
            tuple(known["tags"]),
            known["attributes"],
            known["personal"],
            tuple(Source(*source) for source in known["sources"]),
        ),
        email_verified=known["email_verified"],
        phone_verified=known["phone_verified"],
        paths=frozenset(),
    )
