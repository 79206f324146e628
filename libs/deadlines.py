"""The deadline of the running call, for what it calls in turn."""

from contextvars import ContextVar
from time import monotonic

_ends_at: ContextVar[float] = ContextVar("deadline")


__all__ = ["monotonic", "remaining_seconds", "set_to"]


def set_to(seconds: float) -> None:
    """The running call has this much time left."""
    _ends_at.set(monotonic() + seconds)


def remaining_seconds() -> float | None:
    """What is left of the running call's time; None outside of any."""
    ends_at = _ends_at.get(None)
    return None if ends_at is None else ends_at - monotonic()
