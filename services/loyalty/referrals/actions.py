"""Writes about referrals.

A referral's row is locked after the accounts of its people; who locks both accounts settles it, so the referrer's
limit is counted by one at a time.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from libs import arrays, jobs
from libs.db import Tx
from libs.ids import new_id
from libs.outbox import Fact, emit_all
from libs.pipeline import Query
from libs.problems import Conflict
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger import reading, writing
from services.loyalty.ledger.bonuses import Occasion, work_in_occasions
from services.loyalty.ledger.tables import awards
from services.loyalty.ledger.work import NO_RULE
from services.loyalty.ledger.writing import Owned
from services.loyalty.merges import queries as merges
from services.loyalty.problems import (
    MembershipNotFound,
    ReferralNotFlagged,
    ReferralsNotEnabled,
    TooManyInvitations,
)
from services.loyalty.programs import queries as programs
from services.loyalty.programs import rules as earning
from services.loyalty.programs.queries import Program
from services.loyalty.referrals import queries, rules, wire
from services.loyalty.referrals.rules import Facts, Outcome, Terms
from services.loyalty.referrals.tables import referral_codes, referrals
from services.loyalty.tiers import actions as tiers
from services.loyalty.tiers import queries as tiers_queries

SETTLE = "settle_referrals"
MAX_INVITATIONS = 100

_r = referrals.c
_OF_ORDERS = Query(
    text("""
    select r.referral_id from referrals r
    where r.tenant_id = :tenant and r.friend_id = any(:friends) and r.state = 2
    union
    select r.referral_id from referrals r
    where r.tenant_id = :tenant and r.order_id = any(:orders) and r.state in (4, 5)
""")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A customer who became a member of a business, and the code that they brought."""

    business_id: UUID
    customer_id: UUID
    code: str
    at: datetime


def terms_of(program: Program) -> Terms:
    """What a program says about referrals."""
    return rules.terms_of(program.settings.referrals)


async def own_code(tx: Tx, program: Program, customer_id: UUID) -> str:
    """A member's own code; the first time makes it."""
    found = await queries.code_of(tx, program.program_id, customer_id)
    while found is None:
        row = {
            "tenant_id": tx.tenant_id,
            "code": _new_code(),
            "business_id": program.business_id,
            "program_id": program.program_id,
            "customer_id": customer_id,
            "made_at": tx.now,
        }
        await tx.execute(upsert(referral_codes).values(row).on_conflict_do_nothing())
        found = await queries.code_of(tx, program.program_id, customer_id)
    return found


async def create_referral(tx: Tx, program: Program, customer_id: UUID, referral_id: UUID) -> None:
    """Invites one friend.

    Raises ReferralsNotEnabled, MembershipNotFound, MembershipFrozen, ProgramInactive, TooManyInvitations.
    """
    terms = terms_of(program)
    if not terms.enabled:
        raise ReferralsNotEnabled
    await ledger.free_member(tx, program, customer_id)
    if await queries.count_open_invitations(tx, program.program_id, customer_id) >= MAX_INVITATIONS:
        raise TooManyInvitations(limit=MAX_INVITATIONS)
    expires_at = tx.now + timedelta(days=terms.invitation_days)
    row = _fresh(tx, program, terms, referral_id, customer_id) | {
        "state": rules.INVITED,
        "code": _new_code(),
        "expires_at": expires_at,
        "due_at": expires_at,
    }
    await tx.execute(insert(referrals).values(row))


async def register(tx: Tx, joined: Iterable[Joined]) -> None:
    """Notes who came with whose code; a customer counts once in a program. Emits ReferralRegistered.

    An unknown code, and one of another business or of a program without referrals, is passed over.
    """
    rows = [await _register(tx, each) for each in joined]
    came = [row for row in rows if row is not None and row.state == rules.REGISTERED]
    if came:
        await emit_all(tx, [_fact(row, events.ReferralRegistered) for row in came])
        await _settle_soon(tx, came)


