"""Writes about merges: all of two customers' accounts at once, under their locks, and the same way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import insert

from libs import inbox
from libs.crypto import subject_keys
from libs.db import Tx
from libs.ids import new_id
from libs.inbox import NotYet
from libs.problems import Conflict
from services.loyalty.households import moves as households
from services.loyalty.ledger import reading, writing
from services.loyalty.ledger.tables import accounts, orders
from services.loyalty.ledger.writing import Owned
from services.loyalty.merges import queries, rules
from services.loyalty.merges.rules import Moved
from services.loyalty.merges.tables import merged_accounts, merges
from services.loyalty.overrides import actions as overrides
from services.loyalty.people import actions as of_people
from services.loyalty.people.actions import FOR_GOOD
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.referrals import moves as referrals
from services.loyalty.segments import actions as segments
from services.loyalty.tables import memberships
from services.loyalty.tiers import actions as tiers
from services.loyalty.tiers import queries as tiers_queries
from services.loyalty.tiers.rules import Standing

_a, _o, _me, _m = accounts.c, orders.c, memberships.c, merges.c

_LOCK = text("select pg_advisory_xact_lock(hashtextextended('merges:' || :tenant, 0))")
_JUDGED = text("""
    update judged_orders set account_id = :to where tenant_id = :tenant and account_id = :from
      and (cast(:only as uuid[]) is null or order_id = any(:only)) returning order_id
""").bindparams(bindparam("only", type_=ARRAY(Uuid)))
_AWARDS = text("""
    update awards set account_id = :to where tenant_id = :tenant and account_id = :from
      and (cast(:sources as text[]) is null
           or (source, rule_id) in (select * from unnest(cast(:sources as text[]), cast(:rules as uuid[]))))
    returning source, rule_id
""")
_STAMPS = text("""
    update card_stamps set account_id = :to where tenant_id = :tenant and account_id = :from
      and (cast(:orders as uuid[]) is null
           or (order_id, rule_id) in (select * from unnest(cast(:orders as uuid[]), cast(:rules as uuid[]))))
    returning order_id, rule_id
""")
_REDEMPTIONS = text("""
    update redemptions set account_id = :to where tenant_id = :tenant and account_id = :from
      and redemption_id = any(:only) returning redemption_id
""").bindparams(bindparam("only", type_=ARRAY(Uuid)))
_LOCK_REDEMPTIONS = text("""
    select redemption_id from redemptions
    where tenant_id = :tenant
      and (redemption_id = any(:only)
           or account_id in (select account_id from accounts where tenant_id = :tenant and customer_id = :customer))
    order by redemption_id for update
""").bindparams(bindparam("only", type_=ARRAY(Uuid)), bindparam("customer", type_=Uuid))
_HAS_REDEMPTIONS = text(
    "select exists (select from redemptions where tenant_id = :tenant and account_id = :from)"
)
_RETURNED = text("""
    select l.origin_lot_id, l.lot_id from lots o
    join lots l on l.tenant_id = :tenant and l.origin_lot_id = o.lot_id and l.account_id = :to
    where o.tenant_id = :tenant and o.account_id = :from and l.remaining > 0 and not l.pooled
      and l.earned_at >= :since
""")
_CARDS = text(
    "select * from cards where tenant_id = :tenant and account_id = :account order by rule_id for update"
)
_CARD = text("""
    insert into cards as c (tenant_id, account_id, rule_id, business_id, stamps, filled, told, version)
    values (:tenant, :account, :rule, :business, :stamps, :filled, 0, 1)
    on conflict on constraint cards_pkey do update
    set stamps = greatest(c.stamps + excluded.stamps, 0), filled = greatest(c.filled + excluded.filled, 0),
        version = c.version + 1
""")
_TAKE_CARD = text("""
    update cards set stamps = greatest(stamps - :stamps, 0), filled = greatest(filled - :filled, 0),
           version = version + 1
    where tenant_id = :tenant and account_id = :account and rule_id = :rule
""")
_HOLDS = text("""
    update holds set account_id = :to where tenant_id = :tenant and hold_id = any(:holds) and state = 1
    returning hold_id
