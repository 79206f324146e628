"""What becomes of a row whose customer may be known already."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from uuid import UUID

UNDO_FOR = timedelta(days=7)
SKIP, UPDATE, CREATE = 1, 2, 3  # DuplicatePolicy
ANY, BY_EMAIL, BY_PHONE, BY_EXTERNAL_ID = 1, 2, 3, 4  # ImportMatchBy
CUSTOMERS, ORDERS, CUSTOMERS_AND_ORDERS, BALANCES = 1, 2, 3, 4  # ImportKind

EMAIL, PHONE, EXTERNAL_ID = "email", "phone", "external_id"
NO_CONTACT = "contact"  # beside the kinds of identifiers: somebody new must be reachable
KEYS = {
    ANY: (EXTERNAL_ID, EMAIL, PHONE),
    BY_EMAIL: (EMAIL,),
    BY_PHONE: (PHONE,),
    BY_EXTERNAL_ID: (EXTERNAL_ID,),
}
TAKEN = {EMAIL: "EMAIL_TAKEN", PHONE: "PHONE_TAKEN", EXTERNAL_ID: "EXTERNAL_ID_TAKEN", NO_CONTACT: "REQUIRED"}
EXPECTED = {
    EMAIL: "an e-mail that no other customer has",
    PHONE: "a phone that no other customer has",
    EXTERNAL_ID: "an id that no other customer has in this source",
    NO_CONTACT: "an e-mail or a phone is required, except for guests",
}


class State(IntEnum):
    """ImportState."""

    UPLOADED = 1
    PREVIEWED = 2
    QUEUED = 3
    RUNNING = 4
    COMPLETED = 5
    CANCELLED = 6
    FAILED = 7
    UNDOING = 8
    UNDONE = 9


BEFORE_START = frozenset((State.UPLOADED, State.PREVIEWED))
AT_WORK = frozenset((State.QUEUED, State.RUNNING, State.UNDOING))
# From these an import goes on where it stopped.
STOPPED = frozenset((State.CANCELLED, State.FAILED))


class Outcome(IntEnum):
    """What a row did to its customer or its order, as `import_rows` keeps it."""

    NONE = 0
    CREATED = 1
    UPDATED = 2
    SKIPPED = 3
    JOINED = 4
    REFUSED = 5


@dataclass(slots=True)
class Counts:
    """What a chunk did, or all of an import."""

    rows_done: int = 0
    customers_created: int = 0
    customers_updated: int = 0
    customers_skipped: int = 0
    orders_created: int = 0
    orders_updated: int = 0
    orders_skipped: int = 0
    balances_created: int = 0
    balances_skipped: int = 0
    rows_refused: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """The row's customer is this one."""

    customer_id: UUID


@dataclass(frozen=True, slots=True)
class Taken:
    """The row cannot be written: somebody else has its identifier of this kind."""

    kind: str


def judged(
    policy: int, match_by: int, kinds: Iterable[str], holders: Mapping[str, UUID]
) -> Known | Taken | None:
    """Whom a row means; None for somebody new.

    `kinds` are those of the row's identifiers, `holders` who has them now.
    """
    if not holders:
        return None
    if policy != CREATE:
        match = next((holders[kind] for kind in KEYS[match_by] if kind in holders), None)
        if match is not None:
            other = next((k for k in kinds if k in holders and holders[k] != match), None)
            return Taken(other) if other and policy == UPDATE else Known(match)
    return Taken(next(kind for kind in kinds if kind in holders))
