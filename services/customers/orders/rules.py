"""What an order becomes by what is told of it, and what it counts for; the same in whatever order it is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from services.customers.problems import RevisionReused

# OrderStatus. WAITING is an order that is known by its refund alone.
WAITING = 0
PENDING, PAID, FULFILLED, DELIVERED, CANCELLED = 1, 2, 3, 4, 5
REFUNDED, PARTIALLY_REFUNDED, RETURNED, PARTIALLY_RETURNED = 6, 7, 8, 9
# OrderCompletion
BY_PAYMENT, BY_DELIVERY = 1, 2
# RecordOutcome
CREATED, UPDATED, UNCHANGED, STALE, KEPT_WAITING = 1, 2, 3, 4, 5

MILESTONES = ("completed", "fulfilled", "delivered")

_WERE_DELIVERED = frozenset({DELIVERED, RETURNED, PARTIALLY_RETURNED})
_WERE_PAID = frozenset({PAID, FULFILLED, REFUNDED, PARTIALLY_REFUNDED}) | _WERE_DELIVERED

Items = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An order as one revision tells it. Amounts are minor units of the business's currency.

    `items`, `payments` and `deliveries` are as they are stored; `content` is a fingerprint of all that was said.
    """

    source: str
    external_id: str
    revision: int
    content: bytes
    status: int
    placed_at: datetime
    channel: str = ""
    store: str = ""
    items: Items = ()
    quantity: int = 0
    tax_included: bool = False
    subtotal_minor: int = 0
    discount_minor: int = 0
    shipping_minor: int = 0
    tax_minor: int = 0
    total_minor: int = 0
    refunded_minor: int = 0
    tags: tuple[str, ...] = ()
    payments: Items = ()
    deliveries: Items = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as it is kept. `refund_notice_minor` is the most that refunds told by themselves.

    `told.refunded_minor` is what counts: no more than the total, no less than the refunds' own word.
    """

    order_id: UUID
    customer_id: UUID | None
    told: Told
    local_day: date
    version: int
    refund_notice_minor: int = 0
    completed_at: datetime | None = None
    fulfilled_at: datetime | None = None
    delivered_at: datetime | None = None

    @property
    def counts(self) -> bool:
        """True if the order is part of what its customer spent."""
        return self.completed_at is not None and self.told.status != CANCELLED


@dataclass(frozen=True, slots=True)
class Terms:
    """How a business judges orders: the instant, its OrderCompletion, its time zone."""

    now: datetime
    completion: int
    zone: ZoneInfo


@dataclass(frozen=True, slots=True)
class Change:
    """An order after a record, what became of the record (RecordOutcome), and the events by name."""

    after: Order
    outcome: int
    events: tuple[str, ...] = ()


def recorded(before: Order | None, told: Told, terms: Terms, order_id: UUID, customer_id: UUID) -> Change:
    """The order once a revision is told. `order_id` and `customer_id` are those of an order not known before.

    The newest revision holds. What an older one proves (completed, fulfilled, delivered) is kept even if it
    comes late. Raises RevisionReused if the revision was told before with other content.
    """
    known = before is not None and before.told.status != WAITING
    if before is not None and known and told.revision <= before.told.revision:
        if told.revision < before.told.revision:
            after, events = _with_milestones(before, told, terms)
            return Change(_next(before, after), STALE, events)
        if told.content != before.told.content:
            raise RevisionReused(revision=told.revision)
        return Change(before, UNCHANGED)
    notice = before.refund_notice_minor if before else 0
    refunded = min(told.total_minor, max(told.refunded_minor, notice))
    after = Order(
        order_id=before.order_id if before else order_id,
        customer_id=before.customer_id if before is not None and known else customer_id,
        told=replace(told, refunded_minor=refunded),
        local_day=told.placed_at.astimezone(terms.zone).date(),
        version=before.version if before else 0,
        refund_notice_minor=notice,
        completed_at=before.completed_at if before else None,
        fulfilled_at=before.fulfilled_at if before else None,
        delivered_at=before.delivered_at if before else None,
    )
    after, events = _with_milestones(after, told, terms)
    earlier = before.told if before is not None and known else None
    if told.status == CANCELLED and (earlier is None or earlier.status != CANCELLED):
        events = ("cancelled", *events)
    if refunded != (earlier.refunded_minor if earlier else 0):
        events = (*events, "refunded")
    outcome = UPDATED if known else CREATED
    return Change(replace(after, version=after.version + 1), outcome, ("recorded", *events))


def refunded(before: Order | None, waiting: Order, total_minor: int) -> Change:
    """The order once a refund is told: `total_minor` is all that was refunded so far.

    `waiting` is what is kept for an order that is not known yet.
    """
    order = before or waiting
    notice = max(order.refund_notice_minor, total_minor)
    if order.told.status == WAITING:
        same = before is not None and notice == before.refund_notice_minor
        return Change(order if same else replace(order, refund_notice_minor=notice), KEPT_WAITING)
    counted = min(order.told.total_minor, max(order.told.refunded_minor, notice))
    if counted == order.told.refunded_minor:
        after = replace(order, refund_notice_minor=notice)
        return Change(after, UNCHANGED)
    told = replace(order.told, refunded_minor=counted)
    after = replace(order, told=told, refund_notice_minor=notice, version=order.version + 1)
    return Change(after, UPDATED, ("recorded", "refunded"))


def _with_milestones(order: Order, told: Told, terms: Terms) -> tuple[Order, tuple[str, ...]]:
    """The order with what `told` proves for the first time, and the events of it."""
    arrived = bool(told.deliveries) and all(each.get("delivered_at") for each in told.deliveries)
    delivered = told.status in _WERE_DELIVERED or (arrived and told.status != CANCELLED)
    paid = told.status in _WERE_PAID
    completed = delivered if terms.completion == BY_DELIVERY else paid or delivered
    after = replace(
        order,
        completed_at=order.completed_at or (terms.now if completed else None),
        fulfilled_at=order.fulfilled_at or (terms.now if told.status == FULFILLED else None),
        delivered_at=order.delivered_at or (terms.now if delivered else None),
    )
    new = [name for name in MILESTONES if getattr(after, f"{name}_at") != getattr(order, f"{name}_at")]
    return after, tuple(new)


def _next(before: Order, after: Order) -> Order:
    return after if after == before else replace(after, version=before.version + 1)


@dataclass(frozen=True, slots=True)
class Share:
    """What one order adds to its customer's metrics; `favourites` by (kind, name): (pieces, minor units)."""

    recorded: int = 0
    completed: int = 0
    cancelled: int = 0
    refunded: int = 0
    spent_minor: int = 0
    refunded_minor: int = 0
    items: int = 0
    day: date | None = None
    placed_at: datetime | None = None
    favourites: tuple[tuple[str, str, int, int], ...] = ()


