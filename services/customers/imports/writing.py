"""Writes the customers of a chunk: new ones all at once, known ones by the policy."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from psycopg.errors import UniqueViolation
from sqlalchemy import Row, text

from libs import arrays
from libs.audit import Reading
from libs.crypto import Column, Kind, LiveVersions, TenantKeys
from libs.db import Tx
from libs.outbox import posting_alike
from libs.pipeline import Query
from libs.problems import Conflict
from services.customers.addresses.queries import AddressView
from services.customers.imports import addresses, places, rules
from services.customers.imports.people import Newcomers, Person, newcomers
from services.customers.imports.rows import onto
from services.customers.imports.rules import Known, Outcome, Taken
from services.customers.profiles import actions as profiles
from services.customers.profiles import queries
from services.customers.profiles.membership import join_business
from services.customers.profiles.queries import View
from services.customers.profiles.wire import Written, as_written
from services.customers.timeline import actions as timeline

BEFORE = Column("import_rows", "customer_before")
ROUNDS = 8

_PERSONS = Query(
    text("""
    insert into customers (tenant_id, customer_id, key_id, version, profile, email_verified, phone_verified,
                           created_at, updated_at)
    select :tenant, n.customer_id, n.key_id, 1, n.profile, n.email_verified, n.phone_verified, :now, :now
    from unnest(:ids, :keys, :profiles, :email_verified, :phone_verified)
        as n (customer_id, key_id, profile, email_verified, phone_verified)
""")
)
_KEYS = Query(
    text("""
    insert into subject_keys (tenant_id, key_id, subject_id, epoch, wrapped, created_at)
    select :tenant, n.key_id, n.customer_id, :epoch, n.wrapped, :now
    from unnest(:ids, :keys, :wrapped) as n (customer_id, key_id, wrapped)
""")
)
_CLAIM_ALL = Query(
    text("""
    insert into customer_identifiers (tenant_id, kind, key_version, bidx, customer_id)
    select :tenant, n.kind, n.key_version, n.bidx, n.customer_id
    from unnest(:kinds, :versions, :digests, :customers) as n (kind, key_version, bidx, customer_id)
""")
)
# The same where somebody may have been first; it costs half as much again.
_CLAIM = Query(
    text("""
    with got as (
        insert into customer_identifiers (tenant_id, kind, key_version, bidx, customer_id)
        select :tenant, n.kind, n.key_version, n.bidx, n.customer_id
        from unnest(:kinds, :versions, :digests, :customers) as n (kind, key_version, bidx, customer_id)
        on conflict do nothing
        returning 1
    )
    select count(*) as claimed from got
""")
)
_LOSERS = Query(
    text("""
    select distinct n.customer_id
    from unnest(:kinds, :versions, :digests, :customers) as n (kind, key_version, bidx, customer_id)
    where not exists (
        select from customer_identifiers i
        where i.tenant_id = :tenant and i.kind = n.kind and i.key_version = n.key_version and i.bidx = n.bidx
          and i.customer_id = n.customer_id
    )
""")
)
_TAKE_BACK = [
    Query(text(f"delete from {table} where tenant_id = :tenant and {column} = any (:losers)"))  # noqa: S608
    for table, column in (
        ("customer_identifiers", "customer_id"),
        ("customers", "customer_id"),
        ("subject_keys", "subject_id"),
    )
]
_MEMBERS = Query(
    text("""
    insert into memberships (tenant_id, business_id, customer_id, status, type, tags, attributes, sealed, source,
                             joined_at)
    select :tenant, :business, n.customer_id, n.status, n.type, cast(n.tags as text[]),
           cast(n.attributes as jsonb), n.sealed, n.source, :now
    from unnest(:ids, :statuses, :types, :tags, :attributes, :sealed, :sources)
        as n (customer_id, status, type, tags, attributes, sealed, source)
    where n.customer_id <> all (:without)
