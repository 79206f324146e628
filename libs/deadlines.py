"""The deadline of the running call, for what it calls in turn."""

import time
from contextvars import ContextVar

_ends_at: ContextVar[float] = ContextVar("deadline")


def set_to(seconds: float) -> None:
    """The running call has this much time left."""
    _ends_at.set(time.monotonic() + seconds)


def remaining_seconds() -> float | None:
    """What is left of the running call's time; None outside of any."""
    ends_at = _ends_at.get(None)
    return None if ends_at is None else ends_at - time.monotonic()
