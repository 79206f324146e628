"""What the loyalty service hears: of businesses first, then of customers, then of what they did."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from libs import inbox
from libs.db import Tx
from libs.deliveries import Handler
from libs.envelope import Event
from libs.inbox import NotYet
from libs.instants import instant
from regulars.customers.v1 import events_pb2 as heard
from regulars.customers.v1.activities_pb2 import ACTIVITY_KIND_CUSTOM
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_BLOCKED, CUSTOMER_TYPE_GUEST
from regulars.customers.v1.orders_pb2 import ORDER_STATUS_CANCELLED
from regulars.segments.v1 import events_pb2 as of_segments
from services.loyalty import actions
from services.loyalty.actions import Joining
from services.loyalty.households import moves as households
from services.loyalty.ledger import bonuses, earning, occasions, work
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger.bonuses import Occasion
from services.loyalty.ledger.work import Heard
from services.loyalty.merges import actions as merges
from services.loyalty.merges import queries as merged
from services.loyalty.people import actions as people
from services.loyalty.people.actions import Facts
from services.loyalty.people.peers import facts_of
from services.loyalty.programs import actions as programs
from services.loyalty.programs import queries as of_programs
from services.loyalty.programs import rules
from services.loyalty.programs.rules import Line, Purchase
from services.loyalty.referrals import actions as referrals
from services.loyalty.referrals.actions import Joined
from services.loyalty.segments import actions as segments
from services.loyalty.tiers import actions as tiers
from services.loyalty.tiers import queries as of_tiers
from services.loyalty.tiers.actions import Said


async def business_created(tx: Tx, rt: Any, events: Sequence[Event[heard.BusinessCreated]]) -> None:
    """A new business has a program from the start."""
    for event in events:
        await _know_business(tx, event.message, event.version, archived=False)


async def business_updated(tx: Tx, rt: Any, events: Sequence[Event[heard.BusinessUpdated]]) -> None:
    """Its days may begin elsewhere; archived, nothing is earned any more."""
    for event in events:
        await _know_business(tx, event.message, event.version, archived=event.message.archived)


async def _know_business(
    tx: Tx, told: heard.BusinessCreated | heard.BusinessUpdated, version: int, *, archived: bool
) -> None:
    business_id = UUID(told.business_id)
    await programs.know_business(
        tx,
        business_id,
        version=version,
        currency=told.currency,
        time_zone=told.time_zone,
        archived=archived,
    )
    await inbox.unpark(tx, work.business_key(business_id))


async def about_people(
    rt: Any, events: Sequence[Event[heard.CustomerCreated | heard.CustomerUpdated]]
) -> Sequence[Facts] | None:
    """What customers tells of those whom the events name; None while it is away."""
    return await facts_of(rt, [UUID(event.message.customer_id) for event in events])


async def _know_people(
    tx: Tx,
    events: Sequence[Event[heard.CustomerCreated | heard.CustomerUpdated]],
    told: Sequence[Facts] | None,
) -> None:
    """Keeps what was told of people; whoever could not be asked for is asked for later."""
    customer_ids = [UUID(event.message.customer_id) for event in events]
    if told is None:
        await people.want(tx, customer_ids)
        return
    mine = set(customer_ids)
    await people.know(tx, [each for each in told if each.customer_id in mine])
    await occasions.complete_profiles(tx, customer_ids)


async def customer_created(
    tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerCreated]], told: Sequence[Facts] | None = None
) -> None:
    """A new customer is a member from the start."""
    await _join(tx, events)
    for event in events:
        if event.message.initial_tier:
            await _put(tx, event.message, event.actor)
    await _know_people(tx, events, told)


async def _put(tx: Tx, created: heard.CustomerCreated, actor: str) -> None:
    """An initial tier is an override; one that the program does not have changes nothing."""
    business_id, customer_id = UUID(created.business_id), UUID(created.customer_id)
    rows = await of_programs.of_business(tx, business_id)
    if not rows:
        raise NotYet(work.business_key(business_id))
    if (await merged.survivors(tx, [customer_id]))[customer_id] != customer_id:
        return
    if not await ledger.members(tx, business_id, [customer_id]):
        return  # gone again, or erased, before this was heard
    program = of_programs.program_of(rows[0])
    if (await of_tiers.ladder(tx, program.program_id)).has(created.initial_tier):
        said = Said(actor=actor.partition(":")[2])
        await tiers.set_overrides(tx, program, [customer_id], created.initial_tier, None, said)


async def membership_joined(tx: Tx, rt: Any, events: Sequence[Event[heard.MembershipJoined]]) -> None:
    """So is one who joins another business."""
    await _join(tx, events)
    await occasions.complete_profiles(tx, [UUID(event.message.customer_id) for event in events])


async def _join(
    tx: Tx, events: Sequence[Event[heard.CustomerCreated]] | Sequence[Event[heard.MembershipJoined]]
) -> None:
    joinings = [
        Joining(
            business_id=UUID(event.message.business_id),
            customer_id=UUID(event.message.customer_id),
            version=event.version,
            joined_at=instant(event.message.joined_at),
            blocked=event.message.status == CUSTOMER_STATUS_BLOCKED,
            guest=event.message.type == CUSTOMER_TYPE_GUEST,
        )
        for event in events
    ]
    await actions.join(tx, joinings)
    now = await merged.survivors(tx, [each.customer_id for each in joinings])
    await merges.mark(tx, now)
    whose = {
        (each.business_id, who) for each in joinings for who in (each.customer_id, now[each.customer_id])
    }
    await inbox.unpark(tx, *(work.member_key(*member) for member in whose))
    occasions = [
        Occasion(
            business_id=each.business_id,
            customer_id=now[each.customer_id],
            trigger=rules.SIGN_UP,
            key="sign_up",
            at=each.joined_at,
        )
        for each in joinings
    ]
    await bonuses.work_in_occasions(tx, occasions)
    codes = [event.message.referral_code for event in events]
    brought = [
        Joined(
            business_id=each.business_id,
            customer_id=now[each.customer_id],
            code=code,
            at=each.joined_at,
        )
        for code, each in zip(codes, joinings, strict=True)
        if code
    ]
    if brought:
        await referrals.register(tx, brought)


async def customer_updated(
    tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerUpdated]], told: Sequence[Facts] | None = None
) -> None:
    """A blocked member earns and redeems nothing."""
    for event in events:
        changed = event.message
        await actions.set_standing(
            tx,
            UUID(changed.business_id),
            UUID(changed.customer_id),
            version=event.version,
            blocked=changed.status == CUSTOMER_STATUS_BLOCKED,
            guest=changed.type == CUSTOMER_TYPE_GUEST,
        )
    await referrals.people_changed(tx, {UUID(event.message.customer_id) for event in events})
    await _know_people(tx, events, told)


async def customer_deleted(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerDeleted]]) -> None:
    """Points of a deleted customer are frozen, and nobody's but theirs."""
    for event in events:
        await _presence(tx, event.message, event.version, present=True, deleted=True)
    await households.leave_gone(tx, {UUID(event.message.customer_id) for event in events})


