"""Writes about customers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Integer, LargeBinary, Row, Text, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql import bindparam

from libs.audit import Reading
from libs.crypto import DataKey, LiveVersions, TenantKeys, live_versions
from libs.db import Tx
from libs.instants import stamp
from libs.outbox import emit
from libs.problems import Conflict, EtagMismatch, Faults, Problem
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2 as events
from services.customers.problems import (
    CustomerDeleted,
    CustomerNotFound,
    EmailTaken,
    ErasureBegun,
    ExternalIdTaken,
    LastMembership,
    PhoneTaken,
)
from services.customers.profiles import queries, rules
from services.customers.profiles.queries import PROFILE, STANDING, View, membership_row_id
from services.customers.profiles.rules import Profile, Standing
from services.customers.profiles.wire import Written
from services.customers.tables import businesses as business_rows
from services.customers.tables import customer_identifiers, customers, memberships

MAX_TAGS = 100
_TAKEN: dict[str, type[Problem]] = {
    "email": EmailTaken,
    "phone": PhoneTaken,
    "external_id": ExternalIdTaken,
}

# One statement, one round trip: the person, their key, and their first membership.
_CREATE = text("""
    with person as (
        insert into customers (tenant_id, customer_id, key_id, version, profile, email_verified, phone_verified,
                               created_at, updated_at)
        values (:tenant, :customer, :key, 1, :profile, :email_verified, :phone_verified, :now, :now)
    ), data_key as (
        insert into subject_keys (tenant_id, key_id, subject_id, epoch, wrapped, created_at)
        values (:tenant, :key, :customer, :epoch, :wrapped, :now)
    )
    insert into memberships (tenant_id, business_id, customer_id, status, type, tags, attributes, sealed, source,
                             joined_at)
    values (:tenant, :business, :customer, :status, :type, :tags, cast(:attributes as jsonb), :sealed, :source, :now)
""").bindparams(bindparam("tags", type_=ARRAY(Text)))

_CLAIM_IDENTIFIERS = text("""
    insert into customer_identifiers (tenant_id, kind, key_version, bidx, customer_id)
    select :tenant, claimed.kind, claimed.key_version, claimed.bidx, :customer
    from unnest(:kinds, :versions, :digests) as claimed (kind, key_version, bidx)
    on conflict do nothing
    returning kind, key_version, bidx
