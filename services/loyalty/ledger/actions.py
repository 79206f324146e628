"""Writes to the ledger that somebody asks for: each locks the account, asks the book, and writes it back."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import insert, text

from libs.crypto import DataKey, TenantKeys, live_versions
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.ids import new_id
from libs.pipeline import Query
from services.loyalty.households import pooling
from services.loyalty.ledger import queries, reading, rules, writing
from services.loyalty.ledger.writing import Owned
from services.loyalty.merges import queries as merges
from services.loyalty.people import actions as people
from services.loyalty.problems import (
    MembershipNotFound,
    NotReversible,
    TransferLimitReached,
    TransfersNotAllowed,
)
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import beginning
from services.loyalty.programs.rules import expires_at as expiry_of

_KEY = Query(
    text("""
    select k.key_id, k.epoch, k.wrapped from subject_keys k
    where k.tenant_id = :tenant and k.subject_id = :customer and k.wrapped is not null
    order by k.key_id limit 1
""")
)


async def redeem_points(
    tx: Tx,
    program: Program,
    customer_id: UUID,
    entry_id: UUID,
    points: int,
    order_id: UUID | None = None,
    *,
    source: str = "",
    reasons: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Spends points; what the member lacks comes from the household. Emits PointsTransferred, PointsRedeemed.

    `source` and `reasons` say what they bought. Raises MembershipNotFound, MembershipFrozen, InsufficientPoints,
    OrderCancelled.
    """
    await queries.free_member(tx, program, customer_id)
    together = await pooling.with_household(tx, program, customer_id)
    await queries.spendable_on(tx, order_id)
    together.draw(points)
    together.mine.book.redeem(points, order_id=order_id, entry_id=entry_id, source=source, reasons=reasons)
    await writing.save(tx, together.all, actor=_actor(tx))


async def adjust_points(
    tx: Tx,
    keys: TenantKeys,
    program: Program,
    customer_id: UUID,
    entry_id: UUID,
    points: int,
    reason: str,
    *,
    effective_at: datetime | None,
    expires_at: datetime | None,
) -> None:
    """Adds or takes points by hand; the reason is sealed. Emits PointsAdjusted.

    Raises MembershipNotFound, MembershipFrozen, InsufficientPoints.
    """
    await queries.free_member(tx, program, customer_id)
    owned = await _own(tx, program, customer_id)
    owned.book.adjust(
        points,
        effective_at=effective_at or tx.now,
        expires_at=expires_at or expiry_of(program.settings, tx.now, program.zone),
        entry_id=entry_id,
    )
    key = await text_key(tx, keys, customer_id)
    caller = tx.caller
    written = {"reason": reason, "actor_name": caller.display_name or ""}
    sealed = keys.seal(key, queries.SEALED, entry_id, orjson.dumps(written))
    await writing.save(tx, [owned], actor=_actor(tx), sealed={entry_id: (key.key_id, sealed)})


async def hold_points(
    tx: Tx,
    program: Program,
    customer_id: UUID,
    hold_id: UUID,
    points: int,
    ttl_seconds: int,
    order_id: UUID | None,
) -> None:
    """Sets points aside; what the member lacks comes from the household. Emits PointsTransferred.

    Raises MembershipNotFound, MembershipFrozen, InsufficientPoints, OrderCancelled.
    """
    await queries.free_member(tx, program, customer_id)
    together = await pooling.with_household(tx, program, customer_id)
    await queries.spendable_on(tx, order_id)
    together.draw(points)
    ttl = timedelta(seconds=ttl_seconds or program.settings.hold_seconds)
    together.mine.book.hold(points, expires_at=tx.now + ttl, order_id=order_id, hold_id=hold_id)
    await writing.save(tx, together.all, actor=_actor(tx))


async def capture_hold(
    tx: Tx, program: Program, customer_id: UUID, hold_id: UUID, points: int, order_id: UUID | None
) -> None:
    """Spends a hold, or a part of it; the rest of what was others' goes back. Emits PointsRedeemed, PointsTransferred.

    Raises HoldNotOpen, MembershipFrozen, OrderCancelled.
    """
    await queries.free_member(tx, program, customer_id)
    together = await pooling.with_givers(tx, program, customer_id)
    book = together.mine.book
    hold = book.holds.get(hold_id)
    if hold is None:
        row = await queries.hold_row(tx, hold_id)
        if row.state == rules.CAPTURED and order_id in {None, row.order_id}:
            return
        hold = reading.hold_of(row)
    await queries.spendable_on(tx, order_id or hold.order_id)
    book.capture(hold, points or hold.points, order_id=order_id)
    together.give_back()
    await writing.save(tx, together.all, actor=_actor(tx))


async def release_hold(tx: Tx, program: Program, customer_id: UUID, hold_id: UUID) -> None:
    """Gives a hold back, and what was others' to them. Emits PointsTransferred.

    Raises HoldNotOpen if it was captured.
    """
    together = await pooling.with_givers(tx, program, customer_id)
    book = together.mine.book
    book.release(book.holds.get(hold_id) or reading.hold_of(await queries.hold_row(tx, hold_id)))
    together.give_back()
    await writing.save(tx, together.all, actor=_actor(tx))