async def customer_restored(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerRestored]]) -> None:
    """And free again after a restore."""
    for event in events:
        await _presence(tx, event.message, event.version, present=True, deleted=False)
    await referrals.people_changed(tx, {UUID(event.message.customer_id) for event in events})


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
    await households.leave_gone(tx, {UUID(event.message.customer_id) for event in events})


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


async def order_changed(tx: Tx, rt: Any, events: Sequence[Event[Any]]) -> None:
    """Works in what events tell of orders that were completed, or cancelled; all bear an order's whole state."""
    newest: dict[UUID, Event[Any]] = {}
    for event in events:
        before, order = newest.get(event.aggregate_id), event.message.order
        told = order.HasField("completed_at") or order.status == ORDER_STATUS_CANCELLED
        if told and (before is None or before.version < event.version):
            newest[event.aggregate_id] = event
    now = await merged.survivors(tx, [UUID(event.message.order.customer_id) for event in newest.values()])
    orders = [_heard(event.message.order, event.version, now) for event in newest.values()]
    if orders:
        await earning.work_in_orders(tx, orders)
    completed = [each for each in orders if each.completed_at is not None]
    if completed:
        await referrals.orders_changed(
            tx, {each.order_id for each in completed}, {each.customer_id for each in completed}
        )


def _heard(order: heard.OrderState, version: int, now: Mapping[UUID, UUID]) -> Heard:
    return Heard(
        order_id=UUID(order.order_id),
        business_id=UUID(order.business_id),
        customer_id=now[UUID(order.customer_id)],
        version=version,
        cancelled=order.status == ORDER_STATUS_CANCELLED,
        completed_at=instant(order.completed_at) if order.HasField("completed_at") else None,
        local_day=date.fromisoformat(order.local_day),
        refunded_minor=order.refunded_total_minor,
        purchase=Purchase(
            placed_at=instant(order.placed_at),
            currency=order.currency,
            total_minor=order.total_minor,
            subtotal_minor=order.subtotal_minor,
            discount_minor=order.discount_minor,
            shipping_minor=order.shipping_minor,
            tax_minor=order.tax_minor,
            channel=order.channel,
            store=order.store,
            lines=tuple(
                Line(item.sku, item.category, item.brand, item.quantity, item.amount_minor)
                for item in order.items
            ),
        ),
    )