""").bindparams(bindparam("holds", type_=ARRAY(Uuid)))
_HOLD_LOTS = text("""
    update hold_lots h set lot_id = m.to_lot
    from unnest(cast(:from_lots as uuid[]), cast(:to_lots as uuid[])) as m (from_lot, to_lot)
    where h.tenant_id = :tenant and h.hold_id = any(:holds) and h.lot_id = m.from_lot
""").bindparams(bindparam("holds", type_=ARRAY(Uuid)))
# Texts of staff, and what tells the day of a birthday; of that the year stays, so nothing is given twice.
_UNSEAL = text("""
    with e as (
        update entries
        set sealed = null, source = case when source like 'birthday:%' then '' else source end,
            reasons = case when source like 'birthday:%' then '[]' else reasons end
        where tenant_id = :tenant and (sealed is not null or source like 'birthday:%')
          and account_id in (select account_id from accounts
                             where tenant_id = :tenant and customer_id = any(:customers))
    ), w as (
        update awards set local_day = cast(date_trunc('year', local_day) as date)
        where tenant_id = :tenant and source like 'birthday:%'
          and account_id in (select account_id from accounts
                             where tenant_id = :tenant and customer_id = any(:customers))
    )
    update tier_changes set sealed = null where tenant_id = :tenant and sealed is not null
      and account_id in (select account_id from accounts where tenant_id = :tenant and customer_id = any(:customers))
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))


@dataclass(frozen=True, slots=True)
class Merge:
    """One customer becomes another."""

    operation_id: UUID
    source_id: UUID
    target_id: UUID


async def apply_merge(tx: Tx, of: Merge) -> None:
    """Moves all that the source has to whom the target is by now, once. Emits PointsTransferred, TierUpgraded.

    Raises NotYet while another merge of the source holds, or one that would make it its own target.
    """
    await tx.execute(_LOCK, {"tenant": str(tx.tenant_id)})
    if await queries.merge(tx, of.operation_id) is not None:
        return  # applied, or undone before it came
    now = await queries.survivors(tx, [of.source_id, of.target_id])
    if now[of.source_id] != of.source_id:
        raise NotYet(_undone_key(of.source_id))
    if now[of.target_id] == of.source_id:
        raise NotYet(_undone_key(of.target_id))
    values = {
        "tenant_id": tx.tenant_id,
        "operation_id": of.operation_id,
        "source_id": of.source_id,
        "target_id": of.target_id,
        "moved": {},
    }
    await tx.execute(insert(merges).values(values))
    await _apply(tx, of, now[of.target_id])
    if await of_people.erased(tx, [now[of.target_id]]):
        await erase(tx, now[of.target_id])  # what has come to them goes as well


async def undo_merge(tx: Tx, of: Merge) -> None:
    """Moves back what a merge moved, once; those applied after it are undone before and applied again.

    Emits PointsTransferred, TierDowngraded.
    """
    await tx.execute(_LOCK, {"tenant": str(tx.tenant_id)})
    row = await queries.merge(tx, of.operation_id)
    if row is None:
        values = {
            "tenant_id": tx.tenant_id,
            "operation_id": of.operation_id,
            "source_id": of.source_id,
            "target_id": of.target_id,
            "moved": {},
            "undone_at": tx.now,
        }
        await tx.execute(insert(merges).values(values))
    elif row.undone_at is None:
        after = await queries.later(tx, row)
        notes = [note for each in [*after, row] for note in await queries.accounts_of(tx, each.operation_id)]
        await _lock_redemptions(tx, [UUID(reward) for note in notes for reward in note.moved["rewards"]])
        people = {who for each in [*after, row] for who in (each.source_id, each.survivor_id)}
        await households.lock(tx, people, [each.moved.get("households", {}) for each in [*after, row]])
        for each in [*reversed(after), row]:
            await _undo(tx, each)
        for each in after:
            again = Merge(each.operation_id, each.source_id, each.target_id)
            await _apply(tx, again, (await queries.survivors(tx, [each.target_id]))[each.target_id])
    await inbox.unpark(tx, _undone_key(of.source_id))