""")
)
_FOUND_BY = Query(
    text("""
    insert into customer_search (tenant_id, customer_id, key_version, tokens, businesses)
    select :tenant, n.customer_id, n.key_version, cast(n.tokens as integer[]), array[cast(:business as uuid)]
    from unnest(:found_ids, :found_versions, :found_tokens) as n (customer_id, key_version, tokens)
    where n.customer_id <> all (:without)
""")
)
# With country and city of their default addresses.
_FOUND_AT = Query(
    text("""
    insert into customer_search (tenant_id, customer_id, key_version, tokens, businesses, country, city)
    select :tenant, n.customer_id, n.key_version, cast(n.tokens as integer[]), array[cast(:business as uuid)],
           nullif(n.country, ''), cast(nullif(n.city, '') as integer)
    from unnest(:found_ids, :found_versions, :found_tokens, :found_countries, :found_cities)
        as n (customer_id, key_version, tokens, country, city)
    where n.customer_id <> all (:without)
""")
)
_NOTED = Query(
    text("""
    insert into customer_changes (tenant_id, business_id, customer_id, changed_at, change_id, kind, fields, actor)
    select :tenant, :business, n.customer_id, :now, n.change_id, :created, '{}', :actor
    from unnest(:ids, :changes) as n (customer_id, change_id)
    where n.customer_id <> all (:without)
""")
)
_HOLDERS = Query(
    text("""
    select n.bidx, i.customer_id
    from unnest(:kinds, :digests) as n (kind, bidx)
    cross join lateral (
        select i.customer_id from customer_identifiers i
        where i.tenant_id = :tenant and i.kind = n.kind and i.key_version = :version and i.bidx = n.bidx
        limit 1
    ) i
""")
)
_AT = """
    select c.customer_id, c.version, c.deleted_at is not null or c.merged_into is not null as gone,
           exists (
               select from memberships m
               where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = c.customer_id
                 and m.deleted_at is null
               limit 1
           ) as is_member
    from unnest(:ids) as wanted (id)
    cross join lateral (
        select c.customer_id, c.version, c.deleted_at, c.merged_into from customers c
        where c.tenant_id = :tenant and c.customer_id = wanted.id limit 1 {lock}
    ) c