async def reverse_redemption(
    tx: Tx, program: Program, customer_id: UUID, spent_id: UUID, entry_id: UUID
) -> UUID:
    """Takes a redemption back, as far as it is not yet; gives the id of the entry that did, now or before.

    What was others' goes back to them. Emits PointsReversed, PointsTransferred. Raises NotReversible,
    MembershipFrozen.
    """
    customer_id = (await merges.survivors(tx, [customer_id]))[customer_id]
    await queries.free_member(tx, program, customer_id)
    before = (await queries.shares(tx, [spent_id])).get(spent_id, {})
    together = await pooling.with_givers(tx, program, customer_id, before)
    # Under the lock: what is left to give back is the same, or less.
    spent = await queries.entry(tx, spent_id)
    if spent.kind != rules.REDEEM:
        raise NotReversible
    back = (await queries.returned(tx, [spent_id])).get(spent_id, 0)
    left = -spent.points - back
    if left <= 0:
        return spent_id
    share = (await queries.shares(tx, [spent_id])).get(spent_id, {})
    together.mine.book.restore(spent_id, left, share, order_id=spent.order_id, entry_id=entry_id)
    together.give_back()
    await writing.save(tx, together.all, actor=_actor(tx))
    return entry_id


async def give_back(tx: Tx, program: Program, customer_id: UUID) -> None:
    """Gives others in the household back what the member holds of theirs and nothing is set aside of.

    Emits PointsTransferred.
    """
    together = await pooling.with_givers(tx, program, customer_id)
    together.give_back()
    await writing.save(tx, together.all)


async def transfer_points(
    tx: Tx, program: Program, giver: UUID, receiver: UUID, entry_id: UUID, points: int
) -> None:
    """Gives points to another member; `entry_id` is the giver's side. Emits PointsTransferred twice.

    Raises TransfersNotAllowed, TransferLimitReached, MembershipNotFound, MembershipFrozen, InsufficientPoints.
    """
    if not program.settings.transfers_allowed:
        raise TransfersNotAllowed
    for each in (giver, receiver):
        await queries.free_member(tx, program, each)
    programs = {program.program_id: program}
    await tx.execute(writing.BY_KEY)
    opened = await writing.open_accounts(
        tx, [(program.program_id, each) for each in (giver, receiver)], programs
    )
    books = await reading.books(tx, opened.values(), programs, lock=True)
    theirs = books[opened[program.program_id, giver]], books[opened[program.program_id, receiver]]
    limit = program.settings.transferable_points_per_month
    if limit:
        month = beginning(tx.now.astimezone(program.zone).date().replace(day=1), program.zone)
        given = await queries.given_away(tx, theirs[0].account.account_id, month)
        if given + points > limit:
            raise TransferLimitReached(limit=limit, given=given, requested=points)
    other_id = new_id()
    theirs[1].receive(theirs[0].send(points, other_id, entry_id), entry_id, other_id)
    owned = [Owned(theirs[0], program, giver, receiver), Owned(theirs[1], program, receiver, giver)]
    await writing.save(tx, owned, actor=_actor(tx))


async def settle(tx: Tx, account_ids: Iterable[UUID], programs: dict[UUID, Program]) -> int:
    """Books what holds already in these accounts; gives how many of them changed. Emits their events."""
    books = await reading.books(tx, account_ids, programs, lock=True)
    rows = await queries.owners(tx, books)
    owned = [Owned(books[row.account_id], programs[row.program_id], row.customer_id) for row in rows]
    await writing.save(tx, owned)
    return sum(book.changed for book in books.values())


async def _own(tx: Tx, program: Program, customer_id: UUID) -> Owned:
    """The member's book, locked and settled."""
    programs = {program.program_id: program}
    member = program.program_id, customer_id
    account_id = (await writing.open_accounts(tx, [member], programs))[member]
    books = await reading.books(tx, [account_id], programs, lock=True)
    return Owned(books[account_id], program, customer_id)


def _actor(tx: Tx) -> str:
    caller = tx.caller
    return "" if caller.kind == "customer" else caller.on_behalf_of or caller.subject


async def text_key(tx: Tx, keys: TenantKeys, customer_id: UUID) -> DataKey:
    """The key under which this service keeps a customer's text; the first text makes it.

    Raises MembershipNotFound for whoever was erased.
    """
    where = {"tenant": tx.tenant_id, "customer": customer_id}
    *_, erased, found = await tx.together(*people.asked_erased(tx, [customer_id]), (_KEY, where))
    if erased:
        raise MembershipNotFound
    for row in found:
        return keys.unwrap(row.key_id, row.epoch, row.wrapped)
    fresh, key = keys.new_subject_key(await live_versions(tx), customer_id, tx.now)
    await tx.execute(insert(subject_keys).values(fresh._asdict()))
    return key
