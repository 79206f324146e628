"""Customers on their way in: fingerprinted and sealed beside the event loop, a chunk at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row

from libs import arrays
from libs.crypto import Kind, LiveVersions, TenantKeys
from libs.ids import new_id
from libs.instants import stamp
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2 as events
from services.customers.addresses.rules import Place
from services.customers.imports.addresses import Homes
from services.customers.imports.rows import Parsed
from services.customers.profiles import rules as profiles
from services.customers.profiles.actions import sealed_profile, sealed_standing
from services.customers.profiles.wire import Written
from services.customers.search import actions as search

GUEST = int(pb.CUSTOMER_TYPE_GUEST)
Claim = tuple[str, int, bytes]
"""(kind, version of the key, fingerprint)."""


@dataclass(slots=True)
class Person:
    """The customer of a row. `claims` are their identifiers under every live key, the look-up's version first.

    `place` is their default address. One who is `unreachable` must be known already: nothing but an id tells of them.
    """

    row: int
    written: Written
    kinds: tuple[str, ...]
    claims: list[Claim]
    current: dict[str, list[bytes]]
    place: Place | None = None
    unreachable: bool = False


def persons(
    keys: TenantKeys, live: LiveVersions, business_id: UUID, parsed: Iterable[Parsed]
) -> list[Person]:
    """The customers of rows, fingerprinted."""
    found = []
    current = live.current[Kind.IDENTIFIER]
    for each in parsed:
        written = each.customer
        if written is None:
            continue
        unreachable = False
        if not (written.profile.email or written.profile.phone):  # known by an id alone: as orders make them
            unreachable = each.order is None and written.standing.type != GUEST
            written = replace(written, standing=replace(written.standing, type=GUEST))
        wanted = sorted(profiles.identifiers(written.profile, {business_id: written.standing}))
        claims: list[Claim] = []
        looked: dict[str, list[bytes]] = {}
        for kind, value in wanted:
            for index in keys.blind_indexes(live, kind, value):
                claims.append((kind, index.key_version, index.digest))
                if index.key_version == current:
                    looked.setdefault(kind, []).append(index.digest)
        found.append(Person(each.row, written, tuple(looked), claims, looked, each.place, unreachable))
    return found


@dataclass(slots=True)
class Newcomers:
    """People to be created, sealed and packed: the parameters of the statements that write them.

    `unreachable` ones are not among them: they may be known by the time that the others are written.
    """

    ids: list[UUID]
    people: list[Person]
    person: dict[str, Any]
    claims: dict[str, Any]
    claim_count: int
    standing: dict[str, Any]
    told: events.CustomerCreated
    bodies: list[bytes]
    rows: dict[str, Any]
    homes: Homes
    unreachable: list[Person]


@dataclass(slots=True)
class _Columns:
    ids: list[UUID] = field(default_factory=list)
    keys: list[UUID] = field(default_factory=list)
    wrapped: list[bytes] = field(default_factory=list)
    profiles: list[bytes] = field(default_factory=list)
    email_verified: list[bool] = field(default_factory=list)
    phone_verified: list[bool] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    sealed: list[bytes | None] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    changes: list[UUID] = field(default_factory=list)
    found_ids: list[UUID] = field(default_factory=list)
    found_versions: list[int] = field(default_factory=list)
    found_tokens: list[str] = field(default_factory=list)
    found_countries: list[str] = field(default_factory=list)
    found_cities: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    homes: Homes = field(default_factory=Homes)


def newcomers(
    keys: TenantKeys,
    live: LiveVersions,
    business: Row[Any],
    people: Sequence[Person],
    source: str,
    now: datetime,
) -> Newcomers:
    """People sealed under keys of their own, with all that is written of them. `now` is when they join."""
    here: UUID = business.business_id
    versions = live.written[Kind.SEARCH]
    col = _Columns()
    claims: list[tuple[str, int, bytes, UUID]] = []
    told: dict[tuple[int, int, str], bytes] = {}
    unreachable = [each for each in people if each.unreachable]
    if unreachable:
        people = [each for each in people if not each.unreachable]
    for each in people:
        profile, standing = each.written.profile, each.written.standing
        customer_id = new_id()
        row, key = keys.new_subject_key(live, customer_id, now)
        name = standing.sources[0].name if standing.sources else source
        col.ids.append(customer_id)
        col.keys.append(row.key_id)
        col.wrapped.append(row.wrapped)
        col.profiles.append(sealed_profile(keys, key, customer_id, profile))
        col.email_verified.append(each.written.email_verified)
        col.phone_verified.append(each.written.phone_verified)
        col.statuses.append(standing.status)
        col.types.append(standing.type)
        col.tags.append(_literal(standing.tags) if standing.tags else "{}")
        col.attributes.append(orjson.dumps(standing.attributes).decode() if standing.attributes else "{}")
        col.sealed.append(sealed_standing(keys, key, here, customer_id, standing))
        col.sources.append(name)
        col.changes.append(new_id())
        if each.place is not None:
            col.homes.add(keys, key, customer_id, each.place)
        for found in search.rows_of(keys, versions, profile, {here: standing.sources}, each.place):
            col.found_ids.append(customer_id)
            col.found_versions.append(found["version"])
            col.found_tokens.append("{" + ",".join(map(str, found["tokens"])) + "}")
            col.found_countries.append(found["country"] or "")
            col.found_cities.append("" if found["city"] is None else str(found["city"]))
        claims += [(*claim, customer_id) for claim in each.claims]
        kind = standing.status, standing.type, name
        rest = told.get(kind)
        if rest is None:
            rest = told[kind] = _created(here, *kind, now).SerializeToString()
        col.bodies.append(
            b"\x0a\x24" + str(customer_id).encode() + rest
        )  # field 1, 36 bytes; the others follow
    claims.sort()  # in one order for everyone
    return _packed(col, claims, list(people), unreachable, _created(here, 0, 0, source, now))


def _created(here: UUID, status: int, kind: int, source: str, now: datetime) -> events.CustomerCreated:
    """The event without whom it is about."""
    return events.CustomerCreated(
        business_id=str(here),
        status=status,  # type: ignore[arg-type]  # the number of the enum
        type=kind,  # type: ignore[arg-type]
        source=source,
        joined_at=stamp(now),
    )


def _packed(
    col: _Columns,
    claims: Sequence[tuple[str, int, bytes, UUID]],
    people: list[Person],
    unreachable: list[Person],
    told: events.CustomerCreated,
) -> Newcomers:
    ids = arrays.uuids(col.ids)
    return Newcomers(
        ids=col.ids,
        people=people,
        person={
            "ids": ids,
            "keys": arrays.uuids(col.keys),
            "wrapped": arrays.octets(col.wrapped),
            "profiles": arrays.octets(col.profiles),
            "email_verified": arrays.bools(col.email_verified),
            "phone_verified": arrays.bools(col.phone_verified),
        },
        claims={
            "kinds": arrays.texts([each[0] for each in claims]),
            "versions": arrays.ints([each[1] for each in claims]),
            "digests": arrays.octets([each[2] for each in claims]),
            "customers": arrays.uuids([each[3] for each in claims]),
        },
        claim_count=len(claims),
        standing={
            "ids": ids,
            "statuses": arrays.shorts(col.statuses),
            "types": arrays.shorts(col.types),
            "tags": arrays.texts(col.tags),
            "attributes": arrays.texts(col.attributes),
            "sealed": arrays.maybe_octets(col.sealed),
            "sources": arrays.texts(col.sources),
            "changes": arrays.uuids(col.changes),
            "found_ids": arrays.uuids(col.found_ids),
            "found_versions": arrays.ints(col.found_versions),
            "found_tokens": arrays.texts(col.found_tokens),
            "found_countries": arrays.texts(col.found_countries if col.homes.ids else []),
            "found_cities": arrays.texts(col.found_cities if col.homes.ids else []),
        },
        told=told,
        bodies=col.bodies,
        rows={"rows": arrays.longs([each.row for each in people]), "ids": ids},
        homes=col.homes,
        unreachable=unreachable,
    )


def _literal(values: Iterable[str]) -> str:
    """A text[] as PostgreSQL writes one."""
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"
