"""What the timeline hears: one line for each event that it shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from libs.db import Tx
from libs.deliveries import Handler
from libs.envelope import Event
from regulars.customers.v1 import events_pb2 as customers
from regulars.loyalty.v1 import events_pb2 as loyalty
from services.customers.timeline import actions
from services.customers.timeline.actions import Report

# What is shown of an event: its own texts and numbers, or those of its message about the whole.
_ORDER = ("order_id", "total_minor")
_POINTS = ("points", "balance")
_TIER = ("tier", "previous_tier", "why")
_REDEMPTION = ("redemption_id", "reward_id", "points")
SHOWN: dict[type[Message], tuple[str, ...]] = {
    customers.OrderCompleted: _ORDER,
    customers.OrderCancelled: _ORDER,
    customers.OrderRefunded: ("order_id", "refunded_total_minor"),
    loyalty.PointsEarned: (*_POINTS, "order_id", "source"),
    loyalty.PointsRedeemed: (*_POINTS, "order_id"),
    loyalty.PointsExpired: _POINTS,
    loyalty.PointsExpiring: _POINTS,
    loyalty.PointsAdjusted: _POINTS,
    loyalty.PointsReversed: (*_POINTS, "order_id"),
    loyalty.PointsTransferred: (*_POINTS, "other_customer_id"),
    loyalty.TierUpgraded: _TIER,
    loyalty.TierDowngraded: _TIER,
    loyalty.TierDowngradePending: ("tier", "previous_tier"),
    loyalty.ProgressMilestone: ("rule_id", "percent", "stamps", "needed"),
    loyalty.CardCompleted: ("rule_id", "points", "offer"),
    loyalty.RewardRedeemed: _REDEMPTION,
    loyalty.RewardUsed: _REDEMPTION,
    loyalty.RewardCancelled: _REDEMPTION,
    loyalty.RewardExpired: _REDEMPTION,
    loyalty.ReferralRegistered: ("referral_id",),
    loyalty.ReferralRewarded: ("referral_id",),
    loyalty.ReferralRevoked: ("referral_id",),
    loyalty.HouseholdJoined: ("household_id",),
    loyalty.HouseholdLeft: ("household_id", "reason"),
}
# The message about the whole, and the fields that say who it is about.
_WHOLES = ("order", "account", "redemption", "referral", "household")
_WHO = ("customer_id", "referrer_id", "friend_id")


async def show(tx: Tx, rt: Any, events: Sequence[Event[Message]]) -> None:
    """Shows events on the timelines of the customers whom they are about."""
    await actions.note_reports(tx, [report for event in events for report in reports(event)])


def reports(event: Event[Message]) -> list[Report]:
    """What an event says, for each customer whom it is about. Texts that are empty say nothing."""
    message: Any = event.message
    found = {path[-1]: _at(message, path) for path in _paths(message.DESCRIPTOR)}
    said = {name: found[name] for name in SHOWN[type(message)]}
    facts = {name: value for name, value in said.items() if value != ""}
    return [
        Report(UUID(found["business_id"]), UUID(found[who]), event.id, event.subject, event.time, facts)
        for who in _WHO
        if found.get(who)
    ]


def _paths(kind: Descriptor) -> list[tuple[str, ...]]:
    """The plain fields of the message about the whole, and then those of the event: what it says itself holds."""
    inner = [
        (whole.name, field.name)
        for whole in kind.fields
        if whole.name in _WHOLES and whole.message_type is not None
        for field in whole.message_type.fields
        if _is_plain(field)
    ]
    return [*inner, *((field.name,) for field in kind.fields if _is_plain(field))]


def _is_plain(field: Any) -> bool:
    return field.message_type is None and not field.is_repeated


def _at(message: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        message = getattr(message, name)
    return message


HANDLERS = [Handler(message, show) for message in SHOWN]