async def erase(tx: Tx, customer_id: UUID) -> None:
    """Destroys what is personal of a customer and of those merged into them, for good; the ledger stays, of nobody."""
    people = sorted(await queries.merged_with(tx, customer_id))
    await referrals.erase(tx, people)
    await _leave(tx, people)
    await households.leave_gone(tx, people)
    await segments.forget(tx, people)
    await overrides.forget(tx, people)
    await of_people.forget(tx, people)
    await of_people.be_alone(tx)
    await _leave(tx, people)  # those who joined until now
    await subject_keys.destroy(tx, people)
    await tx.execute(_UNSEAL, {"tenant": tx.tenant_id, "customers": people})


async def _leave(tx: Tx, people: Sequence[UUID]) -> None:
    gone = {
        "present": False,
        "deleted": True,
        "blocked": True,
        "standing_version": FOR_GOOD,
        "presence_version": FOR_GOOD,
    }
    mine = (_me.tenant_id == tx.tenant_id, _me.customer_id.in_(people))
    await tx.execute(update(memberships).where(*mine, _me.presence_version < FOR_GOOD).values(gone))


def is_erased(membership: Any) -> bool:
    """True for the membership of somebody who was erased."""
    return bool(membership.presence_version == FOR_GOOD)


async def mark(tx: Tx, now: Mapping[UUID, UUID]) -> None:
    """Says of memberships that were heard of late who the members are by now."""
    for customer_id, survivor_id in sorted(now.items()):
        if survivor_id != customer_id:
            await _inherit(tx, customer_id, survivor_id)


def _undone_key(source_id: UUID) -> str:
    return f"unmerged:{source_id}"


# ---------------------------------------------------------------------- there


async def _apply(tx: Tx, of: Merge, survivor_id: UUID) -> None:
    joined = await _inherit(tx, of.source_id, survivor_id)
    theirs = select(_me.business_id).where(_me.tenant_id == tx.tenant_id, _me.customer_id == of.source_id)
    here = (await tx.execute(theirs)).scalars().all()
    by_id = {
        row.program_id: programs.program_of(row)
        for business_id in sorted(here)
        for row in await programs.of_business(tx, business_id)
    }
    await tx.execute(writing.BY_KEY)
    redeemed = await _lock_redemptions(tx, customer_id=of.source_id)
    await _lock_orders(tx, of.source_id)
    await households.lock(tx, [of.source_id, survivor_id])
    members = [(each, customer) for each in by_id for customer in (of.source_id, survivor_id)]
    opened = await writing.open_accounts(tx, members, by_id) if members else {}
    books = await reading.books(tx, opened.values(), by_id, lock=True)
    owned: list[Owned] = []
    pairs: list[tuple[Program, UUID, UUID, Moved]] = []
    for program_id, program in sorted(by_id.items()):
        source_id, target_id = opened[program_id, of.source_id], opened[program_id, survivor_id]
        moved = rules.merge(books[source_id], books[target_id], f"merge:{of.operation_id}")
        pairs.append((program, source_id, target_id, moved))
        owned.append(Owned(books[source_id], program, of.source_id, survivor_id))
        owned.append(Owned(books[target_id], program, survivor_id, of.source_id))
    await writing.save(tx, owned)
    bought = (_o.tenant_id == tx.tenant_id, _o.customer_id == of.source_id)
    ordered = await tx.execute(
        update(orders).where(*bought).values(customer_id=survivor_id).returning(_o.order_id)
    )
    note = {
        "joined": joined,
        "orders": [str(each) for each in ordered.scalars()],
        "referrals": await referrals.move(tx, of.source_id, survivor_id),
        "households": await households.move(tx, of.source_id, survivor_id),
    }
    holds = (_m.tenant_id == tx.tenant_id, _m.operation_id == of.operation_id)
    await tx.execute(
        update(merges)
        .where(*holds)
        .values(survivor_id=survivor_id, step=new_id(), moved=note, merged_at=tx.now, undone_at=None)
    )
    for program, source_id, target_id, moved in pairs:
        await _move_rows(tx, of, program, source_id, target_id, moved, redeemed)


