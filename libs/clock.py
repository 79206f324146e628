"""The one clock: SQL and rules are given its instants, so that tests can move it."""

from datetime import UTC, datetime, timedelta

_offset = timedelta(0)


def now() -> datetime:
    """The current instant in UTC, cut to microseconds."""
    return datetime.now(UTC) + _offset


def shift_to(instant: datetime) -> None:
    """Makes `instant` (with time zone) the present; time goes on from there."""
    global _offset
    _offset = instant - datetime.now(UTC)


def reset() -> None:
    """Returns to the machine's clock."""
    global _offset
    _offset = timedelta(0)
