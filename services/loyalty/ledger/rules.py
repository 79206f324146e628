"""What happens to a member's points: a book of lots and holds, and the entries that each change writes.

A book is loaded under its account's lock, changed by the methods below, and written back whole. It knows the
account, its open lots and open holds, and those closed lots to which something may return.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.loyalty.problems import (
    HoldNotOpen,
    InsufficientPoints,
    PointsOutOfRange,
)

# TransactionType
EARN, REDEEM, EXPIRE, ADJUST, REVERSE, TRANSFER, AVAILABLE = 1, 2, 3, 4, 5, 6, 7
# HoldState
OPEN, CAPTURED, RELEASED, LAPSED = 1, 2, 3, 4
_STATES = {OPEN: "OPEN", CAPTURED: "CAPTURED", RELEASED: "RELEASED", LAPSED: "LAPSED"}

MOST_POINTS = 10**15
_FAR = datetime.max


@dataclass(slots=True, kw_only=True)
class Account:
    """A member's account. `balance` is what is left of lots that are not pending, less `debt`.

    `shortfall` is what returns should have taken back and could not; `entries` numbers the entries.
    """

    account_id: UUID
    balance: int = 0
    pending: int = 0
    held: int = 0
    debt: int = 0
    shortfall: int = 0
    lifetime: int = 0
    redeemed: int = 0
    expired: int = 0
    entries: int = 0
    version: int = 0
    active_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Lot:
    """The points of one earning. `remaining` holds the `held` ones as well.

    `pooled`: they are of others in the household, and go back to them unless they are spent.
    """

    lot_id: UUID
    points: int
    remaining: int
    earned_at: datetime
    held: int = 0
    pending: bool = False
    available_at: datetime | None = None
    expires_at: datetime | None = None
    order_id: UUID | None = None
    entry_id: UUID | None = None
    origin_lot_id: UUID | None = None
    pooled: bool = False

    @property
    def free(self) -> int:
        """What is neither spent nor set aside."""
        return self.remaining - self.held


@dataclass(slots=True, kw_only=True)
class Hold:
    """Points set aside, by lot."""

    hold_id: UUID
    points: int
    created_at: datetime
    expires_at: datetime
    lots: dict[UUID, int]
    state: int = OPEN
    captured: int = 0
    order_id: UUID | None = None
    entry_id: UUID | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the ledger. Of `points`, what changed the balance and what the pending points.

    `lifetime_points` are what it adds to the lifetime points beyond those that it gives; `counted_at` is when it counts
    for tiers, if not when it took effect.
    """

    entry_id: UUID
    seq: int
    kind: int
    points: int
    balance_points: int
    pending_points: int
    opening_balance: int
    opening_pending: int
    booked_at: datetime
    effective_at: datetime
    order_id: UUID | None = None
    source: str = ""
    reverses_id: UUID | None = None
    hold_id: UUID | None = None
    counterpart_id: UUID | None = None
    available_at: datetime | None = None
    expires_at: datetime | None = None
    shortfall: int = 0
    lifetime_points: int = 0
    counted_at: datetime | None = None
    reasons: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a program says about its ledger. `renewed_expiry` is when all open lots lapse after something happened.

    None where points do not lapse by inactivity.
    """

    return_policy: str = "WITHIN_BALANCE"
    returned_points: timedelta = timedelta(0)
    renewed_expiry: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Book:
    """An account with its lots and holds, and what was written into it since it was loaded.

    `strangers` are lots of accounts that were merged into this one: what returns to them is a lot of its own here.
    `new_id` makes ids. `drawn` are the allocations of the new entries: (entry, lot) → points, negative if drawn.
    """

    account: Account
    lots: dict[UUID, Lot]
    holds: dict[UUID, Hold]
    now: datetime
    terms: Terms
    new_id: Callable[[], UUID]
    entries: list[Entry] = field(default_factory=list)
    drawn: dict[tuple[UUID, UUID], int] = field(default_factory=dict)
    new_lots: set[UUID] = field(default_factory=set)
    touched_lots: set[UUID] = field(default_factory=set)
    touched_holds: set[UUID] = field(default_factory=set)
    new_holds: set[UUID] = field(default_factory=set)
    strangers: dict[UUID, Lot] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """True if there is anything to write."""
        return bool(self.entries or self.touched_lots or self.touched_holds or self.new_holds)

    @property
    def spendable(self) -> int:
        """What can be spent now, once settled."""
        return max(self.account.balance - self.account.held, 0)

    @property
    def own(self) -> int:
        """What of it is of nobody else in the household."""
        others = sum(lot.free for lot in self.lots.values() if lot.pooled and not self._is_past(lot))
        return max(self.spendable - others, 0)

    # ------------------------------------------------------------------ what holds by itself

    def settle(self) -> None:
        """Books what holds already: holds past their time, pending lots whose day has come, lots past their expiry."""
        for hold in sorted(self.holds.values(), key=lambda hold: (hold.expires_at, hold.hold_id)):
            if hold.state == OPEN and hold.expires_at <= self.now:
                self._close(hold, LAPSED)
        ripe = [
            lot for lot in self.lots.values() if lot.pending and (lot.available_at or self.now) <= self.now
        ]
        for lot in sorted(ripe, key=lambda lot: (lot.available_at or self.now, lot.lot_id)):
            entry_id, points = self.new_id(), lot.remaining
            lot.pending = False
            self._touch(lot)
            if points:
                effective = lot.available_at or self.now
                self._enter(AVAILABLE, entry_id, points, points, -points, effective_at=effective)
                self._pay_debt(entry_id, lot, points)
        past = [lot for lot in self.lots.values() if self._is_past(lot) and not lot.pending and lot.free > 0]
        for lot in sorted(past, key=lambda lot: (lot.expires_at or _FAR, lot.lot_id)):
            self._expire(lot)

    # ------------------------------------------------------------------ what is done

    def earn(
        self,
        points: int,
        *,
        available_at: datetime,
        expires_at: datetime | None,
        order_id: UUID | None = None,
        source: str = "",
        counted_at: datetime | None = None,
        reasons: Sequence[Mapping[str, Any]] = (),
    ) -> Entry:
        """Gives points, pending until `available_at`."""
        self._in_range(points)
        entry_id, pending = self.new_id(), available_at > self.now
        lot = self._new_lot(
            entry_id,
            points,
            pending=pending,
            available_at=available_at,
            expires_at=expires_at,
            order_id=order_id,
        )
        self.account.lifetime += points
        entry = self._enter(
            EARN,
            entry_id,
            points,
            0 if pending else points,
            points if pending else 0,
            order_id=order_id,
            source=source,
            counted_at=counted_at,
            reasons=reasons,
            available_at=available_at if pending else None,
            expires_at=expires_at,
        )
        if not pending:
            self._pay_debt(entry_id, lot, points)
        self._active()
        return entry

    def redeem(
        self,
        points: int,
        *,
        order_id: UUID | None = None,
        entry_id: UUID | None = None,
        source: str = "",
        reasons: Sequence[Mapping[str, Any]] = (),
    ) -> Entry:
        """Spends points, those that lapse first before others. Raises InsufficientPoints."""
        self._can_spend(points)
        entry_id = entry_id or self.new_id()
        for lot, taken in self._draw(points):
            self._move(entry_id, lot, -taken)
        self.account.redeemed += points
        entry = self._enter(
            REDEEM, entry_id, -points, -points, 0, order_id=order_id, source=source, reasons=reasons
        )
        self._active()
        return entry

    def adjust(
        self,
        points: int,
        *,
        effective_at: datetime,
        expires_at: datetime | None,
        entry_id: UUID | None = None,
    ) -> Entry:
        """Adds points, or takes the member's own. Raises InsufficientPoints."""
        entry_id = entry_id or self.new_id()
        if points < 0:
            self._can_spend(-points, self.own)
            for lot, taken in self._draw(-points):
                self._move(entry_id, lot, -taken)
            return self._enter(ADJUST, entry_id, points, points, 0, effective_at=effective_at)
        self._in_range(points)
        lot = self._new_lot(entry_id, points, expires_at=expires_at)
        entry = self._enter(
            ADJUST, entry_id, points, points, 0, effective_at=effective_at, expires_at=expires_at
        )
        self._pay_debt(entry_id, lot, points)
        return entry

    def hold(
        self, points: int, *, expires_at: datetime, order_id: UUID | None = None, hold_id: UUID | None = None
    ) -> Hold:
        """Sets points aside. Raises InsufficientPoints."""
        self._can_spend(points)
        hold = Hold(
            hold_id=hold_id or self.new_id(),
            points=points,
            created_at=self.now,
            expires_at=expires_at,
            order_id=order_id,
            lots={},
        )
        for lot, taken in self._draw(points):
            lot.held += taken
            self._touch(lot)
            hold.lots[lot.lot_id] = taken
        self.account.held += points
        self.holds[hold.hold_id] = hold
        self.new_holds.add(hold.hold_id)
        self.account.version += 1
        return hold

    def capture(self, hold: Hold, points: int, *, order_id: UUID | None = None) -> Entry:
        """Spends points of an open hold; what is not spent is released.

        They are spent even if their lots lapsed meanwhile: they were promised. Raises HoldNotOpen,
        InsufficientPoints if there are fewer.
        """
        if hold.state != OPEN:
            raise HoldNotOpen(state=_STATES[hold.state])
        if points > hold.points:
            raise InsufficientPoints(requested=points, spendable=hold.points, missing=points - hold.points)
        entry_id, left = self.new_id(), points
        for lot in self._in_order(hold.lots):
            taken = min(hold.lots[lot.lot_id], left)
            left -= taken
            if taken:
                lot.held -= taken
                self.account.held -= taken
                self._move(entry_id, lot, -taken)
                hold.lots[lot.lot_id] -= taken
        self.account.redeemed += points
        hold.captured, hold.entry_id, hold.order_id = points, entry_id, order_id or hold.order_id
        entry = self._enter(
            REDEEM, entry_id, -points, -points, 0, order_id=hold.order_id, hold_id=hold.hold_id
        )
        self._close(hold, CAPTURED)
        self._active()
        return entry

    def release(self, hold: Hold) -> None:
        """Gives the points of an open hold back to their lots. Raises HoldNotOpen if they were captured."""
        if hold.state == CAPTURED:
            raise HoldNotOpen(state=_STATES[hold.state])
        if hold.state == OPEN:
            self._close(hold, RELEASED)

    def reclaim(
        self,
        order_id: UUID | None,
        points: int,
        *,
        lots: AbstractSet[UUID] = frozenset(),
        source: str = "",
        counted_at: datetime | None = None,
    ) -> Entry:
        """Takes points back that an order gave: from its own lots first, then as far as the program allows.

        What `source` gave, which is no order, was given in these `lots`. What cannot be taken is the entry's
        shortfall.
        """
        entry_id, left, from_pending = self.new_id(), points, 0
        mine = {each.lot_id for each in self.lots.values() if order_id and each.order_id == order_id} | lots
        own = [lot for lot in self.lots.values() if lot.lot_id in mine and lot.free > 0 and not lot.pooled]
        own.sort(
            key=lambda lot: (
                not lot.pending,
                lot.expires_at or _FAR.replace(tzinfo=self.now.tzinfo),
                lot.lot_id,
            )
        )
        others = [lot for lot in self._spendable_lots() if lot.lot_id not in mine and not lot.pooled]
        only_pending = self.terms.return_policy == "PENDING_ONLY"
        for lot in [*own, *([] if only_pending else others)]:
            if only_pending and not lot.pending:
                continue
            taken = min(lot.free, left)
            if taken:
                left -= taken
                from_pending += taken if lot.pending else 0
                self._move(entry_id, lot, -taken)
        owed = left if self.terms.return_policy == "NEGATIVE" else 0
        short = left - owed
        self.account.debt += owed
        self.account.shortfall += short
        gone = points - short
        return self._enter(
            REVERSE,
            entry_id,
            -gone,
            -(gone - from_pending),
            -from_pending,
            order_id=order_id,
            source=source,
            shortfall=short,
            counted_at=counted_at,
        )

    def give_back(
        self,
        order_id: UUID,
        points: int,
        short: int,
        shares: Mapping[UUID, int],
        *,
        counted_at: datetime | None = None,
    ) -> Entry | None:
        """Undoes reclaiming: a return that was told too large. `short` of it had not been taken in the end.

        `shares` are what reclaiming for this order took from lots and has not given back. None if there is
        nothing to give back but shortfall.
        """
        self.account.shortfall -= short
        if not (points or short):
            return None
        return self._restore(points, shares, order_id=order_id, shortfall=-short, counted_at=counted_at)

    def restore(
        self,
        spent_id: UUID,
        points: int,
        shares: Mapping[UUID, int],
        *,
        order_id: UUID | None = None,
        entry_id: UUID | None = None,
    ) -> Entry:
        """Gives back what a redemption spent, or a part of it, to the lots that it drew from (`shares`)."""
        self.account.redeemed -= points
        return self._restore(points, shares, order_id=order_id, reverses_id=spent_id, entry_id=entry_id)

    def send(
        self, points: int, counterpart_id: UUID, entry_id: UUID
    ) -> list[tuple[datetime | None, int, UUID]]:
        """Gives points to another member; what each lot gave: (its expiry, points, lot). Raises InsufficientPoints."""
        self._can_spend(points, self.own)
        gone = []
        for lot, taken in self._draw(points):
            self._move(entry_id, lot, -taken)
            gone.append((lot.expires_at, taken, lot.lot_id))
        self._enter(TRANSFER, entry_id, -points, -points, 0, counterpart_id=counterpart_id)
        self._active()
        return gone

    def receive(
        self, parts: Iterable[tuple[datetime | None, int, UUID]], counterpart_id: UUID, entry_id: UUID
    ) -> Entry:
        """Takes in what another member sent: a lot for each, with the same expiry."""
        parts = list(parts)
        points = sum(taken for _, taken, _ in parts)
        self._in_range(points)
        lots = [
            self._new_lot(entry_id, taken, expires_at=expires_at, origin_lot_id=origin)
            for expires_at, taken, origin in parts
        ]
        entry = self._enter(TRANSFER, entry_id, points, points, 0, counterpart_id=counterpart_id)
        for lot in lots:
            self._pay_debt(entry_id, lot, lot.remaining)
        self._active()
        return entry

    # ------------------------------------------------------------------ inside

    def _is_past(self, lot: Lot) -> bool:
        return lot.expires_at is not None and lot.expires_at <= self.now

    def _is_early(self, lot: Lot) -> bool:
        """True if the day of its points is still to come."""
        return lot.available_at is not None and lot.available_at > self.now

    def _spendable_lots(self) -> list[Lot]:
        """The lots that can be drawn from, in the order of drawing."""
        return self._in_order(
            lot.lot_id
            for lot in self.lots.values()
            if not lot.pending and lot.free > 0 and not self._is_past(lot)
        )

    def _in_order(self, lot_ids: Iterable[UUID]) -> list[Lot]:
        """The member's own before others'; those that lapse first before others, then the older ones."""
        far = _FAR.replace(tzinfo=self.now.tzinfo)
        found = [self.lots[lot_id] for lot_id in lot_ids]
        return sorted(found, key=lambda lot: (lot.pooled, lot.expires_at or far, lot.earned_at, lot.lot_id))

    def _can_spend(self, points: int, there: int | None = None) -> None:
        there = self.spendable if there is None else there
        if points > there:
            raise InsufficientPoints(requested=points, spendable=there, missing=points - there)

    def _in_range(self, points: int) -> None:
        if self.account.lifetime + points > MOST_POINTS or self.account.balance + points > MOST_POINTS:
            raise PointsOutOfRange(limit=MOST_POINTS)

    def _draw(self, points: int) -> list[tuple[Lot, int]]:
        """From which lots that many points come. There are enough: `_can_spend` saw to it."""
        drawn, left = [], points
        for lot in self._spendable_lots():
            taken = min(lot.free, left)
            if taken:
                drawn.append((lot, taken))
                left -= taken
        assert left == 0, "the balance is what is left of the lots"
        return drawn

    def _new_lot(
        self,
        entry_id: UUID,
        points: int,
        *,
        expires_at: datetime | None,
        pending: bool = False,
        available_at: datetime | None = None,
        order_id: UUID | None = None,
        origin_lot_id: UUID | None = None,
        pooled: bool = False,
    ) -> Lot:
        lot = Lot(
            lot_id=self.new_id(),
            points=points,
            remaining=points,
            pending=pending,
            earned_at=self.now,
            available_at=available_at,
            expires_at=expires_at,
            order_id=order_id,
            entry_id=entry_id,
            origin_lot_id=origin_lot_id,
            pooled=pooled,
        )
        self.lots[lot.lot_id] = lot
        self.new_lots.add(lot.lot_id)
        return lot

    def _touch(self, lot: Lot) -> None:
        self.touched_lots.add(lot.lot_id)

    def _move(self, entry_id: UUID, lot: Lot, points: int) -> None:
        """Puts points into a lot, or takes them, in the name of an entry. What is empty is not pending."""
        if not lot.remaining:
            lot.pending = self._is_early(lot)
        lot.remaining += points
        lot.pending = lot.pending and lot.remaining > 0
        key = entry_id, lot.lot_id
        self.drawn[key] = self.drawn.get(key, 0) + points
        self._touch(lot)

    def _pay_debt(self, entry_id: UUID, lot: Lot, points: int) -> None:
        """What came into the balance pays what is owed; but nobody pays for another."""
        paid = 0 if lot.pooled else min(self.account.debt, points)
        if paid:
            self.account.debt -= paid
            self._move(entry_id, lot, -paid)

    def _expire(self, lot: Lot) -> None:
        entry_id, points = self.new_id(), lot.free
        self._move(entry_id, lot, -points)
        self.account.expired += points
        self._enter(
            EXPIRE, entry_id, -points, -points, 0, effective_at=lot.expires_at, expires_at=lot.expires_at
        )

    def _close(self, hold: Hold, state: int) -> None:
        """Ends a hold: what it still holds is free again."""
        hold.state, hold.closed_at = state, self.now
        for lot_id, points in hold.lots.items():
            if points:
                lot = self.lots[lot_id]
                lot.held -= points
                self.account.held -= points
                self._touch(lot)
                self._revive(lot)
        self.touched_holds.add(hold.hold_id)
        self.account.version += 1
        for lot_id, points in hold.lots.items():
            lot = self.lots[lot_id]
            if points and self._is_past(lot) and lot.free > 0:
                self._expire(lot)

    def _revive(self, lot: Lot) -> None:
        """A lot to which something returns after it lapsed lives on, if the program says so."""
        if self._is_past(lot) and self.terms.returned_points:
            lot.expires_at = self.now + self.terms.returned_points
            self._touch(lot)

    def _restore(
        self,
        points: int,
        shares: Mapping[UUID, int],
        *,
        order_id: UUID | None = None,
        reverses_id: UUID | None = None,
        shortfall: int = 0,
        entry_id: UUID | None = None,
        counted_at: datetime | None = None,
    ) -> Entry:
        """Points that return to lots; what the lots cannot take back pays debts, or is a lot of its own."""
        entry_id, left, to_pending = entry_id or self.new_id(), points, 0
        returned: list[tuple[Lot, int]] = []
        for lot_id in shares.keys() & self.strangers.keys():
            stranger, put = self.strangers[lot_id], min(shares[lot_id], left)
            if put > 0:
                left -= put
                lot = self._new_lot(
                    entry_id,
                    put,
                    expires_at=stranger.expires_at,
                    order_id=stranger.order_id,
                    pending=self._is_early(stranger),
                    available_at=stranger.available_at,
                    origin_lot_id=lot_id,
                    pooled=stranger.pooled,
                )
                to_pending += put if lot.pending else 0
                self._revive(lot)
                returned.append((lot, put))
        for lot in reversed(self._in_order(shares.keys() & self.lots.keys())):
            put = min(shares[lot.lot_id], left, lot.points - lot.remaining)
            if put <= 0:
                continue
            left -= put
            self._move(entry_id, lot, put)
            to_pending += put if lot.pending else 0
            self._revive(lot)
            returned.append((lot, put))
        paid = min(self.account.debt, left)
        self.account.debt -= paid
        left -= paid
        if left:
            expires_at = max((lot.expires_at for lot, _ in returned if lot.expires_at), default=None)
            lot = self._new_lot(entry_id, left, expires_at=expires_at, order_id=order_id)
        entry = self._enter(
            REVERSE,
            entry_id,
            points,
            points - to_pending,
            to_pending,
            order_id=order_id,
            reverses_id=reverses_id,
            shortfall=shortfall,
            counted_at=counted_at,
        )
        for lot, put in returned:
            if not lot.pending:
                self._pay_debt(entry_id, lot, put)
        for lot, _ in returned:
            if self._is_past(lot) and not lot.pending and lot.free > 0:
                self._expire(lot)
        return entry

    def _enter(
        self,
        kind: int,
        entry_id: UUID,
        points: int,
        balance_points: int,
        pending_points: int,
        *,
        effective_at: datetime | None = None,
        **more: Any,
    ) -> Entry:
        """Writes an entry, and the account as it is after it."""
        account = self.account
        account.entries += 1
        account.version += 1
        entry = Entry(
            entry_id=entry_id,
            seq=account.entries,
            kind=kind,
            points=points,
            balance_points=balance_points,
            pending_points=pending_points,
            opening_balance=account.balance,
            opening_pending=account.pending,
            booked_at=self.now,
            effective_at=effective_at or self.now,
            **more,
        )
        account.balance += balance_points
        account.pending += pending_points
        self.entries.append(entry)
        return entry

    def _active(self) -> None:
        """Something happened: where points lapse by inactivity, all of them live on from now."""
        self.account.active_at = self.now
        renewed = self.terms.renewed_expiry
        if renewed is not None:
            for lot in self.lots.values():
                if lot.remaining > 0 and not self._is_past(lot) and lot.expires_at != renewed:
                    lot.expires_at = renewed
                    self._touch(lot)


