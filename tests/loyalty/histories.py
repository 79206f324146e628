"""Lives of a customer as the customers service could tell them, and what loyalty must know at the end of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.message import Message
from hypothesis import strategies as st

from libs.instants import stamp
from regulars.customers.v1 import events_pb2 as told
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_ACTIVE, CUSTOMER_STATUS_BLOCKED

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of a membership in the end; `joined_at` of the last time that it was joined."""

    present: bool = False
    deleted: bool = False
    blocked: bool = False
    joined_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a life: its name, when it happened, and whether the customer is blocked by then."""

    verb: str
    at: datetime
    blocked: bool

    def message(self, customer: UUID, business: UUID) -> Message:
        """The event as it is sent."""
        status = CUSTOMER_STATUS_BLOCKED if self.blocked else CUSTOMER_STATUS_ACTIVE
        who, where = str(customer), str(business)
        made: dict[str, Callable[[], Message]] = {
            "created": lambda: told.CustomerCreated(
                customer_id=who, business_id=where, status=status, joined_at=stamp(self.at)
            ),
            "joined": lambda: told.MembershipJoined(
                customer_id=who, business_id=where, status=status, joined_at=stamp(self.at)
            ),
            "updated": lambda: told.CustomerUpdated(customer_id=who, business_id=where, status=status),
            "deleted": lambda: told.CustomerDeleted(customer_id=who, business_ids=[where]),
            "restored": lambda: told.CustomerRestored(customer_id=who, business_ids=[where]),
            "left": lambda: told.MembershipLeft(customer_id=who, business_id=where),
        }
        return made[self.verb]()


Life = Sequence[Step]


def possible_after(verb: str) -> list[str]:
    """What can happen next to a customer to whom this happened last, as far as the business is concerned."""
    return {
        "deleted": ["restored", "joined"],
        "left": ["joined"],
    }.get(verb, ["updated", "deleted", "left"])


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """Lives of two to seven events; the first is the creation, and the version of each is its place."""
    verb, blocked = "created", draw(st.booleans())
    steps = [Step(verb, BEGIN, blocked)]
    for day in range(1, draw(st.integers(2, 7))):
        verb = draw(st.sampled_from(possible_after(verb)))
        if verb == "updated":
            blocked = draw(st.booleans())
        steps.append(Step(verb, BEGIN + timedelta(days=day), blocked))
    return steps


def end_of(life: Life) -> Member:
    """What is known once all has been heard in order."""
    known = Member()
    for step in life:
        if step.verb in {"created", "joined"}:
            known = Member(True, False, step.blocked, step.at)
        elif step.verb == "updated":
            known = replace(known, blocked=step.blocked)
        elif step.verb == "left":
            known = replace(known, present=False, deleted=False)
        else:
            known = replace(known, deleted=step.verb == "deleted")
    return known
