"""What a merge does to two books, and how it is undone: every lot knows where it came from, and goes back there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.loyalty.ledger.rules import OPEN, TRANSFER, Book, Hold, Lot


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one account gave to another: lots (origin, twin), open holds, and what it owed."""

    lots: Sequence[tuple[UUID, UUID]] = ()
    holds: Sequence[UUID] = ()
    debt: int = 0
    shortfall: int = 0


def merge(source: Book, target: Book, why: str) -> Moved:
    """Gives all that an account has to another: a twin with the same dates for each lot, its holds, its debt.

    One pair of `transfer` entries; none if there is nothing to give.
    """
    giver, taker = source.account, target.account
    lots = sorted((lot for lot in source.lots.values() if lot.remaining), key=lambda lot: lot.lot_id)
    holds = _open(source)
    balance, pending, debt, shortfall = giver.balance, giver.pending, giver.debt, giver.shortfall
    if not (lots or debt or shortfall):
        return Moved()
    given_id, taken_id = source.new_id(), target.new_id()
    twins: dict[UUID, UUID] = {}
    for lot in lots:
        twins[lot.lot_id] = _twin(target, taken_id, lot).lot_id
        source._move(given_id, lot, -lot.remaining)
        lot.held = 0
    giver.held, taker.held = 0, taker.held + giver.held
    giver.debt, taker.debt = 0, taker.debt + debt
    giver.shortfall, taker.shortfall = 0, taker.shortfall + shortfall
    for hold in holds:
        _carry(hold, source, target, twins)
    _pair(source, target, given_id, taken_id, balance, pending, shortfall, why)
    return Moved(
        lots=list(twins.items()),
        holds=[hold.hold_id for hold in holds],
        debt=debt,
        shortfall=shortfall,
    )


def unmerge(source: Book, target: Book, moved: Moved, spent: Mapping[UUID, int], why: str) -> int:
    """Gives back what a merge moved, each lot what is left of its twin; gives how many points are lacking.

    The books have both sides of all that moved. `spent` is what the target spent of each twin for good: it comes out
    of the target's other lots, as far as they go. One pair of `transfer` entries.
    """
    giver, taker = target.account, source.account
    given_id, taken_id = target.new_id(), source.new_id()
    holds = [hold for hold in _open(target) if hold.hold_id in set(moved.holds)]
    with_holds: dict[UUID, int] = {}
    for hold in holds:
        for lot_id, points in hold.lots.items():
            with_holds[lot_id] = with_holds.get(lot_id, 0) + points
    balance = pending = 0
    needs: list[tuple[Lot, int]] = []
    for origin_id, twin_id in moved.lots:
        lot, twin, need = source.lots[origin_id], target.lots.get(twin_id), spent.get(twin_id, 0)
        if twin is not None and twin.remaining:
            own = with_holds.get(twin_id, 0)
            others = twin.held - own
            back = twin.remaining - others
            need += others
            twin.held, lot.held = others, lot.held + own
            giver.held, taker.held = giver.held - own, taker.held + own
            still, lot.available_at, lot.expires_at = twin.pending, twin.available_at, twin.expires_at
            if back:
                target._move(given_id, twin, -back)
                source._move(taken_id, lot, back)
                lot.pending = still
            source._touch(lot)
            balance += 0 if lot.pending else back
            pending += back if lot.pending else 0
        if need and not source._is_past(lot):
            needs.append((lot, need))
    lacking = 0
    free = max(giver.balance - balance - giver.held, 0)
    for lot, need in needs:
        left = min(need, free, lot.points - lot.remaining)
        lacking += need - left
        free -= left
        balance += left
        for other in target._spendable_lots():
            taken = min(other.free, left)
            if taken:
                left -= taken
                target._move(given_id, other, -taken)
                source._move(taken_id, lot, taken)
        assert left == 0, "the balance is what is left of the lots"
    debt, shortfall = min(moved.debt, giver.debt), min(moved.shortfall, giver.shortfall)
    giver.debt, taker.debt = giver.debt - debt, taker.debt + debt
    giver.shortfall, taker.shortfall = giver.shortfall - shortfall, taker.shortfall + shortfall
    origins = {twin: origin for origin, twin in moved.lots}
    for hold in holds:
        _carry(hold, target, source, origins)
    if balance or pending or debt or shortfall or moved.lots:
        _pair(target, source, given_id, taken_id, balance - debt, pending, shortfall, why)
    return lacking


def _twin(target: Book, entry_id: UUID, lot: Lot) -> Lot:
    twin = target._new_lot(
        entry_id,
        lot.remaining,
        expires_at=lot.expires_at,
        pending=lot.pending,
        available_at=lot.available_at,
        order_id=lot.order_id,
        origin_lot_id=lot.lot_id,
        pooled=lot.pooled,
    )
    twin.held, twin.earned_at = lot.held, lot.earned_at
    return twin


def _open(book: Book) -> list[Hold]:
    return sorted((hold for hold in book.holds.values() if hold.state == OPEN), key=lambda hold: hold.hold_id)


def _carry(hold: Hold, giver: Book, taker: Book, lots: Mapping[UUID, UUID]) -> None:
    """A hold goes with its lots."""
    del giver.holds[hold.hold_id]
    taker.holds[hold.hold_id] = hold
    hold.lots = {lots[lot_id]: points for lot_id, points in hold.lots.items()}


def _pair(
    giver: Book,
    taker: Book,
    given_id: UUID,
    taken_id: UUID,
    balance: int,
    pending: int,
    shortfall: int,
    why: str,
) -> None:
    points = balance + pending
    giver._enter(
        TRANSFER,
        given_id,
        -points,
        -balance,
        -pending,
        counterpart_id=taken_id,
        shortfall=-shortfall,
        source=why,
    )
    taker._enter(
        TRANSFER,
        taken_id,
        points,
        balance,
        pending,
        counterpart_id=given_id,
        shortfall=shortfall,
        source=why,
    )
