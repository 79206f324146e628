"""Random lives of an account: whatever happens to it, entries, lots, holds and balance agree."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.loyalty.ledger import rules
from services.loyalty.ledger.rules import Account, Book, Entry, Hold, Lot, Terms
from services.loyalty.problems import HoldNotOpen, InsufficientPoints

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Life:
    """An account and all that was ever written about it."""

    terms: Terms = field(default_factory=Terms)
    now: datetime = START
    account: Account = field(default_factory=lambda: Account(account_id=UUID(int=0)))
    lots: dict[UUID, Lot] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    drawn: dict[tuple[UUID, UUID], int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def book(self) -> Book:
        """A book as it would be loaded, settled."""
        book = Book(
            account=self.account,
            lots=self.lots,
            holds=self.holds,
            now=self.now,
            terms=self.terms,
            new_id=lambda: UUID(int=next(self.numbers)),
        )
        book.settle()
        return book

    def close(self, book: Book) -> None:
        """Keeps what a book wrote, and looks whether all agrees."""
        self.entries += book.entries
        for key, points in book.drawn.items():
            assert key not in self.drawn
            self.drawn[key] = points
        assert not any(lot.pending for lot in self.lots.values() if not lot.remaining)
        assert rules.faults(self.account, self.lots.values(), self.holds.values(), self.entries) == []
        for lot in self.lots.values():
            moved = sum(points for (_, lot_id), points in self.drawn.items() if lot_id == lot.lot_id)
            assert lot.remaining == lot.points + moved
        if self.terms.return_policy != "NEGATIVE":
            assert self.account.balance >= 0
        assert self.account.debt == 0 or self.account.balance - self.account.held <= 0

    def shares(self, *entry_ids: UUID) -> dict[UUID, int]:
        """What entries took from each lot and did not give back."""
        found: dict[UUID, int] = {}
        for (entry_id, lot_id), points in self.drawn.items():
            if entry_id in entry_ids:
                found[lot_id] = found.get(lot_id, 0) - points
        return {lot_id: points for lot_id, points in found.items() if points > 0}


def earn(
    life: Life, points: int, *, days: int | None = 30, pending: int = 0, order: int | None = None
) -> Entry:
    book = life.book()
    entry = book.earn(
        points,
        available_at=life.now + pending * DAY,
        expires_at=None if days is None else life.now + days * DAY,
        order_id=None if order is None else UUID(int=order),
    )
    life.close(book)
    return entry


def test_what_lapses_first_is_spent_first() -> None:
    life = Life()
    earn(life, 10, days=30)
    earn(life, 10, days=10)
    earn(life, 10, days=None)
    book = life.book()
    book.redeem(15)
    life.close(book)
    assert sorted((lot.expires_at or START + 99 * DAY, lot.remaining) for lot in life.lots.values()) == [
        (START + 10 * DAY, 0),
        (START + 30 * DAY, 5),
        (START + 99 * DAY, 10),
    ]


def test_no_more_is_spent_than_there_is() -> None:
    life = Life()
    earn(life, 10)
    with pytest.raises(InsufficientPoints) as refused:
        life.book().redeem(11)
    assert refused.value.metadata == {"requested": "11", "spendable": "10", "missing": "1"}


def test_what_is_past_its_expiry_cannot_be_spent() -> None:
    life = Life()
    earn(life, 10, days=10)
    life.now += 10 * DAY
    with pytest.raises(InsufficientPoints):
        life.book().redeem(1)


def test_pending_points_ripen() -> None:
    life = Life()
    earn(life, 10, pending=5)
    assert (life.account.balance, life.account.pending) == (0, 10)
    life.now += 5 * DAY
    life.close(life.book())
    assert (life.account.balance, life.account.pending) == (10, 0)
    assert [entry.kind for entry in life.entries] == [rules.EARN, rules.AVAILABLE]


def test_what_was_all_returned_while_pending_never_ripens_and_what_comes_back_does() -> None:
    life = Life()
    earn(life, 10, pending=5, order=1)
    book = life.book()
    gone = book.reclaim(UUID(int=1), 10)
    life.close(book)
    (lot,) = life.lots.values()
    assert (lot.pending, life.account.pending) == (False, 0)
    book = life.book()
    book.give_back(UUID(int=1), 4, 0, life.shares(gone.entry_id))
    life.close(book)
    assert (lot.pending, life.account.pending, life.account.balance) == (True, 4, 0)
    life.now += 5 * DAY
    life.close(life.book())
    assert (life.account.pending, life.account.balance) == (0, 4)


def test_a_debit_by_hand_takes_nobody_elses_points() -> None:
    life = Life()
    earn(life, 10)
    (own,) = life.lots.values()
    earn(life, 20, days=5)
    next(lot for lot in life.lots.values() if lot is not own).pooled = True
    with pytest.raises(InsufficientPoints) as refused:
        life.book().adjust(-11, effective_at=life.now, expires_at=None)
    assert refused.value.metadata == {"requested": "11", "spendable": "10", "missing": "1"}
    book = life.book()
    book.adjust(-10, effective_at=life.now, expires_at=None)
    life.close(book)
    assert own.remaining == 0


def test_a_hold_is_captured_in_part_and_the_rest_released() -> None:
    life = Life()
    earn(life, 10)
    book = life.book()
    hold = book.hold(8, expires_at=life.now + DAY)
    life.close(book)
    assert (life.account.balance, life.account.held) == (10, 8)
    with pytest.raises(InsufficientPoints):
        life.book().redeem(3)
    book = life.book()
    book.capture(hold, 5)
    life.close(book)
    assert (life.account.balance, life.account.held) == (5, 0)
    with pytest.raises(HoldNotOpen):
        life.book().release(hold)


def test_a_hold_lapses_by_itself() -> None:
    life = Life()
    earn(life, 10)
    book = life.book()
    hold = book.hold(10, expires_at=life.now + DAY)
    life.close(book)
    life.now += DAY
    book = life.book()
    book.redeem(10)
    life.close(book)
    assert hold.state == rules.LAPSED


@pytest.mark.parametrize(("days", "balance"), [(0, 0), (7, 10)])
def test_what_returns_to_a_lapsed_lot_follows_the_policy(days: int, balance: int) -> None:
    life = Life(terms=Terms(returned_points=days * DAY))
    earn(life, 10, days=10)
    book = life.book()
    spent = book.redeem(10)
    life.close(book)
    life.now += 11 * DAY
    book = life.book()
    book.restore(spent.entry_id, 10, life.shares(spent.entry_id))
    life.close(book)
    assert life.account.balance == balance
    assert [e.kind for e in life.entries][2:] == ([rules.REVERSE] if days else [rules.REVERSE, rules.EXPIRE])


def test_a_held_lot_lapses_with_its_hold() -> None:
    life = Life()
    earn(life, 10, days=1)
    book = life.book()
    hold = book.hold(4, expires_at=life.now + 3 * DAY)
    life.close(book)
    life.now += 2 * DAY
    life.close(life.book())
    assert (life.account.balance, life.account.held) == (4, 4)
    book = life.book()
    book.capture(hold, 3)
    life.close(book)
    assert life.account.balance == 0
    assert [(e.kind, e.points) for e in life.entries] == [
        (rules.EARN, 10),
        (rules.EXPIRE, -6),
        (rules.REDEEM, -3),
        (rules.EXPIRE, -1),
    ]


@pytest.mark.parametrize(
    ("policy", "balance", "debt", "short"),
    [("PENDING_ONLY", 2, 0, 10), ("WITHIN_BALANCE", 0, 0, 8), ("NEGATIVE", -8, 8, 0)],
)
def test_a_return_takes_what_the_program_allows(policy: str, balance: int, debt: int, short: int) -> None:
    life = Life(terms=Terms(return_policy=policy))
    earn(life, 10, order=1)
    book = life.book()
    book.redeem(8)
    life.close(book)
    book = life.book()
    taken = book.reclaim(UUID(int=1), 10)
    life.close(book)
    assert (life.account.balance, life.account.debt, taken.shortfall) == (balance, debt, short)
    if debt:
        earn(life, 20)
        assert (life.account.balance, life.account.debt) == (12, 0)


def test_a_return_takes_the_orders_own_points_first() -> None:
    life = Life()
    first = earn(life, 10, days=1)
    earn(life, 10, days=30, order=1)
    book = life.book()
    book.reclaim(UUID(int=1), 4)
    life.close(book)
    left = {lot.entry_id: lot.remaining for lot in life.lots.values()}
    assert left[first.entry_id] == 10


@pytest.mark.parametrize(
    ("points", "total", "refunded", "left"),
    [
        (100, 1000, 0, 100),
        (100, 1000, 500, 50),
        (1, 1000, 999, 1),
        (10, 300, 100, 7),
        (10, 0, 0, 10),
        (9, 5, 5, 0),
    ],
)
def test_what_an_order_keeps(points: int, total: int, refunded: int, left: int) -> None:
    assert rules.kept(points, total, refunded, cancelled=False) == left
    assert rules.kept(points, total, refunded, cancelled=True) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "earn",
                "pend",
                "redeem",
                "adjust",
                "hold",
                "capture",
                "release",
                "reclaim",
                "return",
                "restore",
                "wait",
            ]
        ),
        st.integers(1, 60),
        st.integers(0, 10**6),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(
    steps=STEPS,
    policy=st.sampled_from(["PENDING_ONLY", "WITHIN_BALANCE", "NEGATIVE"]),
    returned=st.sampled_from([0, 5]),
    inactivity=st.booleans(),
)
def test_everything_agrees_whatever_happens(
    steps: list[Any], policy: str, returned: int, inactivity: bool
) -> None:
    life = Life()
    given: dict[UUID, int] = {}
    taken: dict[UUID, list[Entry]] = {}
    spent: list[list[Any]] = []
    for verb, amount, pick in steps:
        life.terms = Terms(
            return_policy=policy,
            returned_points=returned * DAY,
            renewed_expiry=life.now + 9 * DAY if inactivity else None,
        )
        book = life.book()
        try:
            if verb in {"earn", "pend"}:
                order = UUID(int=10**9 + len(given))
                given[order] = amount
                later = life.now + (3 * DAY if verb == "pend" else timedelta(0))
                expiry = None if pick % 5 == 0 and not inactivity else life.now + (1 + pick % 12) * DAY
                book.earn(amount, available_at=later, expires_at=expiry, order_id=order)
            elif verb == "redeem":
                entry = book.redeem(amount)
                spent.append([entry, amount])
            elif verb == "adjust":
                points = amount if pick % 2 else -amount
                book.adjust(points, effective_at=life.now, expires_at=life.now + 8 * DAY)
            elif verb == "hold":
                book.hold(amount, expires_at=life.now + (1 + pick % 4) * DAY)
            elif verb in {"capture", "release"} and life.holds:
                hold = sorted(life.holds.values(), key=lambda h: h.hold_id)[pick % len(life.holds)]
                if verb == "capture":
                    entry = book.capture(hold, min(amount, hold.points))
                    spent.append([entry, min(amount, hold.points)])
                else:
                    book.release(hold)
            elif verb == "reclaim" and given:
                order = sorted(given)[pick % len(given)]
                points = min(amount, given[order])
                if points:
                    given[order] -= points
                    taken.setdefault(order, []).append(book.reclaim(order, points))
            elif verb == "return" and taken:
                order = sorted(taken)[pick % len(taken)]
                entries = taken.pop(order)
                life.entries += book.entries
                life.drawn |= book.drawn
                book.entries, book.drawn = [], {}
                short = sum(entry.shortfall for entry in entries)
                gone = -sum(entry.points for entry in entries)
                book.give_back(order, gone, short, life.shares(*(entry.entry_id for entry in entries)))
                given[order] += gone + short
            elif verb == "restore" and spent:
                one = spent[pick % len(spent)]
                part = min(amount, one[1])
                if part:
                    one[1] -= part
                    book.restore(one[0].entry_id, part, life.shares(one[0].entry_id))
            elif verb == "wait":
                life.now += (amount % 5) * DAY
        except (InsufficientPoints, HoldNotOpen):
            pass
        life.close(book)
    for hold in life.holds.values():
        assert hold.captured <= hold.points
