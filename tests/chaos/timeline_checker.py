"""What must hold of timelines once it is quiet: all that happened to a customer, once, the newest first."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from libs.envelope import Letter, read
from regulars.customers.v1 import events_pb2 as events
from regulars.customers.v1 import orders_pb2 as orders
from regulars.customers.v1 import timeline_pb2 as pb
from regulars.customers.v1.timeline_pb2_grpc import TimelineServiceStub
from regulars.loyalty.v1 import events_pb2 as loyalty
from tests.chaos.deeds import Deed
from tests.customers.shop import Shop

PAGE = 100
# What is shown of what was told, and by which of its messages it says whose it is.
SHOWN: dict[str, tuple[Any, str]] = {
    "customers.order.completed": (events.OrderCompleted, "order"),
    "customers.order.cancelled": (events.OrderCancelled, "order"),
    "customers.order.refunded": (events.OrderRefunded, "order"),
    "customers.points.earned": (loyalty.PointsEarned, "account"),
    "customers.points.redeemed": (loyalty.PointsRedeemed, "account"),
    "customers.points.expired": (loyalty.PointsExpired, "account"),
    "customers.points.expiring": (loyalty.PointsExpiring, "account"),
    "customers.points.adjusted": (loyalty.PointsAdjusted, "account"),
    "customers.points.reversed": (loyalty.PointsReversed, "account"),
    "customers.points.transferred": (loyalty.PointsTransferred, "account"),
    "customers.tier.upgraded": (loyalty.TierUpgraded, ""),
    "customers.tier.downgraded": (loyalty.TierDowngraded, ""),
    "customers.tier.downgrade_pending": (loyalty.TierDowngradePending, ""),
    "customers.progress.milestone": (loyalty.ProgressMilestone, ""),
    "customers.card.completed": (loyalty.CardCompleted, ""),
    "customers.reward.redeemed": (loyalty.RewardRedeemed, "redemption"),
    "customers.reward.used": (loyalty.RewardUsed, "redemption"),
    "customers.reward.cancelled": (loyalty.RewardCancelled, "redemption"),
    "customers.reward.expired": (loyalty.RewardExpired, "redemption"),
    "customers.household.joined": (loyalty.HouseholdJoined, ""),
    "customers.household.left": (loyalty.HouseholdLeft, ""),
}


async def timelines(shop: Shop, customers: Iterable[str]) -> dict[str, list[pb.TimelineEntry]]:
    """The whole timeline of each member, page by page."""
    stub: Any = shop.calls(TimelineServiceStub)
    found: dict[str, list[pb.TimelineEntry]] = {}
    for customer_id in customers:
        entries, token, pages = found.setdefault(customer_id, []), "", 0
        while token or not pages:
            request = pb.ListTimelineRequest(customer_id=customer_id, page_size=PAGE, page_token=token)
            page = await stub.ListTimeline(request)
            entries += page.entries
            token, pages = page.next_page_token, pages + 1
    return found


def visited(shown: Mapping[str, Sequence[pb.TimelineEntry]]) -> dict[str, int]:
    """When each customer was last here without buying, in epoch seconds."""
    return {
        customer_id: max(each.occurred_at.seconds for each in visits)
        for customer_id, entries in shown.items()
        if (visits := [each for each in entries if each.kind == pb.TIMELINE_KIND_ACTIVITY])
    }


def faults(
    shown: Mapping[str, Sequence[pb.TimelineEntry]],
    deeds: Iterable[Deed],
    held: Mapping[str, orders.Order],
    sent: Collection[Letter],
) -> list[str]:
    """Timelines that are not in order, or have not all, or something twice."""
    wanted: dict[str, Counter[tuple[int, str]]] = defaultdict(Counter)
    for order in held.values():
        wanted[order.customer_id][pb.TIMELINE_KIND_ORDER, order.id] += 1
    for deed in deeds:
        if deed.rpc == "RecordActivities":
            wanted[deed.request.items[0].customer_id][pb.TIMELINE_KIND_ACTIVITY, deed.id] += 1
    for letter in sent:
        if letter.subject in SHOWN:
            message, whole = SHOWN[letter.subject]
            told = read(letter, message)
            about = getattr(told.message, whole) if whole else told.message
            wanted[about.customer_id][pb.TIMELINE_KIND_REPORT, str(told.id)] += 1
    found = []
    for customer_id, entries in shown.items():
        places = [(each.occurred_at.ToNanoseconds(), each.id) for each in entries]
        if places != sorted(places, reverse=True):
            found.append(f"the timeline of {customer_id} is not in order")
        seen = Counter((int(each.kind), each.id) for each in entries)
        beginnings = [each for each in entries if each.kind == pb.TIMELINE_KIND_MEMBERSHIP]
        if len(beginnings) != 1:
            found.append(f"{customer_id} began {len(beginnings)} times")
        for each in beginnings:
            del seen[int(each.kind), each.id]
        found += [f"the timeline of {customer_id} lacks {each}" for each in wanted[customer_id] - seen]
        found += [
            f"the timeline of {customer_id} has {each} too often" for each in seen - wanted[customer_id]
        ]
    return found