async def _move_rows(
    tx: Tx,
    of: Merge,
    program: Program,
    source_id: UUID,
    target_id: UUID,
    moved: Moved,
    redeemed: Sequence[UUID],
) -> None:
    """What hangs on an account besides points; `redeemed` are the redemptions that are locked.

    Raises Conflict if there is one more: whoever holds it may wait for the account.
    """
    way: dict[str, Any] = {"tenant": tx.tenant_id, "from": source_id, "to": target_id}
    await _move_holds(tx, target_id, moved.holds, moved.lots)
    judged = (await tx.execute(_JUDGED, {**way, "only": None})).scalars().all()
    awarded = (await tx.execute(_AWARDS, {**way, "sources": None, "rules": None})).all()
    rewards = (await tx.execute(_REDEMPTIONS, {**way, "only": list(redeemed)})).scalars().all()
    if await tx.scalar(_HAS_REDEMPTIONS, way):
        raise Conflict
    cards = (await tx.execute(_CARDS, {"tenant": tx.tenant_id, "account": source_id})).all()
    for card in cards:
        await _shift(tx, program, card.rule_id, source_id, target_id, card.stamps, card.filled)
    stamped = (await tx.execute(_STAMPS, {**way, "orders": None, "rules": None})).all()
    await tx.execute(update(accounts).where(*_row(tx, source_id)).values(merged_into=target_id))
    tier = await _raise(tx, program, source_id, target_id)
    note = {
        "lots": [[str(origin), str(twin)] for origin, twin in moved.lots],
        "holds": [str(each) for each in moved.holds],
        "debt": moved.debt,
        "shortfall": moved.shortfall,
        "rewards": [str(each) for each in rewards],
        "judged": [str(each) for each in judged],
        "awards": [[row.source, str(row.rule_id)] for row in awarded],
        "cards": [[str(card.rule_id), card.stamps, card.filled] for card in cards],
        "stamps": [[str(row.order_id), str(row.rule_id)] for row in stamped],
        "tier": tier,
    }
    fresh = insert(merged_accounts).values(
        tenant_id=tx.tenant_id,
        operation_id=of.operation_id,
        source_account_id=source_id,
        target_account_id=target_id,
        program_id=program.program_id,
        business_id=program.business_id,
        moved=note,
        lacking=0,
    )
    again = {"target_account_id": fresh.excluded.target_account_id, "moved": fresh.excluded.moved}
    await tx.execute(fresh.on_conflict_do_update(constraint="merged_accounts_pkey", set_=again))


async def _inherit(tx: Tx, source_id: UUID, survivor_id: UUID) -> list[str]:
    """Makes the survivor a member wherever the source is one; gives the businesses where they were none."""
    theirs = select(memberships).where(_me.tenant_id == tx.tenant_id, _me.customer_id == source_id)
    rows = (await tx.execute(theirs.order_by(_me.business_id).with_for_update())).all()
    joined = []
    for row in rows:
        if row.joined_at is None or not row.present:
            continue
        fresh = insert(memberships).values(
            tenant_id=tx.tenant_id,
            business_id=row.business_id,
            customer_id=survivor_id,
            joined_at=row.joined_at,
            blocked=row.blocked,
            guest=row.guest,
            present=True,
            deleted=False,
            standing_version=0,
            presence_version=0,
        )
        new = fresh.on_conflict_do_nothing().returning(_me.business_id)
        joined += [str(each) for each in (await tx.execute(new)).scalars()]
    mine = (_me.tenant_id == tx.tenant_id, _me.customer_id == source_id)
    await tx.execute(update(memberships).where(*mine).values(merged_into=survivor_id))
    return joined


# ---------------------------------------------------------------------- and back


