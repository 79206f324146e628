"""Reads of the ledger: books as they are now, balances of past instants, statements."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Uuid, and_, bindparam, func, literal, or_, select, text, tuple_

from libs.crypto import Column
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.pipeline import Query
from services.loyalty.ledger import reading, rules
from services.loyalty.ledger.rules import Book
from services.loyalty.ledger.tables import (
    accounts,
    allocations,
    awards,
    entries,
    hold_lots,
    holds,
    judged_orders,
    lots,
    orders,
)
from services.loyalty.problems import (
    HoldNotFound,
    MembershipFrozen,
    MembershipNotFound,
    OrderCancelled,
    ProgramInactive,
    TransactionNotFound,
)
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import Context, Rule
from services.loyalty.segments.queries import segments_of
from services.loyalty.tables import memberships
from services.loyalty.tiers import queries as tiers

SEALED = Column("entries", "sealed")

_a, _e, _l, _h, _hl = accounts.c, entries.c, lots.c, holds.c, hold_lots.c
_al, _m, _j, _w, _k = allocations.c, memberships.c, judged_orders.c, awards.c, subject_keys.c
_o = orders.c


_MEMBER = Query(
    text("""
    select m.* from memberships m
    where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = :customer and m.present
      and m.joined_at is not null and m.merged_into is null
""")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A member's points at an instant."""

    customer_id: UUID
    balance: int
    pending: int
    held: int
    lifetime: int
    shortfall: int
    next_expiry_points: int
    next_expiry_at: datetime | None
    as_of: datetime

    @property
    def spendable(self) -> int:
        """What can be spent."""
        return max(self.balance - self.held, 0)


async def member(tx: Tx, business_id: UUID, customer_id: UUID) -> Any:
    """A customer's membership at a business. Raises MembershipNotFound."""
    where = {"tenant": tx.tenant_id, "business": business_id, "customer": customer_id}
    _, found = await tx.together((reading.FIND_BY_KEY, {}), (_MEMBER, where))
    if not found:
        raise MembershipNotFound
    return found[0]


async def members(tx: Tx, business_id: UUID, customer_ids: Iterable[UUID]) -> set[UUID]:
    """Those of these customers who are members of a business."""
    wanted = select(_m.customer_id).where(
        _m.tenant_id == tx.tenant_id,
        _m.business_id == business_id,
        _m.customer_id.in_(list(customer_ids)),
        _m.present,
        _m.joined_at.is_not(None),
        _m.merged_into.is_(None),
    )
    return set((await tx.execute(wanted)).scalars())


async def free_member(tx: Tx, program: Program, customer_id: UUID) -> None:
    """Raises MembershipNotFound, MembershipFrozen, ProgramInactive unless the member may earn and redeem."""
    found = await member(tx, program.business_id, customer_id)
    if found.blocked or found.deleted:
        raise MembershipFrozen
    if not program.active:
        raise ProgramInactive


async def spendable_on(tx: Tx, order_id: UUID | None) -> None:
    """Raises OrderCancelled for an order that is known as cancelled.

    Asked under the account's lock: a cancellation that comes later finds what is spent.
    """
    if order_id is not None:
        wanted = select(_o.cancelled).where(_o.tenant_id == tx.tenant_id, _o.order_id == order_id)
        if await tx.scalar(wanted):
            raise OrderCancelled(order_id=order_id)


async def account_id(tx: Tx, program_id: UUID, customer_id: UUID) -> UUID | None:
    """The account of a customer in a program; None before anything happened."""
    wanted = select(_a.account_id).where(
        _a.tenant_id == tx.tenant_id, _a.program_id == program_id, _a.customer_id == customer_id
    )
    found: UUID | None = await tx.scalar(wanted)
    return found