async def _register(tx: Tx, joined: Joined) -> Row[Any] | None:
    invitation = None
    found = await queries.code_row(tx, joined.code)
    if found is None:
        found = invitation = await queries.invitation(tx, joined.code)
    if found is None or found.business_id != joined.business_id:
        return None
    if invitation is not None and invitation.expires_at <= joined.at:
        return None
    program = programs.program_of(await programs.row(tx, found.program_id))
    terms = terms_of(program)
    if not terms.enabled or await queries.brought(tx, program.program_id, joined.customer_id):
        return None
    try:
        if (await ledger.member(tx, joined.business_id, joined.customer_id)).deleted:
            return None
    except MembershipNotFound:
        return None  # gone again, or erased, before this was heard
    whose = found.customer_id if invitation is None else invitation.referrer_id
    referrer_id = (await merges.survivors(tx, [whose]))[whose]
    expires_at = joined.at + timedelta(days=terms.qualify_days)
    come = {
        "friend_id": joined.customer_id,
        "state": rules.REGISTERED,
        "code": None,
        "registered_at": joined.at,
        "expires_at": expires_at,
        "due_at": tx.now,
    }
    if referrer_id == joined.customer_id:
        if invitation is not None:
            return None  # it waits for somebody else
        come |= {"state": rules.REFUSED, "reason": "SELF", "due_at": None}
    fresh = _fresh(tx, program, terms, new_id(), referrer_id)
    if invitation is not None:
        kept = {name: fresh[name] for name in _PROMISED} | come
        return await _write(tx, invitation, kept)
    return (await tx.execute(insert(referrals).values(fresh | come).returning(*_r))).one()


# What holds for a friend as it was when the friend came.
_PROMISED = ("referrer_points", "friend_points", "minimum_order_minor")


def _fresh(tx: Tx, program: Program, terms: Terms, referral_id: UUID, referrer_id: UUID) -> dict[str, Any]:
    return {
        "tenant_id": tx.tenant_id,
        "referral_id": referral_id,
        "business_id": program.business_id,
        "program_id": program.program_id,
        "referrer_id": referrer_id,
        "reason": "",
        "matches": [],
        "approved": False,
        "created_at": tx.now,
        "reviewed_by": "",
        "version": 1,
        **{name: getattr(terms, name) for name in _PROMISED},
    }


async def approve_referral(tx: Tx, before: Row[Any]) -> Row[Any]:
    """Lets a locked, flagged referral go on. Raises ReferralNotFlagged."""
    if before.approved:
        return before
    if before.state != rules.FLAGGED:
        raise ReferralNotFlagged(state=wire.state_name(before.state))
    values = {"state": rules.REGISTERED, "approved": True, "reviewed_by": _actor(tx), "due_at": tx.now}
    after = await _write(tx, before, values | {"reason": ""})
    await _settle_soon(tx, [after])
    return after


async def reject_referral(tx: Tx, before: Row[Any]) -> Row[Any]:
    """Ends a locked, flagged referral. Raises ReferralNotFlagged."""
    if before.state == rules.REFUSED and before.reviewed_by:
        return before
    if before.state != rules.FLAGGED:
        raise ReferralNotFlagged(state=wire.state_name(before.state))
    values = {"state": rules.REFUSED, "reason": "REJECTED", "reviewed_by": _actor(tx)}
    return await _write(tx, before, values)


async def orders_changed(tx: Tx, order_ids: Collection[UUID], customer_ids: Collection[UUID]) -> None:
    """Has those referrals looked at that orders of these customers may decide."""
    where = {
        "tenant": tx.tenant_id,
        "orders": arrays.uuids(list(order_ids)),
        "friends": arrays.uuids(list(customer_ids)),
    }
    _, rows = await tx.together((reading.FIND_BY_KEY, {}), (_OF_ORDERS, where))
    await look_again(tx, {row.referral_id for row in rows})


async def people_changed(tx: Tx, customer_ids: Collection[UUID]) -> None:
    """Has those referrals looked at that these customers may decide: free again, with other contact data or orders."""
    people = list(customer_ids)
    wanted = select(_r.referral_id).where(
        _r.tenant_id == tx.tenant_id,
        or_(
            _r.friend_id.in_(people) & _r.state.in_([rules.REGISTERED, rules.QUALIFIED]),
            _r.referrer_id.in_(people) & (_r.state == rules.QUALIFIED),
        ),
    )
    await look_again(tx, (await tx.execute(wanted)).scalars().all())


async def look_again(tx: Tx, referral_ids: Collection[UUID]) -> None:
    """Has those of these referrals that can still change looked at as soon as the transaction has committed."""
    if not referral_ids:
        return
    ids = sorted(referral_ids)
    lock = select(_r.referral_id).where(_r.tenant_id == tx.tenant_id, _r.referral_id.in_(ids))
    await tx.execute(lock.order_by(_r.referral_id).with_for_update())
    # The version too: whoever has looked already did not see what has happened now.
    marked = {"due_at": tx.now, "version": _r.version + 1}
    these = (_r.tenant_id == tx.tenant_id, _r.referral_id.in_(ids), _r.state.in_(rules.JUDGED))
    mark = update(referrals).where(*these).values(marked)
    await _settle_soon(tx, (await tx.execute(mark.returning(_r.business_id, _r.referral_id))).all())