"""
_LOOK = Query(text(_AT.format(lock="")))
_LOCK = Query(text(_AT.format(lock="for update")))  # the ids come sorted, and rows are locked in their order


class IdentifiersTaken(Exception):
    """Some who were taken for new are known."""


@dataclass(slots=True)
class Result:
    """What became of the customer of a row. `before` is what they were, sealed; `taken` is why they are refused."""

    row: int
    outcome: Outcome
    customer_id: UUID | None = None
    version: int = 0
    before: bytes | None = None
    taken: str = ""


@dataclass(frozen=True, slots=True)
class House:
    """What the rows of an import have in common."""

    import_id: UUID
    business: Row[Any]
    policy: int
    match_by: int
    source: str
    now: datetime


async def holders(tx: Tx, live: LiveVersions, people: Sequence[Person]) -> list[dict[str, UUID]]:
    """Who has the identifiers of each of these people, by kind."""
    return await holders_of(tx, live, [each.current for each in people])


async def holders_of(
    tx: Tx, live: LiveVersions, prints: Sequence[Mapping[str, Sequence[bytes]]]
) -> list[dict[str, UUID]]:
    """Who has the identifiers with these fingerprints, by kind, for each row of them."""
    wanted = [(kind, digest) for each in prints for kind, some in each.items() for digest in some]
    if not wanted:
        return [{} for _ in prints]
    (rows,) = await tx.together(
        (
            _HOLDERS,
            {
                "tenant": tx.tenant_id,
                "version": live.current[Kind.IDENTIFIER],
                "kinds": arrays.texts([kind for kind, _ in wanted]),
                "digests": arrays.octets([digest for _, digest in wanted]),
            },
        )
    )
    known = {bytes(row.bidx): row.customer_id for row in rows}
    return [
        {kind: known[digest] for kind, some in each.items() for digest in some if digest in known}
        for each in prints
    ]


async def create(
    tx: Tx, house: House, live: LiveVersions, new: Newcomers, *, surely: bool = False
) -> set[UUID]:
    """Creates people; gives those who were not, since somebody else had one of their identifiers first.

    Emits CustomerCreated. Raises IdentifiersTaken instead if they are `surely` new.
    """
    if not new.ids:
        return set()
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "business": house.business.business_id,
        "now": house.now,
        "epoch": live.epoch,
    }
    claim = _CLAIM_ALL if surely else _CLAIM
    try:
        *_, counted = await tx.together(
            (_PERSONS, where | new.person), (_KEYS, where | new.person), (claim, where | new.claims)
        )
    except UniqueViolation as fault:
        if not surely:
            raise
        raise IdentifiersTaken from fault
    losers: set[UUID] = set()
    if not surely and counted[0].claimed != new.claim_count:
        (rows,) = await tx.together((_LOSERS, where | new.claims))
        losers = {row.customer_id for row in rows}
        await tx.together(*((each, where | {"losers": arrays.uuids(list(losers))}) for each in _TAKE_BACK))
    where |= {"without": arrays.uuids(list(losers)), "created": timeline.CREATED, "actor": timeline.actor(tx)}
    steps: list[Any] = [(each, where | new.standing) for each in (_MEMBERS, _NOTED)]
    steps.append((_FOUND_AT if new.homes.ids else _FOUND_BY, where | new.standing))
    if new.homes.ids:
        steps.append(new.homes.step(where))
    steps.append(
        posting_alike(
            tx,
            new.told,
            new.ids,
            new.bodies,
            business_id=house.business.business_id,
            without=list(losers),
        )
    )
    await tx.together(*steps)
    return losers


async def write(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    house: House,
    live: LiveVersions,
    new: Newcomers | None,
    others: Sequence[Person],
    *,
    surely: bool = False,
) -> list[Result]:
    """Writes the people of a chunk: those of `new` who are still new, the others by the policy.

    Emits CustomerCreated, CustomerUpdated, MembershipJoined. Raises Conflict, EmailTaken, PhoneTaken or
    ExternalIdTaken where other transactions came in between: then the same call succeeds later. Raises
    IdentifiersTaken if those of `new` were `surely` so, and are not.
    """
    results: list[Result] = []
    pending = list(others)
    for _ in range(ROUNDS):
        if new is not None:
            losers = await create(tx, house, live, new, surely=surely)
            surely = False
            for customer_id, person in zip(new.ids, new.people, strict=True):
                if customer_id in losers:
                    pending.append(person)
                else:
                    results.append(Result(person.row, Outcome.CREATED, customer_id, 1))
            pending += new.unreachable
        if not pending:
            return results
        pending.sort(key=lambda each: each.row)
        known: list[tuple[Person, UUID]] = []
        fresh: list[Person] = []
        later: list[Person] = []
        named: set[bytes] = set()
        for person, held in zip(pending, await holders(tx, live, pending), strict=True):
            mine = {digest for some in person.current.values() for digest in some}
            if mine & named:
                later.append(person)  # of somebody who is only now being written
                continue
            named |= mine
            match rules.judged(house.policy, house.match_by, person.kinds, held):
                case Known(customer_id):
                    known.append((person, customer_id))
                case Taken(kind):
                    results.append(Result(person.row, Outcome.REFUSED, taken=kind))
                case None if person.unreachable:
                    results.append(Result(person.row, Outcome.REFUSED, taken=rules.NO_CONTACT))
                case None:
                    fresh.append(person)
        done, again = await _settle(tx, keys, reading, house, live, known)
        results += done
        pending = later + again
        new = newcomers(keys, live, house.business, fresh, house.source, house.now) if fresh else None
    raise Conflict


async def _settle(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    house: House,
    live: LiveVersions,
    known: Sequence[tuple[Person, UUID]],
) -> tuple[list[Result], list[Person]]:
    """What becomes of people who are customers already; and those whose customer is gone meanwhile."""
    if not known:
        return [], []
    where = {"tenant": tx.tenant_id, "business": house.business.business_id}
    ids = sorted({customer_id for _, customer_id in known})
    if house.policy == rules.SKIP:
        (rows,) = await tx.together((_LOOK, where | {"ids": arrays.uuids(ids)}))
        if len(rows) == len(ids) and all(row.is_member and not row.gone for row in rows):
            return [Result(person.row, Outcome.SKIPPED, each) for person, each in known], []
    (rows,) = await tx.together((_LOCK, where | {"ids": arrays.uuids(ids)}))
    at = {row.customer_id: row for row in rows}
    results: list[Result] = []
    again = [person for person, each in known if each not in at or at[each].gone]
    strangers = {each for each, row in at.items() if not row.is_member and not row.gone}
    for customer_id in sorted(strangers):
        await join_business(tx, customer_id, house.business, house.source)
    members = [each for each, row in at.items() if not row.gone]
    views: dict[UUID, View] = {}
    if house.policy != rules.SKIP or strangers:
        wanted = sorted(strangers) if house.policy == rules.SKIP else members
        for some in _by(wanted, 1000):
            views |= await queries.many(tx, keys, reading, some, house.business.business_id)
    homes: dict[UUID, AddressView] = {}
    if house.policy != rules.SKIP:
        placed = {each for person, each in known if person.place is not None and each in views}
        homes = await addresses.defaults(tx, keys, reading, placed)
    for person, customer_id in known:
        if customer_id not in at or at[customer_id].gone:
            continue
        joins = customer_id in strangers
        strangers.discard(customer_id)
        view = views.get(customer_id)
        if view is None:
            results.append(Result(person.row, Outcome.SKIPPED, customer_id, at[customer_id].version))
            continue
        after = _after(house, view, person.written, joins=joins)
        changed = profiles.changed_fields(view, after)
        home = homes.get(customer_id)
        place = None
        if person.place is not None and house.policy != rules.SKIP:
            place = places.merged(home.place if home else None, person.place)
        if not changed and not joins and place is None:
            results.append(Result(person.row, Outcome.SKIPPED, customer_id, view.version))
            continue
        moved = {} if place is None else {"address": addresses.snapshot(home)}
        before = _snapshot(keys, house, person.row, view, moved, joined=joins)
        now = await profiles.update_customer(tx, keys, view, after)
        if place is not None:
            now = await addresses.settle(tx, keys, live, now, home, place)
            homes |= await addresses.defaults(tx, keys, reading, [customer_id])
        views[customer_id] = now
        outcome = Outcome.JOINED if joins else Outcome.UPDATED
        results.append(Result(person.row, outcome, customer_id, now.version, before))
    return results, again


def _after(house: House, view: View, told: Written, *, joins: bool) -> Written:
    """What a customer becomes. Under SKIP a newly joined one gets the standing alone: the person stays."""
    after = onto(as_written(view), told)
    if joins and house.policy == rules.SKIP:
        after = replace(
            after,
            profile=view.profile,
            email_verified=view.email_verified,
            phone_verified=view.phone_verified,
        )
    return after


def _snapshot(
    keys: TenantKeys, house: House, row: int, view: View, more: Mapping[str, object], *, joined: bool
) -> bytes:
    """The customer as it is and `more` of them, sealed under the person's own key."""
    standing = view.standing
    known: Mapping[str, object] = {
        "joined": joined,
        "profile": view.profile.known(),
        "email_verified": view.email_verified,
        "phone_verified": view.phone_verified,
        "status": standing.status,
        "type": standing.type,
        "tags": standing.tags,
        "attributes": standing.attributes,
        "personal": standing.personal,
        "sources": [(each.name, each.external_id, each.synced_at) for each in standing.sources],
        **more,
    }
    assert view.key is not None
    return keys.seal(view.key, BEFORE, snapshot_id(house.import_id, row), orjson.dumps(known))


def snapshot_id(import_id: UUID, row: int) -> UUID:
    """The id that the snapshots of a row are bound to."""
    return UUID(int=import_id.int ^ row)


def _by(ids: Collection[UUID], size: int) -> Iterable[list[UUID]]:
    every = list(ids)
    return (every[i : i + size] for i in range(0, len(every), size))