""").bindparams(
    bindparam("kinds", type_=ARRAY(Text)),
    bindparam("versions", type_=ARRAY(Integer)),
    bindparam("digests", type_=ARRAY(LargeBinary)),
)


async def create_customer(
    tx: Tx, keys: TenantKeys, business: Row[Any], customer_id: UUID, written: Written
) -> View:
    """Creates a customer as a member of `business`. Emits CustomerCreated.

    Raises InvalidArgument for neither e-mail nor phone, EmailTaken, PhoneTaken, ExternalIdTaken.
    """
    profile, standing = written.profile, written.standing
    _need_contact(profile, standing)
    live = await live_versions(tx)
    key_row, key = keys.new_subject_key(live, customer_id, tx.now)
    source = standing.sources[0].name if standing.sources else "manual"
    await tx.execute(
        _CREATE,
        {
            "tenant": tx.tenant_id,
            "customer": customer_id,
            "business": business.business_id,
            "key": key_row.key_id,
            "epoch": key_row.epoch,
            "wrapped": key_row.wrapped,
            "profile": _seal_profile(keys, key, customer_id, profile),
            "email_verified": written.email_verified,
            "phone_verified": written.phone_verified,
            "status": standing.status,
            "type": standing.type,
            "tags": list(standing.tags),
            "attributes": orjson.dumps(standing.attributes).decode(),
            "sealed": _seal_standing(keys, key, business.business_id, customer_id, standing),
            "source": source,
            "now": tx.now,
        },
    )
    wanted = rules.identifiers(profile, {business.business_id: standing})
    await _claim(tx, keys, live, customer_id, wanted)
    event = events.CustomerCreated(
        customer_id=str(customer_id),
        business_id=str(business.business_id),
        status=standing.status,  # type: ignore[arg-type]  # the number of the enum
        type=standing.type,  # type: ignore[arg-type]
        source=source,
        joined_at=stamp(tx.now),
    )
    await emit(tx, event, aggregate_id=customer_id, version=1, business_id=business.business_id)
    return View(
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


async def update_customer(tx: Tx, keys: TenantKeys, before: View, written: Written, etag: str = "") -> View:
    """Writes a customer that `queries.one` locked. Emits CustomerUpdated, unless nothing changed.

    Raises EtagMismatch, CustomerDeleted, InvalidArgument, EmailTaken, PhoneTaken, ExternalIdTaken.
    """
    _unchanged_since(before, etag)
    if before.deleted_at:
        raise CustomerDeleted
    profile, standing = written.profile, written.standing
    _need_contact(profile, standing)
    changed = _changed_fields(before, written)
    if not changed:
        return before
    assert before.key is not None
    await _write_identifiers(tx, keys, before, profile, standing)
    values: dict[str, Any] = {
        "email_verified": written.email_verified,
        "phone_verified": written.phone_verified,
    }
    if profile != before.profile:
        values["profile"] = _seal_profile(keys, before.key, before.customer_id, profile)
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
    version = view.version + 1
    mine = customers.c
    await tx.execute(
        update(customers)
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == view.customer_id)
        .values(version=version, updated_at=tx.now, **values)
    )
    event = events.CustomerUpdated(
        customer_id=str(view.customer_id),
        business_id=str(view.business_id),
        changed_fields=sorted(changed),
        status=view.standing.status,  # type: ignore[arg-type]
        type=view.standing.type,  # type: ignore[arg-type]
    )
    await emit(tx, event, aggregate_id=view.customer_id, version=version, business_id=view.business_id)
    return replace(view, version=version, updated_at=tx.now)


async def add_tags(tx: Tx, before: View, tags: Iterable[str]) -> View:
    """Adds tags to a locked customer. Emits CustomerUpdated if one is new. Raises InvalidArgument beyond 100."""
    after = rules.with_tags(before.standing.tags, tags)
    faults = Faults()
    if len(after) > MAX_TAGS:
        faults.add("tags", f"a customer has at most {MAX_TAGS} tags", "TOO_MANY")
    if "" in after:
        faults.add("tags", "must not be blank")
    faults.refuse()
    return await _retag(tx, before, after)


async def remove_tag(tx: Tx, before: View, tag: str) -> View:
    """Removes a tag from a locked customer. Emits CustomerUpdated if it was there."""
    return await _retag(tx, before, rules.without_tag(before.standing.tags, tag))


async def _retag(tx: Tx, before: View, tags: tuple[str, ...]) -> View:
    if tags == before.standing.tags:
        return before
    standing = replace(before.standing, tags=tags)
    await tx.execute(update(memberships).where(*_membership(tx, before)).values(tags=list(tags)))
    return await touch(tx, replace(before, standing=standing), ["tags"])


_RENAME = text("""
    with renamed as (
        select m.customer_id, array(
            select distinct on (lower(renamed.tag)) renamed.tag
            from (select case when lower(t) = lower(:tag) then :new_tag else t end as tag, i
                  from unnest(m.tags) with ordinality as had (t, i)) as renamed
            order by lower(renamed.tag), renamed.i
        ) as tags
        from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and m.deleted_at is null
          and exists (select from unnest(m.tags) as t where lower(t) = lower(:tag))
        order by m.customer_id
        limit :most
    ), people as (
        update customers c set version = version + 1, updated_at = :now
        from renamed where c.tenant_id = :tenant and c.customer_id = renamed.customer_id
        returning c.customer_id, c.version
    )
    update memberships m set tags = renamed.tags
    from renamed join people using (customer_id)
    where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = renamed.customer_id
    returning m.customer_id, people.version, m.status, m.type
