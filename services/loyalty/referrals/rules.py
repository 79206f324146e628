"""What becomes of a referral: who may be rewarded for whom, by which order, and when it is over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

# ReferralState
INVITED, REGISTERED, FLAGGED, QUALIFIED, REWARDED, REFUSED, EXPIRED, REVOKED, VOIDED = range(1, 10)
OPEN = (INVITED, REGISTERED, FLAGGED, QUALIFIED)
# What events and time may still change. A flagged one waits for its review, and the others are over.
JUDGED = (REGISTERED, QUALIFIED, REWARDED)
# ReferralMatch
EMAIL, PHONE, ADDRESS, NAME_AND_BIRTH_DATE, DEVICE = range(1, 6)
_CONTACT = {EMAIL, PHONE, NAME_AND_BIRTH_DATE}
REFUSE, REVIEW, ALLOW = "REFUSE", "REVIEW", "ALLOW"

# Ten letters and digits of Crockford's base 32, 45 bits of them by chance. The first is always the same: nine in a row
# are no phone, and hardly a name.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FIRST, CODE_BYTES = "R", 9

# A customer who comes into being with their first order may be a little younger than it.
SLACK = timedelta(days=1)
# How often those are looked at that wait for somebody who is blocked, and for how long.
AGAIN_AFTER, WAITS_FOR = timedelta(hours=6), timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a program says about referrals; see ReferralSettings."""

    enabled: bool = False
    referrer_points: int = 0
    friend_points: int = 0
    minimum_order_minor: int = 0
    qualify_days: int = 90
    invitation_days: int = 30
    pending_days: int = 0
    limit: int = 0
    limit_per_period: int = 0
    limit_days: int = 30
    same_contact: str = REFUSE
    same_address: str = REVIEW
    circular: str = REFUSE
    link_template: str = ""

    def link(self, code: str) -> str:
        """Where a friend goes with this code; "" if there is no such place."""
        return self.link_template.replace("{code}", code)


def terms_of(stored: Mapping[str, Any]) -> Terms:
    """Terms from their stored form, which is that of the message."""
    known = {name: value for name, value in stored.items() if value and name in Terms.__slots__}
    for name in ("same_contact", "same_address", "circular"):
        if name in known:
            known[name] = str(known[name]).removeprefix("REFERRAL_VERDICT_")
    if "minimum_order_minor" in known:
        known["minimum_order_minor"] = int(known["minimum_order_minor"])
    return Terms(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """A completed order of a friend, as it is now. `worth_minor` is what is left of it after refunds."""

    order_id: UUID
    placed_at: datetime
    completed_at: datetime
    worth_minor: int
    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Referral:
    """What decides about a referral whose friend has come."""

    state: int
    registered_at: datetime
    expires_at: datetime | None
    minimum_order_minor: int
    qualified_at: datetime | None = None
    approved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of it now.

    `alike` is in what the two agree, None if nobody was asked; `circular`: the friend brought the referrer, if over
    others; `rewarded` and `rewarded_lately` count the referrer's other friends; `frozen`: one of the two earns nothing.
    """

    orders: Sequence[Bought] = ()
    alike: frozenset[int] | None = None
    circular: bool = False
    rewarded: int = 0
    rewarded_lately: int = 0
    frozen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a referral becomes: its state, why, by which order, and when to look again, besides after an event."""

    state: int
    reason: str = ""
    order_id: UUID | None = None
    look_at: datetime | None = None


def code_of(by_chance: bytes) -> str:
    """The code that these CODE_BYTES bytes make."""
    return _FIRST + "".join(_ALPHABET[each % len(_ALPHABET)] for each in by_chance)


def finding(terms: Terms, facts: Facts) -> tuple[str, str]:
    """What stands against a referral: its name, and REFUSE or REVIEW; two empty texts if nothing does."""
    alike = facts.alike or frozenset()
    found = [
        ("CIRCULAR", terms.circular if facts.circular else ALLOW),
        ("SAME_CONTACT", terms.same_contact if alike & _CONTACT else ALLOW),
        ("SAME_ADDRESS", terms.same_address if alike - _CONTACT else ALLOW),
    ]
    for wanted in (REFUSE, REVIEW):
        for name, verdict in found:
            if verdict == wanted:
                return name, verdict
    return "", ""


def judge(of: Referral, terms: Terms, facts: Facts, now: datetime) -> Outcome:
    """What becomes of a referral that is registered, qualified or rewarded."""
    order = qualifying(of, facts.orders)
    if of.state == REWARDED:
        return Outcome(state=REWARDED if order else REVOKED, order_id=order.order_id if order else None)
    if of.state == QUALIFIED and order is None:
        return Outcome(state=REVOKED)
    if of.state == REGISTERED:
        if any(not each.cancelled and each.placed_at < of.registered_at - SLACK for each in facts.orders):
            return Outcome(state=REFUSED, reason="NOT_NEW")
        name, verdict = ("", "") if of.approved else finding(terms, facts)
        if verdict:
            return Outcome(state=REFUSED if verdict == REFUSE else FLAGGED, reason=name)
        if order is None:
            if of.expires_at is not None and of.expires_at <= now:
                return Outcome(state=EXPIRED)
            return Outcome(state=REGISTERED, look_at=of.expires_at)
        if reached(terms, facts):
            return Outcome(state=REFUSED, reason="LIMIT_REACHED", order_id=order.order_id)
    assert order is not None
    if not facts.frozen:
        return Outcome(state=REWARDED, order_id=order.order_id)
    if (of.qualified_at or now) + WAITS_FOR <= now:
        return Outcome(state=EXPIRED, reason="FROZEN", order_id=order.order_id)
    return Outcome(state=QUALIFIED, reason="FROZEN", order_id=order.order_id, look_at=now + AGAIN_AFTER)


def qualifying(of: Referral, orders: Iterable[Bought]) -> Bought | None:
    """The first of a friend's orders that is worth the minimum and was completed in time."""
    found = [
        each
        for each in orders
        if not each.cancelled
        and each.worth_minor >= max(of.minimum_order_minor, 1)
        and (of.expires_at is None or each.completed_at < of.expires_at)
    ]
    return min(found, key=lambda each: (each.completed_at, each.order_id), default=None)


def reached(terms: Terms, facts: Facts) -> bool:
    """True if the referrer gets no points for another friend."""
    in_all = terms.limit and facts.rewarded >= terms.limit
    return bool(in_all or (terms.limit_per_period and facts.rewarded_lately >= terms.limit_per_period))
