"""Writes about whether a customer belongs to a business: join, leave, delete, restore."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from libs.audit import Reading
from libs.crypto import Kind, TenantKeys, live_versions
from libs.db import Tx
from libs.instants import stamp
from libs.outbox import emit
from libs.problems import Conflict, EtagMismatch
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2 as events
from services.customers.addresses import queries as addresses
from services.customers.problems import CustomerNotFound, ErasureBegun, LastMembership
from services.customers.profiles import identifiers, queries, rules
from services.customers.profiles.queries import View
from services.customers.search import actions as search_rows
from services.customers.tables import businesses, customers, memberships
from services.customers.timeline import actions as timeline


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
            .where(*queries.membership_at(tx, membership.business_id, customer_id))
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
        await identifiers.forget(tx, customer_id)
        await search_rows.forget(tx, customer_id)
    else:
        for gone_id in sorted(gone_ids):
            await search_rows.leave(tx, customer_id, gone_id)
    await timeline.note_change(tx, [customer_id], gone_ids, timeline.DELETED)
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
            .where(*queries.membership_at(tx, business_id, customer_id))
            .values(deleted_at=None, deletion_mode=None, erase_due_at=None)
        )
    if person.deleted_at:
        await _claim_all(tx, keys, reading, customer_id)
    else:
        for business_id in back:
            await search_rows.join(tx, customer_id, business_id)
    version = person.version + 1
    mine = customers.c
    await tx.execute(
        update(customers)
        .where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
        .values(version=version, updated_at=tx.now, deleted_at=None)
    )
    await timeline.note_change(tx, [customer_id], back, timeline.RESTORED)
    event = events.CustomerRestored(customer_id=str(customer_id), business_ids=sorted(map(str, back)))
    await emit(tx, event, aggregate_id=customer_id, version=version)


async def _claim_all(tx: Tx, keys: TenantKeys, reading: Reading, customer_id: UUID) -> None:
    """Makes a customer findable again, also by what businesses know them by that the caller does not see."""
    live = await live_versions(tx)
    await tx.across_businesses()
    views = (await queries.everywhere(tx, keys, reading, [customer_id]))[customer_id]
    await tx.within_businesses()
    await identifiers.claim(tx, keys, live, customer_id, identifiers.identifiers_of(views))
    places = await addresses.defaults(tx, keys, reading, [customer_id])
    rows = search_rows.rows_of(
        keys,
        live.written[Kind.SEARCH],
        views[0].profile,
        {view.business_id: view.standing.sources for view in views if not view.deleted_at},
        places.get(customer_id),
    )
    await search_rows.add(tx, customer_id, rows)


async def join_business(
    tx: Tx, customer_id: UUID, business: Row[Any], source: str, referral_code: str = ""
) -> bool:
    """Makes a live person a member of one more business; False if they are already. Emits MembershipJoined.

    `referral_code` is in its one form. A deleted membership comes back. The person's row is locked by whoever calls.
    """
    row = {
        "tenant_id": tx.tenant_id,
        "business_id": business.business_id,
        "customer_id": customer_id,
        "status": int(pb.CUSTOMER_STATUS_ACTIVE),
        "type": int(pb.CUSTOMER_TYPE_REGISTERED),
        "tags": [],
        "attributes": {},
        "source": source or "manual",
        "joined_at": tx.now,
    }
    came_back = {"deleted_at": None, "deletion_mode": None, "erase_due_at": None, "joined_at": tx.now}
    joined = await tx.execute(
        insert(memberships)
        .values(row)
        .on_conflict_do_update(
            constraint="memberships_pkey", set_=came_back, where=memberships.c.deleted_at.is_not(None)
        )
        .returning(memberships.c.status, memberships.c.type, memberships.c.source)
    )
    made = joined.first()
    if made is None:
        return False
    await search_rows.join(tx, customer_id, business.business_id)
    version = await _next_version(tx, customer_id)
    await timeline.note_change(tx, [customer_id], [business.business_id], timeline.JOINED)
    event = events.MembershipJoined(
        customer_id=str(customer_id),
        business_id=str(business.business_id),
        status=made.status,
        type=made.type,
        source=made.source,
        joined_at=stamp(tx.now),
        referral_code=referral_code,
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
    live = await live_versions(tx)
    theirs = rules.source_identifiers(view.business_id, view.standing.sources)
    await identifiers.release(tx, keys, live, view.customer_id, theirs)
    known, unknown = (view.profile, view.standing.sources), (view.profile, ())
    await search_rows.change(tx, keys, live, view.customer_id, view.business_id, known, unknown)
    await search_rows.leave(tx, view.customer_id, view.business_id)
    await tx.execute(
        delete(memberships).where(*queries.membership_at(tx, view.business_id, view.customer_id))
    )
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
    mine, theirs = memberships.c, businesses.c
    wanted = (
        select(mine.business_id, mine.deleted_at, theirs.erasure_cool_off_days)
        .join(
            businesses,
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