""")


async def rename_tag(tx: Tx, business_id: UUID, tag: str, new_tag: str, most: int) -> int:
    """Renames a tag on up to `most` customers of a business; gives how many it was. Emits CustomerUpdated for each.

    Call it until it gives fewer than `most`, unless the names are the same without regard to case.
    """
    where = {"tenant": tx.tenant_id, "business": business_id, "now": tx.now, "most": most}
    rows = (await tx.execute(_RENAME, {**where, "tag": tag.strip(), "new_tag": new_tag.strip()})).all()
    for row in rows:
        event = events.CustomerUpdated(
            customer_id=str(row.customer_id),
            business_id=str(business_id),
            changed_fields=["tags"],
            status=row.status,
            type=row.type,
        )
        await emit(tx, event, aggregate_id=row.customer_id, version=row.version, business_id=business_id)
    return len(rows)


async def delete_customer(
    tx: Tx, customer_id: UUID, business_id: UUID | None, mode: pb.DeletionMode.ValueType, etag: str
) -> None:
    """Deletes a customer at the caller's businesses, or at the one named. Emits CustomerDeleted.

    With the last live membership the person is deleted and their identifiers are free. Deleting a deleted customer
    changes nothing. Raises CustomerNotFound, EtagMismatch.
    """
    person = await _locked(tx, customer_id)
    await tx.across_businesses()
    all_of_them = await _memberships(tx, customer_id)
    chosen = [
        m for m in all_of_them if tx.caller.sees(m.business_id) and business_id in {None, m.business_id}
    ]
    if not chosen:
        raise CustomerNotFound
    if etag and etag != str(person.version):
        raise EtagMismatch
    gone = [m for m in chosen if not m.deleted_at]
    if not gone:
        return
    last_due = None
    for membership in gone:
        due = None
        if mode != pb.DELETION_MODE_SOFT:
            due = tx.now + timedelta(days=membership.erasure_cool_off_days)
            last_due = max(last_due or due, due)
        await tx.execute(
            update(memberships)
            .where(*_membership_at(tx, membership.business_id, customer_id))
            .values(deleted_at=tx.now, deletion_mode=int(mode), erase_due_at=due)
        )
    gone_ids = {m.business_id for m in gone}
    everywhere = all(m.deleted_at or m.business_id in gone_ids for m in all_of_them)
    version = person.version + 1
    mine = customers.c
    await tx.execute(
        update(customers)
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
        .values(version=version, updated_at=tx.now, deleted_at=tx.now if everywhere else None)
    )
    if everywhere:
        await tx.execute(_forget_identifiers(tx, customer_id))
    event = events.CustomerDeleted(
        customer_id=str(customer_id),
        business_ids=sorted(map(str, gone_ids)),
        mode=mode,
        erase_due_at=stamp(last_due),
        approved=tx.caller.may("privacy.erase"),
        everywhere=everywhere,
    )
    await emit(tx, event, aggregate_id=customer_id, version=version)


async def restore_customer(tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID) -> None:
    """Brings a customer back at all of the caller's businesses. Emits CustomerRestored, unless it is live.

    Raises CustomerNotFound, ErasureBegun, EmailTaken, PhoneTaken, ExternalIdTaken.
    """
    person = await _locked(tx, customer_id)
    if person.erasing_at:
        raise ErasureBegun
    views = (await queries.everywhere(tx, keys, reading, [customer_id])).get(customer_id, [])
    if not views:
        raise CustomerNotFound
    back = [view.business_id for view in views if view.deleted_at]
    if not back:
        return
    for business_id in back:
        await tx.execute(
            update(memberships)
            .where(*_membership_at(tx, business_id, customer_id))
            .values(deleted_at=None, deletion_mode=None, erase_due_at=None)
        )
    if person.deleted_at:
        await _claim_all(tx, keys, reading, customer_id)
    version = person.version + 1
    mine = customers.c
    await tx.execute(
        update(customers)
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
        .values(version=version, updated_at=tx.now, deleted_at=None)
    )
    event = events.CustomerRestored(customer_id=str(customer_id), business_ids=sorted(map(str, back)))
    await emit(tx, event, aggregate_id=customer_id, version=version)


async def _claim_all(tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID) -> None:
    """Claims every identifier of a customer again, also those of businesses that the caller does not see."""
    await tx.across_businesses()
    views = (await queries.everywhere(tx, keys, reading, [customer_id]))[customer_id]
    wanted = identifiers_of(views)
    await _claim(tx, keys, await live_versions(tx), customer_id, wanted)


def identifiers_of(views: Sequence[View]) -> set[tuple[str, str]]:
    """Everything that finds a customer, as (kind, normalised value), from all of their memberships."""
    return rules.identifiers(views[0].profile, {view.business_id: view.standing for view in views})


async def join_business(
    tx: Tx, customer_id: UUID, business: Row[Any], source: str, standing: Standing | None = None
) -> bool:
    """Makes a live person a member of one more business; False if they are already. Emits MembershipJoined.

    A deleted membership comes back. The person's row is locked by whoever calls.
    """
    status = standing.status if standing else int(pb.CUSTOMER_STATUS_ACTIVE)
    kind = standing.type if standing else int(pb.CUSTOMER_TYPE_REGISTERED)
    row = {
        "tenant_id": tx.tenant_id,
        "business_id": business.business_id,
        "customer_id": customer_id,
        "status": status,
        "type": kind,
        "tags": [],
        "attributes": {},
        "source": source or "manual",
        "joined_at": tx.now,
    }
    came_back = {"deleted_at": None, "deletion_mode": None, "erase_due_at": None, "joined_at": tx.now}
    joined = await tx.execute(
        upsert(memberships)
        .values(row)
        .on_conflict_do_update(
            constraint="memberships_pkey", set_=came_back, where=memberships.c.deleted_at.is_not(None)
        )
        .returning(memberships.c.status, memberships.c.type, memberships.c.source)
    )
    made = joined.first()
    if made is None:
        return False
    version = await _next_version(tx, customer_id)
    event = events.MembershipJoined(
        customer_id=str(customer_id),
        business_id=str(business.business_id),
        status=made.status,
        type=made.type,
        source=made.source,
        joined_at=stamp(tx.now),
    )
    await emit(tx, event, aggregate_id=customer_id, version=version, business_id=business.business_id)
    return True


async def leave_business(tx: Tx, keys: TenantKeys, view: View) -> None:
    """Ends a locked customer's membership; its notes go with it. Emits MembershipLeft.

    Raises LastMembership.
    """
    await tx.across_businesses()
    others = [
        m
        for m in await _memberships(tx, view.customer_id)
        if not m.deleted_at and m.business_id != view.business_id
    ]
    if not others:
        raise LastMembership
    await _release(
        tx,
        keys,
        await live_versions(tx),
        view.customer_id,
        rules.source_identifiers(view.business_id, view.standing.sources),
    )
    await tx.execute(delete(memberships).where(*_membership(tx, view)))
    version = await _next_version(tx, view.customer_id)
    event = events.MembershipLeft(customer_id=str(view.customer_id), business_id=str(view.business_id))
    await emit(tx, event, aggregate_id=view.customer_id, version=version, business_id=view.business_id)


async def lock_person(tx: Tx, customer_id: UUID) -> None:
    """Keeps a live person's row until the transaction ends. Raises Conflict if it is live no more."""
    person = await _locked(tx, customer_id)
    if person.deleted_at or person.merged_into:
        raise Conflict


