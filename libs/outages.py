"""Tells trouble that passes (lost connection, lost race, absent peer) from refusals and bugs."""

import nats.errors
import psycopg
from sqlalchemy import exc

from libs.problems import Code, Problem

_PASSING_CODES = {Code.ABORTED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED}
_LOST_RACES = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


def is_conflict(error: BaseException) -> bool:
    """True if the database gave up this transaction for another one: the same work may succeed at once."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    return isinstance(cause, _LOST_RACES) or (isinstance(error, Problem) and error.code is Code.ABORTED)


def is_passing(error: BaseException) -> bool:
    """True if the same work may succeed later without anybody changing it.

    A statement that ran out of time is no outage: it would do so again.
    """
    if isinstance(error, Problem):
        return error.code in _PASSING_CODES
    if isinstance(error, exc.TimeoutError):  # no connection in the pool became free
        return True
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return False
    if isinstance(cause, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
        return True
    if isinstance(cause, psycopg.InterfaceError):  # the connection was closed under us
        return True
    return isinstance(cause, nats.errors.Error | OSError)


def delay_seconds(attempt: int, base: float = 0.5, limit: float = 60.0) -> float:
    """The pause before the next try: doubles from `base` up to `limit`. `attempt` counts from 1."""
    return min(limit, base * 2.0 ** min(attempt - 1, 30))
