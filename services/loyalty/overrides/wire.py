"""Messages of bulk overrides to values and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs.instants import instant
from libs.problems import Faults
from regulars.loyalty.v1 import tiers_pb2 as pb


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. `tier` None: overrides end."""

    customer_ids: Sequence[UUID]
    segment_id: UUID | None
    tier: str | None
    until: datetime | None
    reason: str


def asked(request: pb.OverrideTiersRequest, now: datetime) -> Asked:
    """What a request asks for. Raises InvalidArgument naming each wrong field."""
    wrong = Faults()
    until = instant(request.until) if request.HasField("until") else None
    if not request.ids and not request.segment_id:
        wrong.add("ids", "name customers or a segment", "REQUIRED")
    if not request.reason.strip():
        wrong.add("reason", "must not be blank", "REQUIRED")
    if request.clear and request.tier:
        wrong.add("tier", "is not set where overrides end", "INVALID")
    if request.clear and until is not None:
        wrong.add("until", "is not set where overrides end", "INVALID")
    if not request.clear and not request.tier.strip():
        wrong.add("tier", "is needed", "REQUIRED")
    if until is not None and until <= now:
        wrong.add("until", "must be in the future", "OUT_OF_RANGE")
    wrong.refuse()
    return Asked(
        customer_ids=sorted({UUID(each) for each in request.ids}),
        segment_id=UUID(request.segment_id) if request.segment_id else None,
        tier=None if request.clear else request.tier,
        until=until,
        reason=request.reason.strip(),
    )


def fault(row: Row[Any]) -> pb.TierOverrideFault:
    """The message of a member that it could not be done for."""
    return pb.TierOverrideFault(customer_id=str(row.customer_id), reason=row.fault)