async def _locked(tx: Tx, customer_id: UUID) -> Row[Any]:
    mine = customers.c
    wanted = select(customers).where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
    found = (await tx.execute(wanted.with_for_update())).first()
    if found is None:
        raise CustomerNotFound
    return found


async def _memberships(tx: Tx, customer_id: UUID) -> list[Row[Any]]:
    """Every membership that the transaction sees, with its business's cool-off."""
    mine, theirs = memberships.c, business_rows.c
    wanted = (
        select(mine.business_id, mine.deleted_at, theirs.erasure_cool_off_days)
        .join(
            business_rows,
            (theirs.tenant_id == mine.tenant_id) & (theirs.business_id == mine.business_id),
        )
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
    )
    return list((await tx.execute(wanted)).all())


async def _next_version(tx: Tx, customer_id: UUID) -> int:
    mine = customers.c
    version: int = await tx.scalar(
        update(customers)
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
        .values(version=mine.version + 1, updated_at=tx.now)
        .returning(mine.version)
    )
    return version


def _membership_at(tx: Tx, business_id: UUID, customer_id: UUID) -> tuple[Any, ...]:
    mine = memberships.c
    return (
        mine.tenant_id == tx.tenant_id,
        mine.business_id == business_id,
        mine.customer_id == customer_id,
    )


def _membership(tx: Tx, view: View) -> tuple[Any, ...]:
    return _membership_at(tx, view.business_id, view.customer_id)


def _unchanged_since(view: View, etag: str) -> None:
    if etag and etag != str(view.version):
        raise EtagMismatch


def _need_contact(profile: Profile, standing: Standing) -> None:
    if not (profile.email or profile.phone or standing.type == pb.CUSTOMER_TYPE_GUEST):
        faults = Faults()
        for name in ("email", "phone"):
            faults.add(f"customer.{name}", "an e-mail or a phone is required, except for guests", "REQUIRED")
        faults.refuse()


