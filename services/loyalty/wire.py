"""Membership rows to messages."""

from typing import Any

from sqlalchemy import Row

from libs.instants import stamp
from regulars.loyalty.v1 import loyalty_pb2 as pb


def membership(row: Row[Any]) -> pb.Membership:
    """The message of a row."""
    frozen = row.blocked or row.deleted
    return pb.Membership(
        customer_id=str(row.customer_id),
        business_id=str(row.business_id),
        joined_at=stamp(row.joined_at),
        status=pb.MEMBERSHIP_STATUS_FROZEN if frozen else pb.MEMBERSHIP_STATUS_ACTIVE,
    )
