"""What members bring along: what a row gives, what is wrong with one, and what of it can be taken back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from services.loyalty.ledger.rules import ADJUST, EXPIRE, REVERSE, Book, Lot

# ImportBalanceOutcome
CREATED, KNOWN, REFUSED, MEMBER_UNKNOWN = 1, 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A row as it was told. `program` is an id or a name, "" for the default one; `row` counts as the file does."""

    row: int
    customer_id: UUID
    program: str
    points: int
    expires_at: datetime | None
    earned_at: datetime | None
    lifetime_points: int
    reason: str
    reference: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a row."""

    row: int
    outcome: int
    field: str = ""
    reason: str = ""
    expected: str = ""
    entry_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Undone:
    """What was taken back of a row, and what was not there any more. `customer_id` is whose the points were."""

    row: int
    customer_id: UUID
    taken: int
    spent: int
    lapsed: int


def refusal(told: Told, expires_at: datetime | None, now: datetime) -> Result | None:
    """What is wrong with a row, by itself. `expires_at` is when its points lapse."""
    if not (told.points or told.lifetime_points):
        return Result(
            told.row, REFUSED, "points", "INT64_RANGE", "must be at least 1 without lifetime points"
        )
    if told.earned_at is not None and told.earned_at > now:
        return Result(told.row, REFUSED, "earned_at", "TIME_RANGE", "must not be in the future")
    if told.points and expires_at is not None and expires_at <= now:
        by_program = told.expires_at is None
        why = (
            "they have lapsed by the program's own rule; say when they lapse"
            if by_program
            else "must be in the future"
        )
        return Result(told.row, REFUSED, "earned_at" if by_program else "expires_at", "ALREADY_EXPIRED", why)
    return None


def content(told: Told, program_id: UUID, member_id: UUID, source: str) -> bytes:
    """The print of what a row says of a member: its reference, else its points and dates."""
    parts: tuple[object, ...] = (told.points, told.lifetime_points, told.expires_at, told.earned_at)
    said = ("reference", told.reference) if told.reference else ("values", *map(str, parts))
    return sha256("\x1f".join((str(program_id), str(member_id), source, *said)).encode()).digest()[:16]


def bring(book: Book, told: Told, *, expires_at: datetime | None, entry_id: UUID, source: str) -> Lot | None:
    """Gives a member what a row says: a lot with dates of its own, one entry. None without points to spend.

    Raises PointsOutOfRange.
    """
    book._in_range(max(told.points, told.lifetime_points))
    lot = book._new_lot(entry_id, told.points, expires_at=expires_at) if told.points else None
    effective_at = told.earned_at or book.now
    if lot is not None:
        lot.earned_at = effective_at
    book.account.lifetime += told.lifetime_points
    book._enter(
        ADJUST,
        entry_id,
        told.points,
        told.points,
        0,
        effective_at=effective_at,
        source=source,
        expires_at=expires_at if lot else None,
        lifetime_points=told.lifetime_points,
    )
    if lot is not None:
        book._pay_debt(entry_id, lot, told.points)
    return lot


def take_back(
    book: Book,
    lots: Iterable[UUID],
    lifetime_points: int,
    *,
    reverses_id: UUID,
    entry_id: UUID,
    source: str,
    effective_at: datetime,
) -> int:
    """Takes what is left of some lots, and lifetime points, as a reversal; gives how many points could be spent.

    It counts from when the points counted. What is set aside stays. Without anything left there is no entry.
    """
    taken = 0
    for lot_id in lots:
        lot = book.lots.get(lot_id)
        if lot is not None and lot.free > 0 and not lot.pending:
            taken += lot.free
            book._move(entry_id, lot, -lot.free)
    if taken or lifetime_points:
        book.account.lifetime -= lifetime_points
        book._enter(
            REVERSE,
            entry_id,
            -taken,
            -taken,
            0,
            effective_at=effective_at,
            reverses_id=reverses_id,
            source=source,
            lifetime_points=-lifetime_points,
        )
    return taken


def lapsed(book: Book, before: Mapping[UUID, int], lots: Iterable[UUID]) -> int:
    """How many points of lots lapsed: `before` the book was loaded, and since."""
    own = {entry.entry_id for entry in book.entries if entry.kind == EXPIRE}
    found = 0
    for lot_id in lots:
        found += before.get(lot_id, 0)
        found -= sum(points for (entry, lot), points in book.drawn.items() if lot == lot_id and entry in own)
    return found