def share(order: Order | None) -> Share:
    """What an order adds; nothing before it is known."""
    if order is None or order.told.status == WAITING:
        return Share()
    told = order.told
    if not order.counts:
        return Share(recorded=1, cancelled=int(told.status == CANCELLED))
    favourites: dict[tuple[str, str], tuple[int, int]] = {}
    for item in told.items:
        for kind in ("category", "brand"):
            name = item.get(kind)
            if name:
                pieces, minor = favourites.get((kind, str(name)), (0, 0))
                favourites[kind, str(name)] = (
                    pieces + int(str(item["quantity"])),
                    minor + int(str(item["amount_minor"])),
                )
    return Share(
        recorded=1,
        completed=1,
        refunded=int(told.refunded_minor > 0),
        spent_minor=told.total_minor,
        refunded_minor=told.refunded_minor,
        items=told.quantity,
        day=order.local_day,
        placed_at=told.placed_at,
        favourites=tuple(sorted((*key, *value) for key, value in favourites.items())),
    )


class Tally:
    """Sums what the metrics of customers gain and lose by changes of their orders.

    `customers` also have the first and last instants among their changed orders, and whether one moved away; `seen`
    has when the latest of all was placed.
    """

    COUNTED = ("recorded", "completed", "cancelled", "refunded", "spent_minor", "refunded_minor", "items")

    def __init__(self) -> None:
        self.customers: dict[UUID, dict[str, Any]] = {}
        self.seen: dict[UUID, datetime] = {}
        self.days: dict[tuple[UUID, date], list[int]] = {}
        self.favourites: dict[tuple[UUID, str, str], list[int]] = {}

    def change(self, before: Order | None, after: Order) -> None:
        """Takes in one order's change."""
        later = before is None or before.told.placed_at < after.told.placed_at
        self._move(after, share(before), share(after), later=later)

    def remove(self, order: Order) -> None:
        """Takes in that an order is there no more."""
        self._move(order, share(order), Share(), later=False)

    def _move(self, order: Order, old: Share, new: Share, *, later: bool) -> None:
        customer_id, placed_at = order.customer_id, order.told.placed_at
        if customer_id is None or (old == new and not later):
            return
        sums = self.customers.setdefault(
            customer_id, dict.fromkeys(self.COUNTED, 0) | {"first": None, "last": None, "moved": False}
        )
        self.seen[customer_id] = max(self.seen.get(customer_id, placed_at), placed_at)
        for name in self.COUNTED:
            sums[name] += getattr(new, name) - getattr(old, name)
        # What was the first or the last may be so no more: then both are looked for anew.
        sums["moved"] = sums["moved"] or (old.placed_at is not None and old.placed_at != new.placed_at)
        if new.placed_at is not None:
            sums["first"] = min(sums["first"] or new.placed_at, new.placed_at)
            sums["last"] = max(sums["last"] or new.placed_at, new.placed_at)
        for each, sign in ((old, -1), (new, 1)):
            if each.day is not None:
                day = self.days.setdefault((customer_id, each.day), [0, 0])
                day[0] += sign
                day[1] += sign * each.spent_minor
            for kind, name, pieces, minor in each.favourites:
                favourite = self.favourites.setdefault((customer_id, kind, name), [0, 0])
                favourite[0] += sign * pieces
                favourite[1] += sign * minor


def lifecycle_stage(orders: int, days: Sequence[date]) -> int:
    """LifecycleStage by the number of orders that count and the days of them in order.

    Loyal: at least 3 days whose intervals vary by at most half of their mean (standard deviation ÷ mean ≤ 0.5).
    Whole numbers only, so that it is the same wherever it is worked out.
    """
    if len(days) >= 3 and orders >= 3:
        gaps = [(later - earlier).days for earlier, later in pairwise(days)]
        total = sum(gaps)
        if 4 * (len(gaps) * sum(gap * gap for gap in gaps) - total * total) <= total * total:
            return 3
    return min(orders, 2)
