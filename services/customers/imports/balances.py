"""Points that customers bring along, as a row of a file tells of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from libs import formats
from services.customers.profiles.rules import external_key

MOST_POINTS = 1_000_000_000  # of one row


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Whose they are, by one or more of their keys, and what loyalty is told of them."""

    customer_id: UUID | None
    external_id: str
    email: str
    phone: str
    points: int
    expires_at: datetime | None
    earned_at: datetime | None
    lifetime_points: int
    program: str
    reason: str
    reference: str

    def keys(self, business_id: UUID, source: str) -> dict[str, str]:
        """What finds the customer, by kind, in the form in which it is compared."""
        found = {"email": formats.email(self.email) if self.email else "", "phone": self.phone}
        if self.external_id:
            found["external_id"] = external_key(business_id, source, self.external_id)
        return {kind: value for kind, value in found.items() if value}


def faults(given: Mapping[str, Any], wrong: Collection[str], now: datetime) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the values of a row together: (target, reason, expected). `wrong` cells said so already."""
    if not (given.get("balance.points") or given.get("balance.lifetime_points")) and not {
        "balance.points",
        "balance.lifetime_points",
    } & set(wrong):
        if "balance.points" in given:
            yield "balance.points", "INT64_RANGE", "must be at least 1, unless there are lifetime points"
        else:
            yield "balance.points", "REQUIRED", "is required"
    earned_at = given.get("balance.earned_at")
    if earned_at is not None and earned_at > now:
        yield "balance.earned_at", "TIME_RANGE", "must not be in the future"


def brought(given: Mapping[str, Any]) -> Brought:
    """What the values of a row's cells tell, by target."""
    customer_id = given.get("customer.id")
    return Brought(
        customer_id=UUID(customer_id) if customer_id else None,
        external_id=given.get("customer.external_id", ""),
        email=given.get("customer.email", ""),
        phone=given.get("customer.phone", ""),
        points=given.get("balance.points", 0),
        expires_at=given.get("balance.expires_at"),
        earned_at=given.get("balance.earned_at"),
        lifetime_points=given.get("balance.lifetime_points", 0),
        program=given.get("balance.program", ""),
        reason=given.get("balance.reason", ""),
        reference=given.get("balance.reference", ""),
    )
