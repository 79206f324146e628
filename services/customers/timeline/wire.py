"""Entries of a timeline to messages."""

from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from sqlalchemy import Row

from libs.instants import instant, stamp
from regulars.customers.v1 import timeline_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.customers.activities.wire import activity
from services.customers.notes.wire import note
from services.customers.timeline.queries import ACTIVITY, NOTE, ORDER, REPORT, At, Wanted


def wanted(request: pb.ListTimelineRequest, *, notes: bool) -> Wanted:
    """What a request asks for; without `notes` there are none."""
    return Wanted(
        kinds=frozenset(request.kinds),
        activity_kinds=frozenset(request.activity_kinds),
        since=instant(request.occurred_from) if request.HasField("occurred_from") else None,
        before=instant(request.occurred_before) if request.HasField("occurred_before") else None,
        notes=notes,
    )


def entry(place: At, found: Any, currency: str) -> pb.TimelineEntry:
    """The message of what stands at a place. `currency` is that of the business."""
    message = pb.TimelineEntry(
        id=str(place.entry_id),
        kind=place.kind,  # type: ignore[arg-type]  # the number of the enum
        occurred_at=stamp(place.occurred_at),
    )
    if place.kind == ACTIVITY:
        message.activity.CopyFrom(activity(found))
    elif place.kind == NOTE:
        message.note.CopyFrom(note(found))
    elif place.kind == ORDER:
        message.order.CopyFrom(_order(found, currency))
    elif place.kind == REPORT:
        facts = ParseDict(found.facts, Struct())
        message.report.CopyFrom(pb.TimelineReport(event=found.event, facts=facts))
    else:
        message.change.CopyFrom(
            pb.CustomerChange(
                kind=found.kind, changed_fields=found.fields, actor=ActorRef(subject=found.actor)
            )
        )
    return message


def _order(row: Row[Any], currency: str) -> pb.TimelineOrder:
    return pb.TimelineOrder(
        source=row.source,
        external_id=row.external_id,
        status=row.status,
        total_minor=row.total_minor,
        refunded_minor=row.refunded_minor,
        currency=currency,
        quantity=row.quantity,
        channel=row.channel,
        completed_at=stamp(row.completed_at),
    )
