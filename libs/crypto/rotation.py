"""Rotation: a new version of a tenant key comes into use and the old one goes, while everybody works on.

    add  →  fill  →  flip  →  drain  →  destroy

add: writers write both versions. fill: rows that have only the old one get the new one. flip: look-ups and
new data keys use the new one. drain: rows stop needing the old one. destroy: the old key goes. The state is
in `key_versions` and in the rows themselves, so a rotation that died anywhere goes on from there, and two at
once do no harm.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from libs import outages
from libs.crypto.faults import KeyDestroyed
from libs.crypto.keys import Keys
from libs.crypto.keystore import Kind
from libs.crypto.tables import key_versions
from libs.crypto.versions import LiveVersions, live_versions, set_state
from libs.db import Database, Tx

# Longer than any transaction (5 s) and than a process may go on with a key that it has in memory.
GRACE_SECONDS = 60.0
# Writers of the tenant queue behind a change of state, so it gives up soon and comes back.
PATIENCE = "500ms"
BUSY_SECONDS = 0.5
REWRAP_ROWS = 2_000

Phase = Literal["add", "fill", "flip", "drain", "destroy", "done"]


class Change(NamedTuple):
    """One version of a kind of key going, another one coming."""

    kind: Kind
    old: int
    new: int


class Batch(NamedTuple):
    """What one batch did: how many rows it changed, and the last row it looked at (None: no more)."""

    changed: int
    last: UUID | None


Work = Callable[[Tx, Change, UUID | None], Awaitable[Batch]]
"""One batch, of rows with ids after the given one, in the transaction given. Safe to repeat and to race.

It may rely on the live versions staying as they are until its transaction ends.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What to rotate, and the service's part of it.

    `leaving` is the version to get rid of: the one that was current when the rotation was asked for, so that
    a rotation that is run again after its end does nothing. `fill` gives rows of the old version the new one
    too (None: nothing to fill); `drain` frees rows from the old one.
    """

    kind: Kind
    leaving: int
    fill: Work | None
    drain: Work


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rotation is. `pause_seconds`: how long to wait before the next step.

    `after` and `changed` are of the pass over the rows that is under way; `clean` says that a whole pass
    found nothing to change. A step that is given no progress starts the pass again.
    """

    phase: Phase
    change: Change | None = None
    after: UUID | None = None
    changed: int = 0
    clean: bool = False
    pause_seconds: float = 0.0

    @property
    def done(self) -> bool:
        """True once the old version is gone."""
        return self.phase == "done"


async def rotate(
    db: Database, keys: Keys, rotation: Rotation, *, grace_seconds: float = GRACE_SECONDS
) -> None:
    """Rotates for the current caller's tenant, to the end."""
    progress: Progress | None = None
    while progress is None or not progress.done:
        progress = await step(db, keys, rotation, progress, grace_seconds=grace_seconds)
        await asyncio.sleep(progress.pause_seconds)


async def step(
    db: Database,
    keys: Keys,
    rotation: Rotation,
    last: Progress | None = None,
    *,
    grace_seconds: float = GRACE_SECONDS,
) -> Progress:
    """Does one short piece of a rotation of the current caller's tenant, and gives where it is then.

    `last` is what the step before gave, or None after a restart.
    """
    try:
        async with db.tx() as tx:
            live = await live_versions(tx)
            at = _where(live, rotation, last)
            if at.phase in ("fill", "drain"):
                return await _batch(tx, rotation, at)
            if at.phase == "destroy" and at.change:
                since = live.retiring[rotation.kind][at.change.old]
                left = (since + timedelta(seconds=grace_seconds) - tx.now).total_seconds()
                if left > 0:
                    return replace(at, phase="drain", pause_seconds=left)
            tenant_id = tx.tenant_id
        if at.phase == "add":
            await _add(db, keys, tenant_id, rotation)
        elif at.phase == "flip" and at.change:
            await _flip(db, at.change)
        elif at.phase == "destroy" and at.change:
            await _destroy(db, keys, tenant_id, at.change)
        return Progress(at.phase)
    except (DBAPIError, psycopg.Error) as fault:
        # Somebody holds the versions or the rows for longer than we want to make others wait.
        if outages.is_conflict(fault):
            return replace(last or Progress("add"), pause_seconds=BUSY_SECONDS)
        raise


