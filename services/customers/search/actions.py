"""Writes that keep the search rows in step with the customers. The customer's row is locked by whoever calls."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, bindparam, delete, func, text, update
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from libs.crypto import Kind, LiveVersions, TenantKeys
from libs.db import Tx
from services.customers.addresses.rules import Place
from services.customers.profiles.rules import Profile, Source
from services.customers.search import rules, tokens
from services.customers.search.tables import customer_search

_mine = customer_search.c
_ADD = text("""
    insert into customer_search (tenant_id, customer_id, key_version, tokens, businesses, country, city)
    values (:tenant, :customer, :version, :tokens, :businesses, :country, :city)
    on conflict (tenant_id, customer_id, key_version) do update
        set tokens = excluded.tokens, businesses = excluded.businesses, country = excluded.country,
            city = excluded.city
""").bindparams(
    bindparam("tokens", type_=ARRAY(Integer)), bindparam("businesses", type_=ARRAY(PgUUID(as_uuid=True)))
)
_CHANGE = text("""
    update customer_search
    set tokens = array(
        select unnest(tokens) except select unnest(cast(:gone as integer[]))
        union select unnest(cast(:new as integer[]))
    )
    where tenant_id = :tenant and customer_id = :customer and key_version = :version
""").bindparams(bindparam("gone", type_=ARRAY(Integer)), bindparam("new", type_=ARRAY(Integer)))


def rows_of(
    keys: TenantKeys,
    versions: Iterable[int],
    profile: Profile,
    sources: Mapping[UUID, Iterable[Source]],
    place: Place | None = None,
) -> list[dict[str, Any]]:
    """A customer's search rows, one for each version. `sources` by business; `place` is the default address."""
    rows = []
    for version in versions:
        made = tokens.with_version(keys, version)
        found = tokens.of_person(made, profile)
        for business_id, known in sources.items():
            found |= tokens.of_sources(made, business_id, known)
        rows.append(
            {
                "version": version,
                "tokens": sorted(found),
                "businesses": sorted(sources),
                "country": (place.country or None) if place else None,
                "city": tokens.of_city(made, place.city) if place else None,
            }
        )
    return rows


async def add(tx: Tx, customer_id: UUID, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes what `rows_of` gave, over what is there."""
    for row in rows:
        await tx.execute(_ADD, {"tenant": tx.tenant_id, "customer": customer_id, **row})


FoundBy = tuple[Profile, tuple[Source, ...]]
"""What finds a customer: who they are, and what one business knows them by."""


def differ(before: FoundBy, after: FoundBy) -> bool:
    """True if the tokens may differ."""
    return before[1] != after[1] or any(
        getattr(before[0], name) != getattr(after[0], name) for name in rules.SEARCHED
    )


async def change(
    tx: Tx,
    keys: TenantKeys,
    live: LiveVersions,
    customer_id: UUID,
    business_id: UUID,
    before: FoundBy,
    after: FoundBy,
) -> None:
    """Replaces the tokens of a person, and of what one business knows them by. Other businesses' tokens stay."""
    for version in live.written[Kind.SEARCH]:
        made = tokens.with_version(keys, version)
        # Each on its own: a token of the person is never one of a source.
        gone, new = set[int](), set[int]()
        if before[0] != after[0]:
            old, now = tokens.of_person(made, before[0]), tokens.of_person(made, after[0])
            gone, new = gone | (old - now), new | (now - old)
        if before[1] != after[1]:
            old = tokens.of_sources(made, business_id, before[1])
            now = tokens.of_sources(made, business_id, after[1])
            gone, new = gone | (old - now), new | (now - old)
        if gone or new:
            where = {"tenant": tx.tenant_id, "customer": customer_id, "version": version}
            await tx.execute(_CHANGE, {**where, "gone": sorted(gone), "new": sorted(new)})


async def join(tx: Tx, customer_id: UUID, business_id: UUID) -> None:
    """Lets a business find a customer."""
    await tx.execute(
        update(customer_search)
        .where(*_at(tx, customer_id), ~_mine.businesses.contains([business_id]))
        .values(businesses=func.array_append(_mine.businesses, business_id))
    )


async def leave(tx: Tx, customer_id: UUID, business_id: UUID) -> None:
    """Lets a business find a customer no more."""
    await tx.execute(
        update(customer_search)
        .where(*_at(tx, customer_id))
        .values(businesses=func.array_remove(_mine.businesses, business_id))
    )


async def forget(tx: Tx, customer_id: UUID) -> None:
    """Lets nobody find a customer any more; nothing of them is left in the index's table."""
    await tx.execute(delete(customer_search).where(*_at(tx, customer_id)))


async def follow_default(
    tx: Tx, keys: TenantKeys, live: LiveVersions, customer_id: UUID, place: Place | None
) -> None:
    """Notes country and city of the default address, None for none."""
    for version in live.written[Kind.SEARCH]:
        city = tokens.of_city(tokens.with_version(keys, version), place.city) if place else None
        await tx.execute(
            update(customer_search)
            .where(*_at(tx, customer_id), _mine.key_version == version)
            .values(country=(place.country or None) if place else None, city=city)
        )


def _at(tx: Tx, customer_id: UUID) -> tuple[Any, ...]:
    return _mine.tenant_id == tx.tenant_id, _mine.customer_id == customer_id
