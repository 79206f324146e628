"""Instants on the wire: datetimes to Timestamps and back, cut to microseconds."""

from datetime import UTC, datetime, timedelta
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@overload
def stamp(instant: datetime) -> Timestamp: ...
@overload
def stamp(instant: None) -> None: ...
@overload
def stamp(instant: datetime | None) -> Timestamp | None: ...
def stamp(instant: datetime | None) -> Timestamp | None:
    """The Timestamp of a datetime with time zone; None for None."""
    if instant is None:
        return None
    seconds, micros = divmod((instant - _EPOCH) // _MICROSECOND, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def instant(stamp: Timestamp) -> datetime:
    """The datetime (UTC) of a Timestamp. Raises OverflowError beyond the years 1 to 9999."""
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