def rotation_of_epoch(keys: Keys, leaving: int) -> Rotation:
    """The rotation of the key-encryption key: data keys are wrapped anew, the data stays as it is."""

    async def rewrap(tx: Tx, change: Change, after: UUID | None) -> Batch:
        tenant = keys.for_tenant(tx.tenant_id)
        found = (
            await tx.execute(_TO_REWRAP, {"tenant": tx.tenant_id, "old": change.old, "after": after})
        ).all()
        if not found:
            return Batch(0, None)
        ids = [row.key_id for row in found]
        wrapped = [tenant.rewrap(row.key_id, row.wrapped, change.old, change.new) for row in found]
        await tx.execute(
            _REWRAP, {"tenant": tx.tenant_id, "ids": ids, "wrapped": wrapped, "epoch": change.new}
        )
        return Batch(len(found), ids[-1])

    return Rotation(kind=Kind.KEK, leaving=leaving, fill=None, drain=rewrap)


_TO_REWRAP = text(f"""
    select key_id, wrapped from subject_keys
    where tenant_id = :tenant and epoch = :old and destroyed_at is null
        and key_id > coalesce(cast(:after as uuid), '00000000-0000-0000-0000-000000000000')
    order by key_id limit {REWRAP_ROWS} for update
""")  # noqa: S608
_REWRAP = text("""
    update subject_keys k set wrapped = fresh.wrapped, epoch = :epoch
    from unnest(cast(:ids as uuid[]), cast(:wrapped as bytea[])) as fresh (key_id, wrapped)
    where k.tenant_id = :tenant and k.key_id = fresh.key_id
""")


def _where(live: LiveVersions, rotation: Rotation, last: Progress | None) -> Progress:
    """What is next, by the rows; the pass of `last` goes on if it is of the same phase and change."""
    kind, current = rotation.kind, live.current[rotation.kind]
    adding = live.written[kind][1:]
    retiring = live.retiring.get(kind)
    if retiring:
        here = Progress("drain", Change(kind, min(retiring), current))
    elif adding:
        here = Progress("fill" if rotation.fill else "flip", Change(kind, current, adding[0]))
    else:
        return Progress("add" if current <= rotation.leaving else "done")
    if last is None or (last.phase, last.change) != (here.phase, here.change):
        return here
    if last.clean:
        return replace(last, phase="flip" if here.phase == "fill" else "destroy")
    return last


async def _batch(tx: Tx, rotation: Rotation, at: Progress) -> Progress:
    work = rotation.fill if at.phase == "fill" else rotation.drain
    assert work is not None
    assert at.change is not None
    batch = await work(tx, at.change, at.after)
    changed = at.changed + batch.changed
    if batch.last is not None:
        return Progress(at.phase, at.change, batch.last, changed)
    return Progress(at.phase, at.change, None, 0, clean=not changed)


async def _add(db: Database, keys: Keys, tenant_id: UUID, rotation: Rotation) -> None:
    async with db.read() as tx:
        new = (await live_versions(tx)).current[rotation.kind] + 1
    # The key is in the keystore before any row names it; one that a dead rotation left there is used.
    while True:
        try:
            await asyncio.to_thread(keys.keystore.add_version, tenant_id, rotation.kind, new)
            break
        except KeyDestroyed:
            new += 1
    async with db.tx() as tx:
        live = await _alone(tx)
        if _where(live, rotation, None).phase == "add" and live.current[rotation.kind] < new:
            row = {"tenant_id": tenant_id, "kind": rotation.kind, "version": new, "state": "adding"}
            await tx.execute(insert(key_versions).values(row | {"created_at": tx.now, "state_at": tx.now}))


async def _flip(db: Database, change: Change) -> None:
    async with db.tx() as tx:
        live = await _alone(tx)
        if live.written[change.kind] == (change.old, change.new):
            await set_state(tx, change.kind, change.old, "retiring")
            await set_state(tx, change.kind, change.new, "current")


async def _destroy(db: Database, keys: Keys, tenant_id: UUID, change: Change) -> None:
    # First the key, then the row that knows of it: in the other order a death in between would leave the key.
    await asyncio.to_thread(keys.keystore.destroy, tenant_id, change.kind, change.old)
    keys.for_tenant(tenant_id).refresh()
    async with db.tx() as tx:
        await _alone(tx)
        await tx.execute(
            delete(key_versions)
            .where(key_versions.c.tenant_id == tenant_id)
            .where(key_versions.c.kind == change.kind)
            .where(key_versions.c.version == change.old)
            .where(key_versions.c.state == "retiring")
        )


async def _alone(tx: Tx) -> LiveVersions:
    """The live versions, held so that nobody else relies on them until `tx` ends."""
    await tx.execute(select(text("set_config('lock_timeout', :patience, true)")), {"patience": PATIENCE})
    return await live_versions(tx, for_change=True)
