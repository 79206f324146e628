"""Writes about people: what is newer counts, and of the erased nothing is kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from libs import arrays
from libs.db import Tx
from libs.pipeline import Query, Step
from services.loyalty.people.tables import people

# Later than any version of a customer: what was erased never comes back.
FOR_GOOD = 2**62

_FACTS = text("""
    insert into people as p
    select r.* from json_populate_recordset(null::people, cast(:rows as json)) r
    on conflict on constraint people_pkey do update
    set version = excluded.version, birth_month = excluded.birth_month, birth_day = excluded.birth_day,
        time_zone = excluded.time_zone, profile_complete = excluded.profile_complete, wanted = false
    where p.version < excluded.version or (p.version = excluded.version and p.wanted)
    returning p.customer_id
""")
_WANTED = text("""
    insert into people as p
    select r.* from json_populate_recordset(null::people, cast(:rows as json)) r
    on conflict on constraint people_pkey do update set wanted = true where p.version < :erased
""")
# Held by whoever makes something of a person, shared, and by an erasure alone: what is made while a person is erased is
# made before the erasure looks, or after it is there to be seen.
NOT_NOW = Query(text("select pg_advisory_xact_lock_shared(hashtextextended('erasure:' || :tenant, 0))"))
_ALONE = text("select pg_advisory_xact_lock(hashtextextended('erasure:' || :tenant, 0))")
_ERASED = Query(
    text("""
    select p.customer_id from people p
    where p.tenant_id = :tenant and p.customer_id = any(:customers) and p.version = :erased
""")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What customers told of a person, as of a version of theirs."""

    customer_id: UUID
    version: int
    birth_month: int | None
    birth_day: int | None
    time_zone: str
    profile_complete: bool


async def know(tx: Tx, told: Iterable[Facts]) -> set[UUID]:
    """Keeps what is newer; gives of whom it was."""
    rows = [
        {"tenant_id": tx.tenant_id, "wanted": False} | {name: getattr(each, name) for name in Facts.__slots__}
        for each in sorted(told, key=lambda each: each.customer_id)
    ]
    if not rows:
        return set()
    return set((await tx.execute(_FACTS, {"rows": orjson.dumps(rows).decode()})).scalars())


async def want(tx: Tx, customer_ids: Iterable[UUID]) -> None:
    """Notes who is to be asked for later."""
    rows = [
        {"tenant_id": tx.tenant_id, "customer_id": each, **_NOTHING} for each in sorted(set(customer_ids))
    ]
    if rows:
        wanted = orjson.dumps([{**row, "wanted": True} for row in rows]).decode()
        await tx.execute(_WANTED, {"rows": wanted, "erased": FOR_GOOD})


async def gone(tx: Tx, customer_ids: Iterable[UUID]) -> None:
    """Notes that customers tells nothing of these any more."""
    rows = [{"tenant_id": tx.tenant_id, "customer_id": each} for each in sorted(customer_ids)]
    if rows:
        fresh = insert(people).values([{**row, **_NOTHING} for row in rows])
        none = {name: fresh.excluded[name] for name in _NOTHING if name != "version"}
        await tx.execute(fresh.on_conflict_do_update(constraint="people_pkey", set_=none))


async def erased(tx: Tx, customer_ids: Iterable[UUID]) -> set[UUID]:
    """Those of these people who were erased; nobody else is until the transaction ends."""
    _, rows = await tx.together(*asked_erased(tx, customer_ids))
    return {row.customer_id for row in rows}


def asked_erased(tx: Tx, customer_ids: Iterable[UUID]) -> tuple[Step, Step]:
    """The statements of `erased`; the second gives the rows."""
    where = {"tenant": tx.tenant_id, "customers": arrays.uuids(list(customer_ids)), "erased": FOR_GOOD}
    return (NOT_NOW, {"tenant": str(tx.tenant_id)}), (_ERASED, where)


async def be_alone(tx: Tx) -> None:
    """Waits until nobody makes anything of a person any more; who begins after that sees who was erased."""
    await tx.execute(_ALONE, {"tenant": str(tx.tenant_id)})


async def forget(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Erases what was known of people, for good."""
    rows = [
        {"tenant_id": tx.tenant_id, "customer_id": each, **_NOTHING, "version": FOR_GOOD}
        for each in sorted(customer_ids)
    ]
    fresh = insert(people).values(rows)
    none = {name: fresh.excluded[name] for name in _NOTHING}
    await tx.execute(fresh.on_conflict_do_update(constraint="people_pkey", set_=none))


_NOTHING = {
    "version": 0,
    "birth_month": None,
    "birth_day": None,
    "time_zone": "",
    "profile_complete": False,
    "wanted": False,
}
