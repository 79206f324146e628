"""Ids are UUIDv7 (RFC 9562 §5.7), made in the application so that any database version will do."""

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0


def new_id() -> UUID:
    """A UUIDv7 that sorts after every id that this process made before.

    48 bits of milliseconds, 12 bits of finer clock that count on within one instant, 62 random bits.
    """
    global _last
    nanos = time.time_ns()
    millis, rest = divmod(nanos, 1_000_000)
    stamp = millis << 12 | (rest << 12) // 1_000_000
    with _lock:
        _last = stamp = max(stamp, _last + 1)
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
    value |= 0b10 << 62 | int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=value)


def parse_id(text: str) -> UUID | None:
    """The id in canonical text form, or None if `text` is none."""
    if len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