async def _undo(tx: Tx, row: Any) -> None:
    moved_accounts = await queries.accounts_of(tx, row.operation_id)
    by_id = {
        each.program_id: programs.program_of(await programs.row(tx, each.program_id))
        for each in moved_accounts
    }
    await tx.execute(writing.BY_KEY)
    await _lock_orders(tx, row.survivor_id)
    for each in moved_accounts:
        await tx.execute(update(accounts).where(*_row(tx, each.source_account_id)).values(merged_into=None))
    notes = {each.source_account_id: await _all_moved(tx, each, row.merged_at) for each in moved_accounts}
    ids = [account for each in moved_accounts for account in (each.source_account_id, each.target_account_id)]
    origins = [origin for note in notes.values() for origin, _ in note.lots]
    books = await reading.books(tx, ids, by_id, lock=True, more_lots=origins)
    owned: list[Owned] = []
    lacking: dict[UUID, int] = {}
    for each in moved_accounts:
        note, program = notes[each.source_account_id], by_id[each.program_id]
        source, target = books[each.source_account_id], books[each.target_account_id]
        spent = await queries.spent(tx, [twin for _, twin in note.lots], note.holds)
        lacking[each.source_account_id] = rules.unmerge(
            source, target, note, spent, f"merge:{each.operation_id}"
        )
        owned.append(Owned(source, program, row.source_id, row.survivor_id))
        owned.append(Owned(target, program, row.survivor_id, row.source_id))
    await writing.save(tx, owned)
    bought = (
        _o.tenant_id == tx.tenant_id,
        _o.customer_id == row.survivor_id,
        _o.order_id.in_([UUID(each) for each in row.moved["orders"]]),
    )
    await tx.execute(update(orders).where(*bought).values(customer_id=row.source_id))
    mine = (_me.tenant_id == tx.tenant_id, _me.customer_id == row.source_id)
    await tx.execute(update(memberships).where(*mine).values(merged_into=None))
    unheard = (
        _me.tenant_id == tx.tenant_id,
        _me.customer_id == row.survivor_id,
        _me.business_id.in_([UUID(each) for each in row.moved["joined"]]),
        _me.presence_version == 0,
    )
    await tx.execute(update(memberships).where(*unheard).values(present=False))
    await referrals.move_back(tx, row.moved.get("referrals", {}), row.source_id, row.survivor_id)
    await households.move_back(tx, row.moved.get("households", {}), row.source_id, row.survivor_id)
    this = (_m.tenant_id == tx.tenant_id, _m.operation_id == row.operation_id)
    await tx.execute(update(merges).where(*this).values(undone_at=tx.now))
    for each in moved_accounts:
        await _move_rows_back(tx, by_id[each.program_id], each, lacking[each.source_account_id])


async def _all_moved(tx: Tx, row: Any, since: datetime) -> Moved:
    """What moved, and what came back to the source's lots since: spent before the merge, returned after it.

    What the source gave to the target before is the target's.
    """
    noted = _moved(row.moved)
    where = {
        "tenant": tx.tenant_id,
        "from": row.source_account_id,
        "to": row.target_account_id,
        "since": since,
    }
    known = {twin for _, twin in noted.lots}
    more = [(each.origin_lot_id, each.lot_id) for each in await tx.execute(_RETURNED, where)]
    return replace(noted, lots=[*noted.lots, *(pair for pair in more if pair[1] not in known)])


async def _move_rows_back(tx: Tx, program: Program, row: Any, lacking: int) -> None:
    note, source_id, target_id = row.moved, row.source_account_id, row.target_account_id
    moved = _moved(note)
    way: dict[str, Any] = {"tenant": tx.tenant_id, "from": target_id, "to": source_id}
    await _move_holds(tx, source_id, moved.holds, [(twin, origin) for origin, twin in moved.lots])
    await tx.execute(_JUDGED, {**way, "only": [UUID(each) for each in note["judged"]]})
    await tx.execute(_REDEMPTIONS, {**way, "only": [UUID(each) for each in note["rewards"]]})
    sources, of_rules = [each[0] for each in note["awards"]], [UUID(each[1]) for each in note["awards"]]
    await tx.execute(_AWARDS, {**way, "sources": sources, "rules": of_rules})
    for rule_id, stamps, filled in note["cards"]:
        await _shift(tx, program, UUID(rule_id), target_id, source_id, stamps, filled)
    put = [UUID(each[0]) for each in note["stamps"]], [UUID(each[1]) for each in note["stamps"]]
    await tx.execute(_STAMPS, {**way, "orders": put[0], "rules": put[1]})
    await _lower(tx, program, source_id, target_id, note["tier"])
    this = (
        merged_accounts.c.tenant_id == tx.tenant_id,
        merged_accounts.c.operation_id == row.operation_id,
        merged_accounts.c.source_account_id == source_id,
    )
    await tx.execute(update(merged_accounts).where(*this).values(lacking=lacking))