def kept(points: int, total_minor: int, refunded_minor: int, *, cancelled: bool) -> int:
    """What an order keeps of the points that it gave, in proportion to what was not refunded, rounded up."""
    if cancelled or (total_minor > 0 and refunded_minor >= total_minor):
        return 0
    if not total_minor or not refunded_minor:
        return points
    return -(-points * (total_minor - refunded_minor) // total_minor)


def faults(
    account: Account, lots: Iterable[Lot], holds: Iterable[Hold], entries: Iterable[Entry]
) -> list[str]:
    """What is wrong with an account whose lots, holds and entries are all given; nothing, ever."""
    lots, found = list(lots), []
    ordered = sorted(entries, key=lambda entry: entry.seq)
    sums = {
        "balance of the lots": (
            account.balance,
            sum(x.remaining for x in lots if not x.pending) - account.debt,
        ),
        "pending of the lots": (account.pending, sum(x.remaining for x in lots if x.pending)),
        "held by the lots": (account.held, sum(x.held for x in lots)),
        "held by the holds": (account.held, sum(x.points for x in holds if x.state == OPEN)),
        "balance of the entries": (account.balance, sum(x.balance_points for x in ordered)),
        "pending of the entries": (account.pending, sum(x.pending_points for x in ordered)),
        "number of the entries": (account.entries, len(ordered)),
        "shortfall of the entries": (account.shortfall, sum(x.shortfall for x in ordered)),
        "lifetime": (
            account.lifetime,
            sum(x.points for x in ordered if x.kind == EARN) + sum(x.lifetime_points for x in ordered),
        ),
    }
    found += [f"{name}: {kept} is not {counted}" for name, (kept, counted) in sums.items() if kept != counted]
    found += [f"lot {x.lot_id}" for x in lots if not 0 <= x.held <= x.remaining <= x.points]
    balance = pending = 0
    for number, entry in enumerate(ordered, 1):
        if (entry.seq, entry.opening_balance, entry.opening_pending) != (number, balance, pending):
            found.append(f"entry {entry.seq} does not begin where the one before ended")
        balance += entry.balance_points
        pending += entry.pending_points
    return found
