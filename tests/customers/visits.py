"""Activities to record in tests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from libs.ids import new_id
from libs.instants import stamp
from regulars.customers.v1 import activities_pb2 as pb
from regulars.customers.v1.activities_pb2_grpc import ActivitiesServiceStub
from tests.customers.shop import Shop


def activity(at: datetime | None = None, **fields: Any) -> pb.Activity:
    """A page view with an id of its own, unless told otherwise."""
    values: dict[str, Any] = {"id": str(new_id()), "kind": pb.ACTIVITY_KIND_PAGE_VIEW} | fields
    return pb.Activity(occurred_at=stamp(at), **values)


def item(customer_id: str, at: datetime | None = None, **fields: Any) -> pb.ActivityItem:
    """The same as an item of a batch."""
    return pb.ActivityItem(customer_id=customer_id, activity=activity(at, **fields))


async def record(shop: Shop, items: Sequence[pb.ActivityItem]) -> pb.RecordActivitiesResponse:
    """Records a batch."""
    request = pb.RecordActivitiesRequest(items=items)
    answer: pb.RecordActivitiesResponse = await shop.calls(ActivitiesServiceStub).RecordActivities(request)
    return answer


async def record_one(shop: Shop, customer_id: str, given: pb.Activity, **fields: Any) -> pb.Activity:
    """Records one activity of a customer."""
    request = pb.RecordCustomerActivityRequest(customer_id=customer_id, activity=given, **fields)
    made: pb.Activity = await shop.calls(ActivitiesServiceStub).RecordCustomerActivity(request)
    return made


def on(year: int, month: int, day: int, hour: int = 12) -> datetime:
    """An instant in UTC."""
    return datetime(year, month, day, hour, tzinfo=UTC)