async def put_off(tx: Tx, referral_id: UUID) -> None:
    """Looks at a referral again later: it cannot be judged now. After a while nobody waits for it."""
    before = await queries.referral(tx, referral_id, lock=True)
    if before.state not in rules.JUDGED:
        return
    given_up = before.expires_at is not None and before.expires_at + rules.WAITS_FOR <= tx.now
    if not given_up:
        await _write(tx, before, {"due_at": tx.now + rules.AGAIN_AFTER})
    elif before.state == rules.REWARDED:
        await _write(tx, before, {"due_at": None})
    else:
        await _write(tx, before, {"state": rules.EXPIRED, "due_at": None})


async def expire_invitation(tx: Tx, referral_id: UUID) -> None:
    """Ends an invitation that is past its time."""
    before = await queries.referral(tx, referral_id, lock=True)
    if before.state == rules.INVITED and before.expires_at <= tx.now:
        await _write(tx, before, {"state": rules.EXPIRED, "code": None, "due_at": None})


# ---------------------------------------------------------------------- settling


async def settle(tx: Tx, referral_id: UUID, seen: int, alike: frozenset[int] | None) -> None:
    """Judges a referral whose friend has come, as it is now; gives points, or takes them back. One that waits for its
    review, or is over, stays as it is.

    `alike` is in what its two people agree, None if that does not count. Emits ReferralFlagged, ReferralQualified,
    ReferralRewarded, ReferralRevoked, PointsEarned, PointsReversed. Raises Conflict if it is not as it was `seen`.
    """
    before = await queries.referral(tx, referral_id)
    program = programs.program_of(await programs.row(tx, before.program_id))
    people = [each for each in (before.referrer_id, before.friend_id) if each is not None]
    by_id = {program.program_id: program}
    await tx.execute(writing.BY_KEY)
    opened = await writing.open_accounts(tx, [(program.program_id, each) for each in people], by_id)
    lots = await queries.lots_of(tx, [before.referrer_entry_id, before.friend_entry_id])
    books = await reading.books(tx, opened.values(), by_id, lock=True)
    owned = {
        customer_id: Owned(books[account], program, customer_id)
        for (_, customer_id), account in opened.items()
    }
    before = await queries.referral(tx, referral_id, lock=True)
    if before.version != seen:
        raise Conflict
    if before.state not in rules.JUDGED:
        await _write(tx, before, {"due_at": None})
        return
    outcome = await _judge(tx, program, before, alike)
    values: dict[str, Any] = {
        "state": outcome.state,
        "reason": outcome.reason,
        "order_id": outcome.order_id,
        "due_at": outcome.look_at,
    }
    if alike is not None:
        values["matches"] = sorted(alike)
    facts: list[Fact] = []
    row = before
    if outcome.state in {rules.QUALIFIED, rules.REWARDED} and before.state == rules.REGISTERED:
        row = await _write(tx, row, values | {"state": rules.QUALIFIED, "qualified_at": tx.now})
        facts.append(_fact(row, events.ReferralQualified))
    if outcome.state == rules.REWARDED and before.state != rules.REWARDED:
        values |= _reward(tx, program, before, owned) | {"rewarded_at": tx.now}
        await _note_awards(tx, program, before, opened)
    if outcome.state == rules.REVOKED and before.state == rules.REWARDED:
        _take_back(before, owned, lots)
    row = await _write(tx, row, values)
    if outcome.state != before.state and (told := _TOLD.get(outcome.state)) is not None:
        facts.append(_fact(row, told))
    await writing.save(tx, list(owned.values()))
    if facts:
        await emit_all(tx, facts)
    if outcome.state == rules.REWARDED and before.state != rules.REWARDED:
        brought = Occasion(
            business_id=before.business_id,
            customer_id=before.referrer_id,
            trigger=earning.REFERRAL,
            key=f"referral:{referral_id}:made",
            at=tx.now,
        )
        await work_in_occasions(tx, [brought])
    changed = sorted(each.book.account.account_id for each in owned.values() if each.book.entries)
    if changed:
        ladder = await tiers_queries.ladder(tx, program.program_id)
        await tiers.judge(tx, program, ladder, changed)


_TOLD = {
    rules.FLAGGED: events.ReferralFlagged,
    rules.REWARDED: events.ReferralRewarded,
    rules.REVOKED: events.ReferralRevoked,
}