async def activity_recorded(tx: Tx, rt: Any, events: Sequence[Event[heard.ActivityRecorded]]) -> None:
    """A custom activity may be worth a bonus."""
    now = await merged.survivors(tx, [UUID(event.message.customer_id) for event in events])
    occasions = [
        Occasion(
            business_id=UUID(event.message.business_id),
            customer_id=now[UUID(event.message.customer_id)],
            trigger=rules.CUSTOM_EVENT,
            key=f"activity:{event.message.activity_id}",
            at=instant(event.message.occurred_at),
            event=event.message.name,
        )
        for event in events
        if event.message.kind == ACTIVITY_KIND_CUSTOM
    ]
    if occasions:
        await bonuses.work_in_occasions(tx, occasions)


async def feedback_submitted(tx: Tx, rt: Any, events: Sequence[Event[heard.FeedbackSubmitted]]) -> None:
    """A review may be worth a bonus, once for each."""
    now = await merged.survivors(tx, [UUID(event.message.customer_id) for event in events])
    reviews = [
        Occasion(
            business_id=UUID(event.message.business_id),
            customer_id=now[UUID(event.message.customer_id)],
            trigger=rules.REVIEW,
            key=f"review:{event.message.feedback_id}",
            at=instant(event.message.submitted_at),
        )
        for event in events
        if event.message.kind == heard.FEEDBACK_KIND_REVIEW
    ]
    if reviews:
        await bonuses.work_in_occasions(tx, reviews)


async def segment_changed(
    tx: Tx, rt: Any, events: Sequence[Event[of_segments.SegmentAssigned | of_segments.SegmentUnassigned]]
) -> None:
    """Who is in a segment may earn and redeem what is for its members. Of the erased nothing is kept."""
    told = [
        segments.Told(
            segment_id=UUID(event.message.segment_id),
            customer_id=UUID(event.message.customer_id),
            business_id=UUID(event.message.business_id),
            inside=isinstance(event.message, of_segments.SegmentAssigned),
            version=event.message.version,
        )
        for event in events
    ]
    known = await work.known_members(tx, {(each.business_id, each.customer_id) for each in told})
    await segments.place(
        tx,
        [each for each in told if not merges.is_erased(known[each.business_id, each.customer_id])],
    )


async def customer_merged(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerMerged]]) -> None:
    """Points, holds, orders and cards of two who are one go to the one who stays."""
    for event in events:
        await merges.apply_merge(tx, _merge(event.message))


async def customer_unmerged(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerUnmerged]]) -> None:
    """And back to whom they came from."""
    for event in events:
        await merges.undo_merge(tx, _merge(event.message))


def _merge(told: heard.CustomerMerged | heard.CustomerUnmerged) -> merges.Merge:
    return merges.Merge(UUID(told.operation_id), UUID(told.source_id), UUID(told.target_id))


async def customer_erased(tx: Tx, rt: Any, events: Sequence[Event[heard.CustomerErased]]) -> None:
    """What is personal is gone; the ledger stays, of nobody."""
    for event in events:
        await merges.erase(tx, UUID(event.message.customer_id))


# In this order within a batch: what comes first is what the others need.
HANDLERS = [
    Handler(heard.BusinessCreated, business_created),
    Handler(heard.BusinessUpdated, business_updated),
    Handler(heard.CustomerCreated, customer_created, about_people),
    Handler(heard.CustomerUpdated, customer_updated, about_people),
    Handler(heard.CustomerDeleted, customer_deleted),
    Handler(heard.CustomerRestored, customer_restored),
    Handler(heard.MembershipJoined, membership_joined),
    Handler(heard.MembershipLeft, membership_left),
    Handler(heard.CustomerMerged, customer_merged),
    Handler(heard.CustomerUnmerged, customer_unmerged),
    Handler(of_segments.SegmentAssigned, segment_changed),
    Handler(of_segments.SegmentUnassigned, segment_changed),
    Handler(heard.OrderRecorded, order_changed),
    Handler(heard.OrderCompleted, order_changed),
    Handler(heard.OrderRefunded, order_changed),
    Handler(heard.OrderCancelled, order_changed),
    Handler(heard.ActivityRecorded, activity_recorded),
    Handler(heard.FeedbackSubmitted, feedback_submitted),
    Handler(heard.CustomerErased, customer_erased),
]
