"""Reads of codes and referrals."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, bindparam, func, select, text

from libs.db import Tx
from services.loyalty.ledger.tables import orders
from services.loyalty.problems import ReferralNotFound
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import beginning
from services.loyalty.referrals import rules
from services.loyalty.referrals.rules import Bought
from services.loyalty.referrals.tables import referral_codes, referrals

_c, _r, _o = referral_codes.c, referrals.c, orders.c

# Who brought a customer, who brought that one, and so on.
_ABOVE = text("""
    with recursive above as (
        select r.referrer_id from referrals r
        where r.tenant_id = :tenant and r.program_id = :program and r.friend_id = :customer
          and r.referrer_id is not null and r.state in (2, 3, 4, 5)
        union
        select r.referrer_id from above a
        join referrals r on r.tenant_id = :tenant and r.program_id = :program and r.friend_id = a.referrer_id
        where r.referrer_id is not null and r.state in (2, 3, 4, 5)
    )
    select exists (select from above where referrer_id = :other)
""")
# All lots that hold points of these entries, those that merges made of them too.
_LOTS = text("""
    with recursive mine as (
        select l.lot_id from entries e
        join lots l on l.tenant_id = :tenant and l.account_id = e.account_id and l.entry_id = e.entry_id
        where e.tenant_id = :tenant and e.entry_id = any(:entries)
        union
        select l.lot_id from mine m join lots l on l.tenant_id = :tenant and l.origin_lot_id = m.lot_id
    )
    select lot_id from mine
""").bindparams(bindparam("entries", type_=ARRAY(Uuid)))
_REPORT = text("""
    select state, reason, count(*) as referrals, count(registered_at) as registered,
           count(qualified_at) as qualified, count(rewarded_at) as rewarded,
           coalesce(sum(referrer_points) filter (where state = 5), 0) as referrer_points,
           coalesce(sum(friend_points) filter (where state = 5), 0) as friend_points
    from referrals
    where tenant_id = :tenant and program_id = :program and created_at >= :begin and created_at < :end
    group by state, reason order by state, reason
""")


async def code_row(tx: Tx, code: str) -> Row[Any] | None:
    """Whose a code is: a row with program_id, customer_id; None for a code that nobody has."""
    return (
        await tx.execute(select(referral_codes).where(_c.tenant_id == tx.tenant_id, _c.code == code))
    ).first()


async def code_of(tx: Tx, program_id: UUID, customer_id: UUID) -> str | None:
    """A member's own code in a program; None before it was asked for."""
    wanted = select(_c.code).where(
        _c.tenant_id == tx.tenant_id, _c.program_id == program_id, _c.customer_id == customer_id
    )
    found: str | None = await tx.scalar(wanted)
    return found


async def invitation(tx: Tx, code: str) -> Row[Any] | None:
    """The invitation with this code, locked."""
    wanted = select(referrals).where(_r.tenant_id == tx.tenant_id, _r.code == code)
    return (await tx.execute(wanted.with_for_update())).first()


