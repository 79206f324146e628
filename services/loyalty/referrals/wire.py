"""Rows of referrals to messages."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row

from libs.instants import stamp
from regulars.loyalty.v1 import events_pb2 as events
from regulars.loyalty.v1 import referrals_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.loyalty.referrals import rules
from services.loyalty.referrals.rules import Terms


def code(terms: Terms, given: str | None) -> pb.ReferralCode | None:
    """The message of a code; None without one."""
    return pb.ReferralCode(code=given, link=terms.link(given)) if given else None


def state_name(state: int) -> str:
    """The name of a state, as answers tell it."""
    return pb.ReferralState.Name(state).removeprefix("REFERRAL_STATE_")  # type: ignore[arg-type]


def referral(row: Row[Any], terms: Terms) -> pb.Referral:
    """The message of a referral, for a business's people."""
    return pb.Referral(
        id=str(row.referral_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        referrer_id=str(row.referrer_id or ""),
        friend_id=str(row.friend_id or ""),
        state=row.state,
        reason=row.reason,
        matches=row.matches,
        invitation=code(terms, row.code),
        referrer_points=row.referrer_points,
        friend_points=row.friend_points,
        minimum_order_minor=row.minimum_order_minor,
        order_id=str(row.order_id or ""),
        created_at=stamp(row.created_at),
        registered_at=stamp(row.registered_at),
        qualified_at=stamp(row.qualified_at),
        rewarded_at=stamp(row.rewarded_at),
        expires_at=stamp(row.expires_at),
        reviewed_by=ActorRef(subject=row.reviewed_by) if row.reviewed_by else None,
    )


def mine(row: Row[Any], terms: Terms, *, brought: bool = False) -> pb.MyReferral:
    """The message of a referral for its referrer, or for the friend who was `brought`: nothing of the other one."""
    promised = row.friend_points if brought else row.referrer_points
    return pb.MyReferral(
        id=str(row.referral_id),
        state=rules.REGISTERED if row.state == rules.FLAGGED else row.state,  # type: ignore[arg-type]
        invitation=code(terms, row.code),
        points=promised if row.state in {*rules.OPEN, rules.REWARDED} else 0,
        minimum_order_minor=row.minimum_order_minor,
        created_at=stamp(row.created_at),
        expires_at=stamp(row.expires_at),
    )


def facts(row: Row[Any]) -> events.ReferralFacts:
    """What events tell of a referral."""
    return events.ReferralFacts(
        referral_id=str(row.referral_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        referrer_id=str(row.referrer_id or ""),
        friend_id=str(row.friend_id or ""),
        state=row.state,
        referrer_points=row.referrer_points,
        friend_points=row.friend_points,
        order_id=str(row.order_id or ""),
        registered_at=stamp(row.registered_at),
        qualified_at=stamp(row.qualified_at),
        rewarded_at=stamp(row.rewarded_at),
    )


def judged(row: Row[Any]) -> rules.Referral:
    """What decides about a referral whose friend has come."""
    return rules.Referral(
        state=row.state,
        registered_at=row.registered_at,
        expires_at=row.expires_at,
        minimum_order_minor=row.minimum_order_minor,
        qualified_at=row.qualified_at,
        approved=row.approved,
    )


def count(rows: Iterable[Row[Any]], into: pb.ReferralReport) -> None:
    """Writes the rows of `queries.report` into a report, with what they are together."""
    for row in rows:
        into.states.add(state=row.state, reason=row.reason, referrals=row.referrals)
        into.made += row.referrals
        into.registered += row.registered
        into.qualified += row.qualified
        into.rewarded += row.rewarded
        into.referrer_points += int(row.referrer_points)
        into.friend_points += int(row.friend_points)
    if into.registered:
        into.conversion_percent = round(100 * into.rewarded / into.registered, 2)
