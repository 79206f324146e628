"""Rows of households to messages."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs.instants import stamp
from libs.problems import InvalidArgument
from regulars.loyalty.v1 import events_pb2 as events
from regulars.loyalty.v1 import households_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.loyalty.households.queries import Share
from services.loyalty.programs.queries import Program


def reason_of(request: pb.AddHouseholdMemberRequest) -> str:
    """Why staff take a member in. Raises InvalidArgument if it is blank."""
    reason = request.reason.strip()
    if not reason:
        raise InvalidArgument.of("reason", "must not be blank", "REQUIRED")
    return reason


def household(
    row: Row[Any],
    program: Program,
    members: Sequence[Row[Any]],
    shares: Mapping[UUID, Share],
    told: Mapping[UUID, Mapping[str, str]],
    *,
    own: bool,
) -> pb.Household:
    """The message of a household. `told` is what was sealed of each member; `own`: a member reads it, not staff."""
    return pb.Household(
        id=str(row.household_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        members=[
            _member(each, shares[each.customer_id], told.get(each.customer_id, {}), own=own)
            for each in members
        ],
        largest=program.settings.largest_household,
        created_at=stamp(row.created_at),
        closed_at=stamp(row.closed_at),
        etag=f"{row.version}.{_print(members, shares)}",
    )


def is_stale(row: Row[Any], etag: str) -> bool:
    """True if a household is not what it was with this etag: others are in it. Points may have moved."""
    return bool(etag) and etag.partition(".")[0] != str(row.version)


def _print(members: Sequence[Row[Any]], shares: Mapping[UUID, Share]) -> str:
    """A short print of what changes by itself: the members' points."""
    return f"{zlib.crc32(repr([shares[each.customer_id] for each in members]).encode()):08x}"


def _member(row: Row[Any], share: Share, told: Mapping[str, str], *, own: bool) -> pb.HouseholdMember:
    staff = bool(row.added_by) and not own
    return pb.HouseholdMember(
        customer_id=str(row.customer_id),
        joined_at=stamp(row.joined_at),
        balance=share.balance,
        spendable=share.spendable,
        frozen=share.frozen,
        reason="" if own else told.get("reason", ""),
        added_by=ActorRef(subject=row.added_by, display_name=told.get("actor_name", "")) if staff else None,
    )


def invitation(row: Row[Any]) -> pb.HouseholdInvitation:
    """The message of an invitation."""
    return pb.HouseholdInvitation(id=str(row.invitation_id), code=row.code, expires_at=stamp(row.expires_at))


def facts(row: Row[Any], inside: Sequence[UUID]) -> events.HouseholdFacts:
    """What events tell of a household with these members."""
    return events.HouseholdFacts(
        household_id=str(row.household_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        customer_ids=[str(each) for each in inside],
        created_at=stamp(row.created_at),
        closed_at=stamp(row.closed_at),
    )
