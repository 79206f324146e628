"""Reads about memberships."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from libs.db import Tx
from libs.problems import InvalidArgument
from services.loyalty.problems import MembershipNotFound
from services.loyalty.tables import memberships

_mine = memberships.c


async def membership(tx: Tx, customer_id: UUID, requested: str) -> Row[Any]:
    """A customer's membership at the business that a request names, else at the only one that the caller sees.

    Raises MembershipNotFound, InvalidArgument if several businesses are meant.
    """
    wanted = select(memberships).where(
        _mine.tenant_id == tx.tenant_id,
        _mine.customer_id == customer_id,
        _mine.present,
        _mine.joined_at.is_not(None),
        _mine.merged_into.is_(None),
    )
    if requested:
        wanted = wanted.where(_mine.business_id == UUID(requested))
    elif tx.caller.businesses is not None:
        wanted = wanted.where(_mine.business_id.in_(tx.caller.businesses))
    found = (await tx.execute(wanted.limit(2))).all()
    if not found:
        raise MembershipNotFound
    if len(found) > 1:
        raise InvalidArgument.of(
            "business_id", "name the business: the customer is a member of several", "REQUIRED"
        )
    return found[0]