async def balance(tx: Tx, program: Program, customer_id: UUID, as_of: datetime | None) -> Balance:
    """A member's points now, or as they were. What holds by itself counts, booked or not."""
    mine = await account_id(tx, program.program_id, customer_id)
    if mine is None:
        return Balance(
            customer_id=customer_id,
            balance=0,
            pending=0,
            held=0,
            lifetime=0,
            shortfall=0,
            next_expiry_points=0,
            next_expiry_at=None,
            as_of=as_of or tx.now,
        )
    book = (await reading.books(tx, [mine], {program.program_id: program}, lock=False))[mine]
    if as_of is not None and as_of < tx.now:
        return await _past(tx, book, customer_id, as_of)
    account = book.account
    lapsing = sorted(
        (lot.expires_at, lot.free)
        for lot in book.lots.values()
        if lot.expires_at is not None and lot.free > 0 and not lot.pending
    )
    first = lapsing[0][0] if lapsing else None
    return Balance(
        customer_id=customer_id,
        balance=account.balance,
        pending=account.pending,
        held=account.held,
        lifetime=account.lifetime,
        shortfall=account.shortfall,
        next_expiry_points=sum(points for at, points in lapsing if at == first),
        next_expiry_at=first,
        as_of=tx.now,
    )


async def _past(tx: Tx, book: Book, customer_id: UUID, as_of: datetime) -> Balance:
    mine = book.account.account_id
    counted = select(
        func.coalesce(func.sum(_e.balance_points), 0),
        func.coalesce(func.sum(_e.pending_points), 0),
        func.coalesce(func.sum(_e.points).filter(_e.kind == rules.EARN), 0)
        + func.coalesce(func.sum(_e.lifetime_points), 0),
        func.coalesce(func.sum(_e.shortfall), 0),
    ).where(_e.tenant_id == tx.tenant_id, _e.account_id == mine, _e.effective_at <= as_of)
    points, pending, lifetime, shortfall = (int(each) for each in (await tx.execute(counted)).one())
    for entry in book.entries:  # what settling would book
        if entry.effective_at <= as_of:
            points += entry.balance_points
            pending += entry.pending_points
    held = select(func.coalesce(func.sum(_h.points), 0)).where(
        _h.tenant_id == tx.tenant_id,
        _h.account_id == mine,
        _h.created_at <= as_of,
        _h.expires_at > as_of,
        or_(_h.closed_at.is_(None), _h.closed_at > as_of),
    )
    return Balance(
        customer_id=customer_id,
        balance=points,
        pending=pending,
        held=int(await tx.scalar(held)),
        lifetime=lifetime,
        shortfall=shortfall,
        next_expiry_points=0,
        next_expiry_at=None,
        as_of=as_of,
    )


_ENTRY: Select[Any] = (
    select(entries, _a.customer_id, _a.program_id, _k.epoch, _k.wrapped)
    .join(accounts, and_(_a.tenant_id == _e.tenant_id, _a.account_id == _e.account_id))
    .outerjoin(subject_keys, and_(_k.tenant_id == _e.tenant_id, _k.key_id == _e.key_id))
)

_LINE = Query(
    text("""
    with recursive line as (
        select a.account_id from accounts a
        where a.tenant_id = :tenant and a.program_id = :program and a.customer_id = :customer
        union
        select a.account_id from line l join accounts a on a.tenant_id = :tenant and a.merged_into = l.account_id
    )
    select l.account_id from line l
""")
)
_ENTRY_OF = Query(
    _ENTRY.where(
        _e.tenant_id == bindparam("tenant", type_=Uuid), _e.entry_id == bindparam("entry", type_=Uuid)
    )
)
_MOVED = Query(
    text("""
    select l.lot_id, l.points, l.expires_at
    from entries e join lots l on l.tenant_id = e.tenant_id and l.account_id = e.account_id and l.entry_id = e.entry_id
    where e.tenant_id = :tenant and e.entry_id = :entry
    union all
    select x.lot_id, x.points, l.expires_at from allocations x
    join lots l on l.tenant_id = x.tenant_id and l.lot_id = x.lot_id
    where x.tenant_id = :tenant and x.entry_id = :entry
""")
)


async def line_of(tx: Tx, program_id: UUID, customer_id: UUID) -> list[UUID]:
    """A customer's account in a program, and all that were merged into it; none if there is no account."""
    where = {"tenant": tx.tenant_id, "program": program_id, "customer": customer_id}
    _, rows = await tx.together((reading.FIND_BY_KEY, {}), (_LINE, where))
    return [row.account_id for row in rows]