def _changed_fields(before: View, written: Written) -> list[str]:
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


def _seal_profile(keys: TenantKeys, key: DataKey, customer_id: UUID, profile: Profile) -> bytes:
    return keys.seal(key, PROFILE, customer_id, orjson.dumps(profile.known()))


def _seal_standing(
    keys: TenantKeys, key: DataKey, business_id: UUID, customer_id: UUID, standing: Standing
) -> bytes | None:
    if not (standing.personal or standing.sources):
        return None
    sources = [(source.name, source.external_id, source.synced_at) for source in standing.sources]
    sealed = orjson.dumps({"attributes": standing.personal, "sources": sources})
    return keys.seal(key, STANDING, membership_row_id(business_id, customer_id), sealed)


async def _write_standing(tx: Tx, keys: TenantKeys, key: DataKey, view: View, standing: Standing) -> None:
    await tx.execute(
        update(memberships)
        .where(*_membership(tx, view))
        .values(
            status=standing.status,
            type=standing.type,
            tags=list(standing.tags),
            attributes=dict(standing.attributes),
            sealed=_seal_standing(keys, key, view.business_id, view.customer_id, standing),
        )
    )


async def _write_identifiers(
    tx: Tx, keys: TenantKeys, before: View, profile: Profile, standing: Standing
) -> None:
    old = rules.identifiers(before.profile, {before.business_id: before.standing})
    new = rules.identifiers(profile, {before.business_id: standing})
    if old == new:
        return
    live = await live_versions(tx)
    await _release(tx, keys, live, before.customer_id, old - new)
    await _claim(tx, keys, live, before.customer_id, new - old)


async def _claim(
    tx: Tx, keys: TenantKeys, live: LiveVersions, customer_id: UUID, wanted: set[tuple[str, str]]
) -> None:
    """Takes identifiers for a customer, under every live key version.

    Raises EmailTaken, PhoneTaken or ExternalIdTaken, with the holder's id if the caller sees them.
    """
    if not wanted:
        return
    # Everyone claims in the same order, so that two who want the same identifiers never wait for each other.
    claims = sorted(
        (kind, index.key_version, index.digest)
        for kind, value in wanted
        for index in keys.blind_indexes(live, kind, value)
    )
    kinds, versions, digests = zip(*claims, strict=True)
    where = {"tenant": tx.tenant_id, "customer": customer_id}
    columns = {"kinds": list(kinds), "versions": list(versions), "digests": list(digests)}
    got = {tuple(row) for row in await tx.execute(_CLAIM_IDENTIFIERS, {**where, **columns})}
    refused = [claim for claim in claims if claim not in got]
    if refused:
        await _refuse(tx, *refused[0])


async def _refuse(tx: Tx, kind: str, version: int, digest: bytes) -> None:
    mine, theirs = customer_identifiers.c, memberships.c
    seen = select(theirs.customer_id).where(
        theirs.tenant_id == tx.tenant_id,
        theirs.customer_id == mine.customer_id,
        theirs.deleted_at.is_(None),
    )
    holder = await tx.scalar(
        select(mine.customer_id).where(
            mine.tenant_id == tx.tenant_id,
            mine.kind == kind,
            mine.key_version == version,
            mine.bidx == digest,
            seen.exists(),
        )
    )
    field = {"external_id": "sources"}.get(kind, kind)
    taken = _TAKEN[kind]
    raise taken(field=f"customer.{field}", customer_id=holder) if holder else taken(field=f"customer.{field}")


async def _release(
    tx: Tx, keys: TenantKeys, live: LiveVersions, customer_id: UUID, values: set[tuple[str, str]]
) -> None:
    mine = customer_identifiers.c
    for kind, value in sorted(values):
        digests = [index.digest for index in keys.blind_indexes(live, kind, value)]
        await tx.execute(
            delete(customer_identifiers).where(
                mine.tenant_id == tx.tenant_id,
                mine.kind == kind,
                mine.bidx.in_(digests),
                mine.customer_id == customer_id,
            )
        )


def _forget_identifiers(tx: Tx, customer_id: UUID) -> Any:
    mine = customer_identifiers.c
    return delete(customer_identifiers).where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
