"""How many may be in a household, what its members spend of each other's points, and how those go back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.loyalty.ledger.rules import TRANSFER, Book, Lot
from services.loyalty.problems import HouseholdFull, InsufficientPoints

# Sixteen letters and digits of Crockford's base 32: 80 bits by chance.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_BYTES = 10
INVITATION_HOLDS = timedelta(days=7)
# Why a member leaves.
LEFT, REMOVED, GONE, MERGED = "LEFT", "REMOVED", "GONE", "MERGED"


def code_of(by_chance: bytes) -> str:
    """The code that these CODE_BYTES bytes make."""
    number = int.from_bytes(by_chance[:CODE_BYTES], "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))


def plain(code: str) -> str:
    """What of a code counts: its letters and digits, in upper case."""
    return "".join(each for each in code if each.isalnum()).upper()


def make_room(taken: int, largest: int) -> None:
    """Raises HouseholdFull unless one more may come."""
    if taken >= largest:
        raise HouseholdFull(largest=largest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What went from one account to another: the entries on both sides."""

    giver: UUID
    taker: UUID
    given_id: UUID
    taken_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a pooled lot came from: a lot of an account that is of nobody else, and why."""

    account_id: UUID
    lot_id: UUID
    source: str


def offered(givers: Iterable[Book]) -> list[tuple[Book, Lot, int]]:
    """What others may spend of each lot, those that lapse first before others: (its book, lot, points)."""
    books = list(givers)
    left = {book.account.account_id: book.own for book in books}
    lots = [(lot, book) for book in books for lot in book._spendable_lots() if not lot.pooled]
    found = []
    for lot, book in sorted(lots, key=_first_to_lapse):
        points = min(lot.free, left[book.account.account_id])
        if points:
            left[book.account.account_id] -= points
            found.append((book, lot, points))
    return found


def spendable(taker: Book, givers: Iterable[Book]) -> int:
    """What a member can spend with the help of others. Whoever owes points gets no help."""
    return taker.spendable + (0 if taker.account.debt else sum(points for _, _, points in offered(givers)))


def draw(taker: Book, givers: Sequence[Book], points: int, source: str) -> list[Pair]:
    """Gives a member what is lacking of `points`, as pooled lots: a pair of entries for each who gives.

    Raises InsufficientPoints with what is there in all.
    """
    there = spendable(taker, givers)
    if points > there:
        raise InsufficientPoints(requested=points, spendable=there, missing=points - there)
    missing = points - taker.spendable
    parts: dict[UUID, list[tuple[Lot, int]]] = {}
    for book, lot, most in offered(givers) if missing > 0 else ():
        taken = min(most, missing)
        if taken:
            missing -= taken
            parts.setdefault(book.account.account_id, []).append((lot, taken))
    pairs = []
    for giver in givers:
        theirs = parts.get(giver.account.account_id)
        if theirs:
            pair = _pair(giver, taker, sum(taken for _, taken in theirs), source)
            for lot, taken in theirs:
                giver._move(pair.given_id, lot, -taken)
                taker._new_lot(
                    pair.taken_id,
                    taken,
                    expires_at=lot.expires_at,
                    origin_lot_id=lot.lot_id,
                    pooled=True,
                )
            pairs.append(pair)
    return pairs


def give_back(taker: Book, givers: Mapping[UUID, Book], origins: Mapping[UUID, Origin]) -> list[Pair]:
    """Returns what is free of a member's pooled lots to the lots that it came from.

    `givers` are books by account, `origins` by pooled lot, or by the lot of which one is the return. A lot that lapsed
    meanwhile follows its program's policy; who owes points pays first. What came from the member stays.
    """
    parts: dict[tuple[UUID, str], list[tuple[Lot, Origin]]] = {}
    for lot in sorted(taker.lots.values(), key=lambda lot: lot.lot_id):
        origin = origins.get(lot.lot_id) or (origins.get(lot.origin_lot_id) if lot.origin_lot_id else None)
        if lot.pooled and lot.free > 0 and not taker._is_past(lot) and origin and origin.account_id in givers:
            parts.setdefault((origin.account_id, origin.source), []).append((lot, origin))
    pairs = []
    for (account_id, source), theirs in parts.items():
        giver = givers[account_id]
        pair = _pair(taker, giver, sum(lot.free for lot, _ in theirs), source)
        returned = []
        for lot, origin in theirs:
            points = lot.free
            taker._move(pair.given_id, lot, -points)
            returned += _put(giver, pair.taken_id, origin.lot_id, points, lot.expires_at)
        for lot, points in returned:
            giver._pay_debt(pair.taken_id, lot, points)
        for lot, _ in returned:
            if giver._is_past(lot) and lot.free > 0:
                giver._expire(lot)
        pairs.append(pair)
    return pairs


def _put(
    giver: Book, entry_id: UUID, lot_id: UUID, points: int, expires_at: datetime | None
) -> list[tuple[Lot, int]]:
    """Puts points into a lot; what it cannot take, or all if it is of an account merged into this one, is a new lot."""
    found = []
    lot = giver.lots.get(lot_id)
    if lot is not None:
        put = min(points, lot.points - lot.remaining)
        giver._move(entry_id, lot, put)
        giver._revive(lot)
        found.append((lot, put))
        points -= put
    if points:
        before = giver.strangers.get(lot_id)
        until = before.expires_at if before else expires_at
        fresh = giver._new_lot(entry_id, points, expires_at=until, origin_lot_id=lot_id)
        giver._revive(fresh)
        found.append((fresh, points))
    return found


def _pair(giver: Book, taker: Book, points: int, source: str) -> Pair:
    """The entries of both sides."""
    pair = Pair(
        giver=giver.account.account_id,
        taker=taker.account.account_id,
        given_id=giver.new_id(),
        taken_id=taker.new_id(),
    )
    giver._enter(TRANSFER, pair.given_id, -points, -points, 0, counterpart_id=pair.taken_id, source=source)
    taker._enter(TRANSFER, pair.taken_id, points, points, 0, counterpart_id=pair.given_id, source=source)
    return pair


def _first_to_lapse(each: tuple[Lot, Book]) -> tuple[bool, float, datetime, UUID]:
    lot = each[0]
    at = lot.expires_at.timestamp() if lot.expires_at else 0.0
    return lot.expires_at is None, at, lot.earned_at, lot.lot_id