async def entry(tx: Tx, entry_id: UUID) -> Any:
    """An entry of the caller's businesses. Raises TransactionNotFound."""
    return (await entry_and_moved(tx, entry_id))[0]


async def page(
    tx: Tx,
    line: Sequence[UUID],
    *,
    size: int,
    before: Sequence[Any],
    kinds: Sequence[int] = (),
    order_id: UUID | None = None,
    booked_after: datetime | None = None,
    booked_before: datetime | None = None,
) -> list[Row[Any]]:
    """Up to `size` entries of an account and those merged into it (`line_of`), newest first.

    `before` is the `place` of the last one that was seen.
    """
    wanted = _ENTRY.where(_e.tenant_id == tx.tenant_id, _e.account_id.in_(line))
    key = [_e.seq] if len(before or line) == 1 else [_e.booked_at, _e.seq, _e.entry_id]
    if before:
        wanted = wanted.where(
            tuple_(*key) < tuple_(*(literal(last, of.type) for of, last in zip(key, before, strict=True)))
        )
    if kinds:
        wanted = wanted.where(_e.kind.in_(kinds))
    if order_id:
        wanted = wanted.where(_e.order_id == order_id)
    if booked_after:
        wanted = wanted.where(_e.booked_at >= booked_after)
    if booked_before:
        wanted = wanted.where(_e.booked_at < booked_before)
    return list((await tx.execute(wanted.order_by(*(each.desc() for each in key)).limit(size))).all())


def place(row: Row[Any], line: Sequence[UUID]) -> list[Any]:
    """Where an entry is in a list of these accounts' entries: of one account, by its number; of several, by time."""
    return [row.seq] if len(line) == 1 else [row.booked_at, row.seq, row.entry_id]


async def entry_and_moved(tx: Tx, entry_id: UUID) -> tuple[Any, list[Any]]:
    """As `entry`, and what it moved: rows (lot_id, points, expires_at); of one that made lots, those."""
    where = {"tenant": tx.tenant_id, "entry": entry_id}
    _, found, moved = await tx.together((reading.FIND_BY_KEY, {}), (_ENTRY_OF, where), (_MOVED, where))
    if not found or not tx.caller.sees(found[0].business_id):
        raise TransactionNotFound
    return found[0], moved


async def shares(tx: Tx, entry_ids: Iterable[UUID]) -> dict[UUID, dict[UUID, int]]:
    """What each of these entries took from lots and nobody gave back yet: by entry, then by lot."""
    ids = list(entry_ids)
    if not ids:
        return {}
    root = func.coalesce(_e.reverses_id, _e.entry_id)
    wanted = (
        select(root.label("root"), _al.lot_id, (-func.sum(_al.points)).label("points"))
        .join(entries, and_(_e.tenant_id == _al.tenant_id, _e.entry_id == _al.entry_id))
        .where(_al.tenant_id == tx.tenant_id, or_(_e.entry_id.in_(ids), _e.reverses_id.in_(ids)))
        .group_by(root, _al.lot_id)
    )
    found: dict[UUID, dict[UUID, int]] = {}
    for row in await tx.execute(wanted):
        if row.points > 0:
            found.setdefault(row.root, {})[row.lot_id] = int(row.points)
    return found


async def returned(tx: Tx, entry_ids: Iterable[UUID]) -> dict[UUID, int]:
    """How much of each redemption came back, by its entry."""
    wanted = (
        select(_e.reverses_id, func.sum(_e.points).label("points"))
        .where(_e.tenant_id == tx.tenant_id, _e.reverses_id.in_(list(entry_ids)))
        .group_by(_e.reverses_id)
    )
    return {row.reverses_id: int(row.points) for row in await tx.execute(wanted)}


async def given_away(tx: Tx, account: UUID, since: datetime) -> int:
    """How many points a member gave to others since an instant.

    Merges, which nobody does by hand, and what is shared in a household do not count.
    """
    wanted = select(func.coalesce(-func.sum(_e.points), 0)).where(
        _e.tenant_id == tx.tenant_id,
        _e.account_id == account,
        _e.effective_at >= since,
        _e.kind == rules.TRANSFER,
        _e.points < 0,
        _e.actor != "",
        _e.source == "",
    )
    return int(await tx.scalar(wanted))


