"""Writes about customers."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Integer, Row, Text, text, update
from sqlalchemy.sql import bindparam

from libs.crypto import DataKey, Kind, LiveVersions, TenantKeys, live_versions
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.outbox import Fact, emit, posting
from libs.pipeline import Query
from libs.problems import EtagMismatch, Faults
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2 as events
from services.customers.problems import (
    CustomerDeleted,
)
from services.customers.profiles import identifiers, queries, rules
from services.customers.profiles.queries import PROFILE, STANDING, View, membership_row_id
from services.customers.profiles.rules import Profile, Standing
from services.customers.profiles.wire import Written
from services.customers.search import actions as search_rows
from services.customers.tables import customers, memberships
from services.customers.timeline import actions as timeline

# One statement, one round trip: the person, their key, what finds them, and their first membership.
_CREATE = Query(
    text("""
    with person as (
        insert into customers (tenant_id, customer_id, key_id, version, profile, email_verified, phone_verified,
                               created_at, updated_at)
        values (:tenant, :customer, :key, 1, :profile, :email_verified, :phone_verified, :now, :now)
    ), data_key as (
        insert into subject_keys (tenant_id, key_id, subject_id, epoch, wrapped, created_at)
        values (:tenant, :key, :customer, :epoch, :wrapped, :now)
    ), found_by as (
        insert into customer_search (tenant_id, customer_id, key_version, tokens, businesses)
        select :tenant, :customer, v.version, cast(v.tokens as integer[]), array[cast(:business as uuid)]
        from unnest(:search_versions, :search_tokens) as v (version, tokens)
    ), noted as (
        insert into customer_changes (tenant_id, business_id, customer_id, changed_at, change_id, kind, fields, actor)
        values (:tenant, :business, :customer, :now, :change, :created, '{}', :actor)
    )
    insert into memberships (tenant_id, business_id, customer_id, status, type, tags, attributes, sealed, source,
                             joined_at)
    values (:tenant, :business, :customer, :status, :type, :tags, cast(:attributes as jsonb), :sealed, :source, :now)
