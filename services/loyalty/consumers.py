"""What the loyalty service hears about customers."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from libs.db import Tx
from libs.deliveries import Handler
from libs.envelope import Event
from libs.instants import instant
from regulars.customers.v1 import events_pb2 as heard
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_BLOCKED
from services.loyalty import actions


async def customer_created(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerCreated]]) -> None:
    """A new customer is a member from the start."""
    for event in events:
        await _join(tx, event.message, event.version)


async def membership_joined(tx: Tx, rt: Any, events: Sequence[Event[heard.MembershipJoined]]) -> None:
    """So is one who joins another business."""
    for event in events:
        await _join(tx, event.message, event.version)


async def _join(tx: Tx, joined: heard.CustomerCreated | heard.MembershipJoined, version: int) -> None:
    await actions.join(
        tx,
        UUID(joined.business_id),
        UUID(joined.customer_id),
        version=version,
        joined_at=instant(joined.joined_at),
        blocked=joined.status == CUSTOMER_STATUS_BLOCKED,
    )


async def customer_updated(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerUpdated]]) -> None:
    """A blocked member earns and redeems nothing."""
    for event in events:
        changed = event.message
        await actions.set_standing(
            tx,
            UUID(changed.business_id),
            UUID(changed.customer_id),
            version=event.version,
            blocked=changed.status == CUSTOMER_STATUS_BLOCKED,
        )


async def customer_deleted(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerDeleted]]) -> None:
    """Points of a deleted customer are frozen."""
    for event in events:
        await _presence(tx, event.message, event.version, present=True, deleted=True)


async def customer_restored(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerRestored]]) -> None:
    """And free again after a restore."""
    for event in events:
        await _presence(tx, event.message, event.version, present=True, deleted=False)


async def membership_left(tx: Tx, rt: Any, events: Sequence[Event[heard.MembershipLeft]]) -> None:
    """Who leaves the business leaves its program."""
    for event in events:
        left = event.message
        await actions.set_presence(
            tx,
            [UUID(left.business_id)],
            UUID(left.customer_id),
            version=event.version,
            present=False,
            deleted=False,
        )


async def _presence(
    tx: Tx,
    told: heard.CustomerDeleted | heard.CustomerRestored,
    version: int,
    *,
    present: bool,
    deleted: bool,
) -> None:
    businesses = [UUID(business_id) for business_id in told.business_ids]
    await actions.set_presence(
        tx, businesses, UUID(told.customer_id), version=version, present=present, deleted=deleted
    )


HANDLERS = [
    Handler(heard.CustomerCreated, customer_created),
    Handler(heard.CustomerUpdated, customer_updated),
    Handler(heard.CustomerDeleted, customer_deleted),
    Handler(heard.CustomerRestored, customer_restored),
    Handler(heard.MembershipJoined, membership_joined),
    Handler(heard.MembershipLeft, membership_left),
]
