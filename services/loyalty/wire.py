"""Membership rows to messages."""

from typing import Any

from sqlalchemy import Row

from libs.instants import stamp
from regulars.loyalty.v1 import loyalty_pb2 as pb
from services.loyalty.cards.rules import Card, here
from services.loyalty.programs.rules import Rule


def membership(row: Row[Any]) -> pb.Membership:
    """The message of a row."""
    frozen = row.blocked or row.deleted
    return pb.Membership(
        customer_id=str(row.customer_id),
        business_id=str(row.business_id),
        joined_at=stamp(row.joined_at),
        status=pb.MEMBERSHIP_STATUS_FROZEN if frozen else pb.MEMBERSHIP_STATUS_ACTIVE,
    )


def stamp_card(rule: Rule, card: Card) -> pb.StampCardProgress:
    """The message of how far a member has come with a card."""
    return pb.StampCardProgress(
        rule_id=str(rule.rule_id),
        name=rule.name,
        stamps=here(rule, card),
        needed=int(rule.terms["stamps"]),
        filled=card.filled,
        offer=str(rule.terms.get("offer", "")),
        points=int(rule.terms.get("points", 0)),
    )