""").bindparams(
        bindparam("tags", type_=ARRAY(Text)),
        bindparam("search_versions", type_=ARRAY(Integer)),
        bindparam("search_tokens", type_=ARRAY(Text)),
    )
)


async def create_customer(
    tx: Tx, keys: TenantKeys, business: Row[Any], customer_id: UUID, written: Written
) -> View:
    """Creates a customer as a member of `business`. Emits CustomerCreated.

    Raises InvalidArgument for neither e-mail nor phone, EmailTaken, PhoneTaken, ExternalIdTaken.
    """
    (view,) = await create_customers(tx, keys, business, {customer_id: written})
    return view


async def create_customers(
    tx: Tx, keys: TenantKeys, business: Row[Any], new: Mapping[UUID, Written]
) -> list[View]:
    """Creates customers by their new ids as `create_customer` does one, all or none, in one round trip."""
    if not new:
        return []
    live = await live_versions(tx)
    views = [_new_view(tx, keys, live, business, *each) for each in new.items()]
    claims = identifiers.claims_of(
        keys,
        live,
        {
            view.customer_id: rules.identifiers(view.profile, {business.business_id: view.standing})
            for view, _ in views
        },
    )
    facts = [
        Fact(
            _created(view, row["source"], new[view.customer_id]),
            view.customer_id,
            1,
            view.business_id,
        )
        for view, row in views
    ]
    _, post = posting(tx, facts)
    *_, got, _ = await tx.together(
        *((_CREATE, row) for _, row in views), identifiers.claiming(tx, claims), post
    )
    await identifiers.check(tx, claims, got)
    return [view for view, _ in views]


def _new_view(
    tx: Tx, keys: TenantKeys, live: LiveVersions, business: Row[Any], customer_id: UUID, written: Written
) -> tuple[View, dict[str, Any]]:
    """A new customer, and the parameters of `_CREATE`. Raises InvalidArgument."""
    profile, standing = written.profile, written.standing
    _need_contact(profile, standing)
    key_row, key = keys.new_subject_key(live, customer_id, tx.now)
    search = search_rows.rows_of(
        keys, live.written[Kind.SEARCH], profile, {business.business_id: standing.sources}
    )
    row = {
        "tenant": tx.tenant_id,
        "customer": customer_id,
        "business": business.business_id,
        "key": key_row.key_id,
        "epoch": key_row.epoch,
        "wrapped": key_row.wrapped,
        "profile": sealed_profile(keys, key, customer_id, profile),
        "email_verified": written.email_verified,
        "phone_verified": written.phone_verified,
        "status": standing.status,
        "type": standing.type,
        "tags": list(standing.tags),
        "attributes": orjson.dumps(standing.attributes).decode(),
        "sealed": sealed_standing(keys, key, business.business_id, customer_id, standing),
        "source": standing.sources[0].name if standing.sources else "manual",
        "search_versions": [each["version"] for each in search],
        "search_tokens": ["{" + ",".join(map(str, each["tokens"])) + "}" for each in search],
        "change": new_id(),
        "created": timeline.CREATED,
        "actor": timeline.actor(tx),
        "now": tx.now,
    }
    view = View(
        customer_id=customer_id,
        business_id=business.business_id,
        business_ids=frozenset({business.business_id}),
        version=1,
        profile=profile,
        standing=standing,
        email_verified=written.email_verified,
        phone_verified=written.phone_verified,
        created_at=tx.now,
        updated_at=tx.now,
        joined_at=tx.now,
        key=key,
    )
    return view, row


def _created(view: View, source: str, written: Written) -> events.CustomerCreated:
    return events.CustomerCreated(
        customer_id=str(view.customer_id),
        business_id=str(view.business_id),
        status=view.standing.status,  # type: ignore[arg-type]  # the number of the enum
        type=view.standing.type,  # type: ignore[arg-type]
        source=source,
        joined_at=stamp(view.joined_at),
        referral_code=written.referral_code,
        initial_tier=written.initial_tier,
    )


async def update_customer(tx: Tx, keys: TenantKeys, before: View, written: Written, etag: str = "") -> View:
    """Writes a customer that `queries.one` locked. Emits CustomerUpdated, unless nothing changed.

    Raises EtagMismatch, CustomerDeleted, InvalidArgument, EmailTaken, PhoneTaken, ExternalIdTaken.
    """
    _unchanged_since(before, etag)
    if before.deleted_at:
        raise CustomerDeleted
    profile, standing = written.profile, written.standing
    _need_contact(profile, standing)
    changed = changed_fields(before, written)
    if not changed:
        return before
    assert before.key is not None
    await _write_what_finds(tx, keys, before, profile, standing)
    values: dict[str, Any] = {
        "email_verified": written.email_verified,
        "phone_verified": written.phone_verified,
    }
    if profile != before.profile:
        values["profile"] = sealed_profile(keys, before.key, before.customer_id, profile)
    if standing != before.standing:
        await _write_standing(tx, keys, before.key, before, standing)
    return await touch(
        tx,
        replace(
            before,
            profile=profile,
            standing=standing,
            email_verified=written.email_verified,
            phone_verified=written.phone_verified,
        ),
        changed,
        **values,
    )


async def touch(tx: Tx, view: View, changed: Iterable[str], **values: object) -> View:
    """Gives the customer its next version, and says which fields changed. Emits CustomerUpdated."""
    version, changed = view.version + 1, sorted(changed)
    mine = customers.c
    await tx.execute(
        update(customers)
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == view.customer_id)
        .values(version=version, updated_at=tx.now, **values)
    )
    await timeline.note_change(tx, [view.customer_id], [view.business_id], timeline.UPDATED, changed)
    event = events.CustomerUpdated(
        customer_id=str(view.customer_id),
        business_id=str(view.business_id),
        changed_fields=changed,
        status=view.standing.status,  # type: ignore[arg-type]
        type=view.standing.type,  # type: ignore[arg-type]
    )
    await emit(tx, event, aggregate_id=view.customer_id, version=version, business_id=view.business_id)
    return replace(view, version=version, updated_at=tx.now)


def _unchanged_since(view: View, etag: str) -> None:
    if etag and etag != str(view.version):
        raise EtagMismatch


def _need_contact(profile: Profile, standing: Standing) -> None:
    if not (profile.email or profile.phone or standing.type == pb.CUSTOMER_TYPE_GUEST):
        faults = Faults()
        for name in ("email", "phone"):
            faults.add(f"customer.{name}", "an e-mail or a phone is required, except for guests", "REQUIRED")
        faults.refuse()


def changed_fields(before: View, written: Written) -> list[str]:
    """Names of the customer's fields that differ after the change."""
    changed = [
        name for name in Profile.__slots__ if getattr(before.profile, name) != getattr(written.profile, name)
    ]
    old, new = before.standing, written.standing
    changed += [
        name for name in ("status", "type", "tags", "sources") if getattr(old, name) != getattr(new, name)
    ]
    if (old.attributes, old.personal) != (new.attributes, new.personal):
        changed.append("attributes")
    for flag in ("email_verified", "phone_verified"):
        if getattr(before, flag) != getattr(written, flag):
            changed.append(flag)
    return changed


def sealed_profile(keys: TenantKeys, key: DataKey, customer_id: UUID, profile: Profile) -> bytes:
    """The profile as `customers` keeps it."""
    return keys.seal(key, PROFILE, customer_id, orjson.dumps(profile.known()))


def sealed_standing(
    keys: TenantKeys, key: DataKey, business_id: UUID, customer_id: UUID, standing: Standing
) -> bytes | None:
    """The sealed part of a standing as `memberships` keeps it; None if there is none."""
    if not (standing.personal or standing.sources):
        return None
    sources = [(source.name, source.external_id, source.synced_at) for source in standing.sources]
    sealed = orjson.dumps({"attributes": standing.personal, "sources": sources})
    return keys.seal(key, STANDING, membership_row_id(business_id, customer_id), sealed)


async def _write_standing(tx: Tx, keys: TenantKeys, key: DataKey, view: View, standing: Standing) -> None:
    await tx.execute(
        update(memberships)
        .where(*queries.membership_at(tx, view.business_id, view.customer_id))
        .values(
            status=standing.status,
            type=standing.type,
            tags=list(standing.tags),
            attributes=dict(standing.attributes),
            sealed=sealed_standing(keys, key, view.business_id, view.customer_id, standing),
        )
    )


async def _write_what_finds(
    tx: Tx, keys: TenantKeys, before: View, profile: Profile, standing: Standing
) -> None:
    old = rules.identifiers(before.profile, {before.business_id: before.standing})
    new = rules.identifiers(profile, {before.business_id: standing})
    found_by = (before.profile, before.standing.sources), (profile, standing.sources)
    if old == new and not search_rows.differ(*found_by):
        return
    live = await live_versions(tx)
    await identifiers.release(tx, keys, live, before.customer_id, old - new)
    await identifiers.claim(tx, keys, live, before.customer_id, new - old)
    await search_rows.change(tx, keys, live, before.customer_id, before.business_id, *found_by)