async def referral(tx: Tx, referral_id: UUID, *, lock: bool = False) -> Row[Any]:
    """A referral of the caller's businesses. Raises ReferralNotFound."""
    wanted = select(referrals).where(_r.tenant_id == tx.tenant_id, _r.referral_id == referral_id)
    found = (await tx.execute(wanted.with_for_update() if lock else wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise ReferralNotFound
    return found


async def brought(tx: Tx, program_id: UUID, customer_id: UUID) -> Row[Any] | None:
    """How a customer was brought; the first counts."""
    wanted = select(referrals).where(
        _r.tenant_id == tx.tenant_id, _r.program_id == program_id, _r.friend_id == customer_id
    )
    return (await tx.execute(wanted.order_by(_r.registered_at, _r.referral_id).limit(1))).first()


async def page(
    tx: Tx,
    program_id: UUID,
    *,
    size: int,
    before: UUID | None,
    referrer_id: UUID | None = None,
    states: Sequence[int] = (),
) -> list[Row[Any]]:
    """Up to `size` referrals of a program, or of a member in it, newest first, those before an id."""
    wanted = select(referrals).where(_r.tenant_id == tx.tenant_id, _r.program_id == program_id)
    if referrer_id is not None:
        wanted = wanted.where(_r.referrer_id == referrer_id)
    if before is not None:
        wanted = wanted.where(_r.referral_id < before)
    if len(states) == 1:
        wanted = wanted.where(_r.state == text(str(int(states[0]))))  # a constant finds the partial index
    elif states:
        wanted = wanted.where(_r.state.in_([int(each) for each in states]))
    return list((await tx.execute(wanted.order_by(_r.referral_id.desc()).limit(size))).all())


async def count_open_invitations(tx: Tx, program_id: UUID, customer_id: UUID) -> int:
    """How many invitations of a member nobody has used yet."""
    wanted = select(func.count()).where(*_theirs(tx, program_id, customer_id), _r.state == rules.INVITED)
    return int(await tx.scalar(wanted))


async def points_for_friends(tx: Tx, program_id: UUID, customer_id: UUID) -> int:
    """Points that a member got for friends and that were not taken back."""
    wanted = select(func.coalesce(func.sum(_r.referrer_points), 0)).where(
        *_theirs(tx, program_id, customer_id), _r.state == rules.REWARDED
    )
    return int(await tx.scalar(wanted))


async def rewarded(
    tx: Tx, program_id: UUID, customer_id: UUID, but: UUID, since: datetime
) -> tuple[int, int]:
    """For how many friends, but for one referral, a member gets points: in all, and of those since an instant."""
    lately = func.count().filter(_r.qualified_at > since)
    wanted = select(func.count().label("in_all"), lately.label("lately")).where(
        *_theirs(tx, program_id, customer_id),
        _r.state.in_([rules.QUALIFIED, rules.REWARDED]),
        _r.referral_id != but,
    )
    row: Row[Any] = (await tx.execute(wanted)).one()
    return int(row.in_all), int(row.lately)


async def is_above(tx: Tx, program_id: UUID, customer_id: UUID, other: UUID) -> bool:
    """True if `other` brought the customer, or somebody who did, however far."""
    where = {"tenant": tx.tenant_id, "program": program_id, "customer": customer_id, "other": other}
    return bool(await tx.scalar(_ABOVE, where))


async def bought(tx: Tx, business_id: UUID, customer_id: UUID) -> list[Bought]:
    """The completed orders of a customer at a business."""
    wanted = select(orders).where(
        _o.tenant_id == tx.tenant_id, _o.business_id == business_id, _o.customer_id == customer_id
    )
    return [
        Bought(
            order_id=row.order_id,
            placed_at=row.placed_at,
            completed_at=row.completed_at,
            worth_minor=row.total_minor - row.refunded_minor,
            cancelled=row.cancelled,
        )
        for row in await tx.execute(wanted)
    ]


async def lots_of(tx: Tx, entry_ids: Iterable[UUID | None]) -> set[UUID]:
    """The lots with points that these entries gave, wherever they are by now."""
    ids = [each for each in entry_ids if each is not None]
    if not ids:
        return set()
    return set((await tx.execute(_LOTS, {"tenant": tx.tenant_id, "entries": ids})).scalars())


async def due(tx: Tx, most: int) -> list[UUID]:
    """Referrals that are to be looked at by now, the longest due first."""
    wanted = select(_r.referral_id).where(_r.tenant_id == tx.tenant_id, _r.due_at <= tx.now)
    return list((await tx.execute(wanted.order_by(_r.due_at, _r.referral_id).limit(most))).scalars())


async def report(tx: Tx, program: Program, first: date, last: date) -> list[Row[Any]]:
    """How many referrals that were made in these days are in which state, and why."""
    where = {
        "tenant": tx.tenant_id,
        "program": program.program_id,
        "begin": beginning(first, program.zone),
        "end": beginning(last + timedelta(days=1), program.zone),
    }
    return list((await tx.execute(_REPORT, where)).all())


def _theirs(tx: Tx, program_id: UUID, customer_id: UUID) -> tuple[Any, ...]:
    return _r.tenant_id == tx.tenant_id, _r.program_id == program_id, _r.referrer_id == customer_id