async def _judge(tx: Tx, program: Program, row: Row[Any], alike: frozenset[int] | None) -> Outcome:
    terms = terms_of(program)
    if (
        row.referrer_id is None or row.friend_id is None
    ):  # erased: what was given stays, unless the order goes
        found = Facts(
            orders=await queries.bought(tx, row.business_id, row.friend_id) if row.friend_id else ()
        )
        if row.state != rules.REWARDED or row.friend_id is None:
            return Outcome(state=row.state, reason=row.reason, order_id=row.order_id)
        return rules.judge(wire.judged(row), terms, found, tx.now)
    since = tx.now - timedelta(days=terms.limit_days)
    in_all, lately = await queries.rewarded(tx, row.program_id, row.referrer_id, row.referral_id, since)
    facts = Facts(
        orders=await queries.bought(tx, row.business_id, row.friend_id),
        alike=alike,
        circular=await queries.is_above(tx, row.program_id, row.referrer_id, row.friend_id),
        rewarded=in_all,
        rewarded_lately=lately,
        frozen=not (await _earns(tx, program, row.referrer_id) and await _earns(tx, program, row.friend_id)),
    )
    return rules.judge(wire.judged(row), terms, facts, tx.now)


async def _earns(tx: Tx, program: Program, customer_id: UUID) -> bool:
    try:
        found = await ledger.member(tx, program.business_id, customer_id)
    except MembershipNotFound:
        return False
    return not ledger.refusal(found, program)


def _reward(tx: Tx, program: Program, row: Row[Any], owned: Mapping[UUID, Owned]) -> dict[str, Any]:
    """Gives both their points; gives the entries' ids."""
    pending = timedelta(days=terms_of(program).pending_days)
    given: dict[str, Any] = {}
    for side, points, told in (
        ("referrer", row.referrer_points, "for bringing a friend"),
        ("friend", row.friend_points, "for coming through a friend"),
    ):
        if not points:
            continue
        entry = owned[getattr(row, f"{side}_id")].book.earn(
            points,
            available_at=tx.now + pending,
            expires_at=earning.expires_at(program.settings, tx.now, program.zone),
            source=f"referral:{row.referral_id}",
            reasons=[{"rule_id": "", "name": "Referral", "points": points, "explanation": told}],
        )
        given[f"{side}_entry_id"] = entry.entry_id
    return given


async def _note_awards(
    tx: Tx, program: Program, row: Row[Any], opened: Mapping[writing.Member, UUID]
) -> None:
    """Each side of a referral is rewarded once: the key of its award sees to it."""
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "program_id": program.program_id,
            "source": f"referral:{row.referral_id}:{side}",
            "rule_id": NO_RULE,
            "business_id": program.business_id,
            "account_id": opened[program.program_id, getattr(row, f"{side}_id")],
            "local_day": tx.now.astimezone(program.zone).date(),
            "points": getattr(row, f"{side}_points"),
        }
        for side in ("referrer", "friend")
        if getattr(row, f"{side}_points")
    ]
    if rows:
        await tx.execute(insert(awards).values(rows))


def _take_back(row: Row[Any], owned: Mapping[UUID, Owned], lots: set[UUID]) -> None:
    """Takes from both what they got, as far as the program's return policy goes."""
    for side in ("referrer", "friend"):
        whose = owned.get(getattr(row, f"{side}_id"))
        if whose is not None and getattr(row, f"{side}_entry_id") is not None:
            source = f"referral:{row.referral_id}"
            points = getattr(row, f"{side}_points")
            whose.book.reclaim(None, points, lots=lots, source=source, counted_at=row.rewarded_at)


# ---------------------------------------------------------------------- inside


async def _settle_soon(tx: Tx, rows: Iterable[Row[Any]]) -> None:
    """Has rows (business_id, referral_id) judged once the transaction has committed: a job for each business."""
    ids: dict[UUID, list[str]] = {}
    for row in rows:
        ids.setdefault(row.business_id, []).append(str(row.referral_id))
    for business_id, theirs in ids.items():
        await jobs.enqueue(tx, SETTLE, {"ids": theirs}, business_id=business_id)


async def _write(tx: Tx, before: Row[Any], values: Mapping[str, Any]) -> Row[Any]:
    """The row after a change."""
    mine = _r.tenant_id == tx.tenant_id, _r.referral_id == before.referral_id
    changed = update(referrals).where(*mine).values(**values, version=before.version + 1).returning(*_r)
    return (await tx.execute(changed)).one()


def _fact(row: Row[Any], event: type[Any]) -> Fact:
    more = {"reason": row.reason} if event is events.ReferralFlagged else {}
    return Fact(event(referral=wire.facts(row), **more), row.referral_id, row.version, row.business_id)


def _new_code() -> str:
    return rules.code_of(secrets.token_bytes(rules.CODE_BYTES))


def _actor(tx: Tx) -> str:
    return tx.caller.on_behalf_of or tx.caller.subject