# ---------------------------------------------------------------------- both ways


async def _move_holds(tx: Tx, to: UUID, holds: Sequence[UUID], lots: Sequence[tuple[UUID, UUID]]) -> None:
    if not holds:
        return
    open_ones = (await tx.execute(_HOLDS, {"tenant": tx.tenant_id, "to": to, "holds": list(holds)})).scalars()
    where = {
        "tenant": tx.tenant_id,
        "holds": list(open_ones),
        "from_lots": [before for before, _ in lots],
        "to_lots": [after for _, after in lots],
    }
    await tx.execute(_HOLD_LOTS, where)


async def _shift(
    tx: Tx, program: Program, rule_id: UUID, giver: UUID, taker: UUID, stamps: int, filled: int
) -> None:
    """Moves stamps from one member's card to another's."""
    what = {"tenant": tx.tenant_id, "rule": rule_id, "stamps": stamps, "filled": filled}
    await tx.execute(_TAKE_CARD, {**what, "account": giver})
    await tx.execute(_CARD, {**what, "account": taker, "business": program.business_id})


async def _raise(tx: Tx, program: Program, source_id: UUID, target_id: UUID) -> dict[str, Any]:
    """Gives the survivor the higher tier; gives what it was, and what it is now."""
    of = await tiers_queries.ladder(tx, program.program_id)
    known = await tiers_queries.standings_of(tx, [source_id, target_id])
    lowest = Standing(tier=of.tiers[0].name)
    theirs, before = known.get(source_id, lowest), known.get(target_id, lowest)
    if of.rank(theirs.tier) > of.rank(before.tier):
        await tiers.put(tx, program, of, target_id, before, theirs)
    await tiers.judge(tx, program, of, [target_id])
    after = (await tiers_queries.standings_of(tx, [target_id])).get(target_id, lowest)
    return {"before": _plain(before), "after": _plain(after)}


async def _lower(tx: Tx, program: Program, source_id: UUID, target_id: UUID, was: Mapping[str, Any]) -> None:
    """Gives the survivor the tier of before, unless something else changed it; then both are judged."""
    of = await tiers_queries.ladder(tx, program.program_id)
    lowest = Standing(tier=of.tiers[0].name)
    now = (await tiers_queries.standings_of(tx, [target_id])).get(target_id, lowest)
    before = _standing(was["before"])
    if _plain(now) == was["after"] and was["after"] != was["before"]:
        await tiers.put(tx, program, of, target_id, now, before)
    await tiers.judge(tx, program, of, sorted([source_id, target_id]))


def _plain(standing: Standing) -> dict[str, Any]:
    at = {name: getattr(standing, name) for name in Standing.__slots__ if name != "version"}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in at.items()}


def _standing(plain: Mapping[str, Any]) -> Standing:
    dates = {
        name: datetime.fromisoformat(value)
        for name, value in plain.items()
        if value and name in {"since", "grace_until", "review_at", "override_until"}
    }
    return Standing(**{**plain, **dates})


async def _lock_redemptions(
    tx: Tx, only: Sequence[UUID] = (), *, customer_id: UUID | None = None
) -> list[UUID]:
    """Redemptions are locked before orders and accounts; those of a customer, or some."""
    where = {"tenant": tx.tenant_id, "only": list(only), "customer": customer_id}
    return list((await tx.execute(_LOCK_REDEMPTIONS, where)).scalars())


async def _lock_orders(tx: Tx, customer_id: UUID) -> None:
    """Orders are locked before accounts."""
    theirs = select(_o.order_id).where(_o.tenant_id == tx.tenant_id, _o.customer_id == customer_id)
    await tx.execute(theirs.order_by(_o.order_id).with_for_update())


def _moved(note: Mapping[str, Any]) -> Moved:
    return Moved(
        lots=[(UUID(origin), UUID(twin)) for origin, twin in note["lots"]],
        holds=[UUID(each) for each in note["holds"]],
        debt=note["debt"],
        shortfall=note["shortfall"],
    )


def _row(tx: Tx, account_id: UUID) -> tuple[Any, Any]:
    return _a.tenant_id == tx.tenant_id, _a.account_id == account_id
