"""What an activity may say, and which of them a customer did themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit
from uuid import UUID

from libs.formats import Wrong

CUSTOM = 20  # ActivityKind
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(hours=1)
MAX_PROPERTIES_BYTES = 8192
IP_KEPT_FOR = timedelta(days=30)
# Months further back than this are not worth a partition of their own: they share one.
MONTHS_BACK = 120
# Page and product views, carts, purchases, opened and clicked e-mails, clicked SMS, consents, tickets, custom:
# what comes from the customer. The rest is done to them, and makes nobody active.
OWN_KINDS = frozenset({1, 2, 3, 4, 7, 8, 12, 18, 19, CUSTOM})


@dataclass(frozen=True, slots=True)
class Written:
    """An activity as it is to be recorded.

    `facts` are the columns in clear that hold something, `sealed` what is sealed as one value, `ip` is sealed apart.
    """

    activity_id: UUID
    kind: int
    occurred_at: datetime
    facts: Mapping[str, object] = field(default_factory=dict)
    sealed: Mapping[str, object] = field(default_factory=dict)
    ip: str = ""


def occurred_at(given: datetime | None, now: datetime) -> datetime:
    """When it happened: `now` if nobody said. Raises Wrong before 2000, and more than an hour ahead of `now`."""
    if given is None:
        return now
    if given < EARLIEST:
        raise Wrong("must be in the year 2000 or later")
    if given > now + AHEAD:
        raise Wrong("must not be more than an hour ahead")
    return given


def name(given: str, kind: int) -> str:
    """The name of a custom activity. Raises Wrong if a custom one has none, or another one has."""
    if (kind == CUSTOM) != bool(given):
        raise Wrong("is for custom activities, and required for them")
    return given


def origin(referrer: str) -> str:
    """Scheme and host of a web address, which say nothing about a person; "" for anything else."""
    try:
        parts = urlsplit(referrer)
        host = parts.hostname
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}" if host and parts.scheme in {"http", "https", "android-app"} else ""


def ip(given: str) -> str:
    """The usual form of an IP address. Raises Wrong."""
    try:
        return str(ip_address(given.strip()))
    except ValueError:
        raise Wrong("must be an IPv4 or IPv6 address") from None


def month(at: datetime) -> date:
    """The first day of the month (UTC) of an instant."""
    return at.astimezone(UTC).date().replace(day=1)


def has_month(at: datetime, now: datetime) -> bool:
    """True if the month of `at` has a partition of its own."""
    if not EARLIEST <= at <= now + AHEAD:
        return False
    return (now.year - at.year) * 12 + now.month - at.month <= MONTHS_BACK