async def hold_row(tx: Tx, hold_id: UUID) -> Row[Any]:
    """A hold of the caller's businesses. Raises HoldNotFound."""
    wanted = (
        select(holds, _a.customer_id, _a.program_id)
        .join(accounts, and_(_a.tenant_id == _h.tenant_id, _a.account_id == _h.account_id))
        .where(_h.tenant_id == tx.tenant_id, _h.hold_id == hold_id)
    )
    found = (await tx.execute(wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise HoldNotFound
    return found


async def context(
    tx: Tx, program: Program, customer_id: UUID, of_program: Sequence[Rule], at: datetime
) -> Context:
    """What is true of a member to whom an order of that instant would be judged. Raises MembershipNotFound."""
    found = await member(tx, program.business_id, customer_id)
    mine = await account_id(tx, program.program_id, customer_id)
    day = at.astimezone(program.zone).date()
    given = await given_before(tx, [mine], of_program, day, day) if mine else []
    tier = await tiers.tier_of(tx, program, mine)
    theirs = await segments_of(tx, [customer_id])
    return Context(
        tier=tier.name,
        tier_percent=tier.earning_percent,
        segment_ids=theirs.get((program.business_id, customer_id), frozenset()),
        number=1 + (await orders_before(tx, [mine])).get(mine, 0) if mine else 1,
        given_day={str(row.rule_id): int(row.points) for row in given if row.local_day == day},
        given_month=_by_rule(given, day),
        refused=refusal(found, program),
    )


def refusal(membership: Row[Any], program: Program) -> str:
    """Why a member earns nothing in a program, in UPPER_SNAKE; "" if nothing stands in the way."""
    if not membership.present:
        return "NO_MEMBER"
    if membership.deleted:
        return "MEMBER_DELETED"
    if membership.blocked:
        return "MEMBER_BLOCKED"
    if membership.guest and program.settings.guests_excluded:
        return "GUEST"
    return "" if program.active else "PROGRAM_INACTIVE"


async def orders_before(tx: Tx, account_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many orders of each account were judged."""
    wanted = (
        select(_j.account_id, func.count().label("orders"))
        .where(_j.tenant_id == tx.tenant_id, _j.account_id.in_(account_ids))
        .group_by(_j.account_id)
    )
    return {row.account_id: int(row.orders) for row in await tx.execute(wanted)}


async def given_before(
    tx: Tx, account_ids: Sequence[UUID], of_program: Sequence[Rule], first: date, last: date
) -> list[Row[Any]]:
    """What rules that are capped by day or month gave in the months of these days.

    Rows (account_id, rule_id, local_day, points).
    """
    capped = [rule.rule_id for rule in of_program if rule.capped_by_time]
    if not capped:
        return []
    wanted = (
        select(_w.account_id, _w.rule_id, _w.local_day, func.sum(_w.points).label("points"))
        .where(
            _w.tenant_id == tx.tenant_id,
            _w.account_id.in_(account_ids),
            _w.rule_id.in_(capped),
            _w.local_day >= first.replace(day=1),
            _w.local_day < date(last.year + last.month // 12, last.month % 12 + 1, 1),
        )
        .group_by(_w.account_id, _w.rule_id, _w.local_day)
    )
    return list((await tx.execute(wanted)).all())


def _by_rule(given: Iterable[Row[Any]], day: date) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in given:
        if (row.local_day.year, row.local_day.month) == (day.year, day.month):
            found[str(row.rule_id)] = found.get(str(row.rule_id), 0) + int(row.points)
    return found


async def owners(tx: Tx, account_ids: Iterable[UUID]) -> list[Row[Any]]:
    """Whose accounts these are: rows (account_id, program_id, customer_id)."""
    wanted = select(_a.account_id, _a.program_id, _a.customer_id).where(
        _a.tenant_id == tx.tenant_id, _a.account_id.in_(list(account_ids))
    )
    return list((await tx.execute(wanted)).all())
