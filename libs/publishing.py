"""Puts events on the stream and tells which of them the stream has acknowledged.

Many events go as one batch that the stream stores whole and acknowledges once (NATS 2.12 and later): a third of the
work for it, and a fourth for us. A batch with an event that the stream already has is refused whole; so are all batches
of a stream that does not allow them. Those events go one by one.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import orjson
from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError, NoRespondersError
from nats.js.api import PubAck

from libs import stream
from libs.ids import new_id
from libs.problems import Unavailable

ACK_SECONDS = 5.0
# The server keeps a batch in memory until it is whole, and takes 1,000 events at most.
BATCH_EVENTS, BATCH_BYTES = 500, 4_000_000
NOT_ALLOWED = 10174  # the server's code: the stream does not allow batches


class Publisher:
    """Publishes rows of the outbox under their ids."""

    def __init__(self, nc: Client, prefix: str = "") -> None:
        self._nc = nc
        self._js = nc.jetstream()
        self._prefix = prefix
        self._batches = True  # until the stream says otherwise

    async def publish(self, rows: Sequence[Any]) -> tuple[list[UUID], Exception | None]:
        """Publishes rows in their order; gives the ids that were acknowledged, and the first error if any."""
        sent: list[UUID] = []
        error: Exception | None = None
        for some in _split(rows):
            try:
                if not await self._as_batch(some):
                    acknowledged, failed = await self._one_by_one(some)
                    sent += acknowledged
                    error = error or failed
                    continue
            except (Error, TimeoutError) as lost:
                return sent, error or lost
            sent += [row.id for row in some]
        return sent, error

    async def _as_batch(self, rows: Sequence[Any]) -> bool:
        """Publishes all or none; False if the stream refuses them as a batch."""
        if len(rows) == 1 or not self._batches:
            return False
        last, of_batch = len(rows), {"Nats-Batch-Id": new_id().hex}
        try:
            for number, row in enumerate(rows, 1):
                headers = _headers(row) | of_batch | {"Nats-Batch-Sequence": str(number)}
                if number < last:
                    await self._nc.publish(self._subject(row), row.body, headers=headers)
            headers["Nats-Batch-Commit"] = "1"
            answer = await self._nc.request(self._subject(row), row.body, ACK_SECONDS, headers=headers)
        except (MaxPayloadError, NoRespondersError):  # one is too large, or there is no stream
            return False
        refused = orjson.loads(answer.data).get("error")
        if refused and refused.get("err_code") == NOT_ALLOWED:
            self._batches = False
        return not refused

    async def _one_by_one(self, rows: Sequence[Any]) -> tuple[list[UUID], Exception | None]:
        """Publishes all, many in flight; gives the ids that were acknowledged, and the first error if any."""
        acks: dict[asyncio.Future[PubAck], UUID] = {}
        error: Exception | None = None
        try:
            for row in rows:
                try:
                    ack = await self._js.publish_async(
                        self._subject(row), row.body, wait_stall=ACK_SECONDS, headers=_headers(row)
                    )
                except MaxPayloadError as refused:  # this one only
                    error = error or refused
                except Error as lost:
                    error = error or lost
                    break
                else:
                    acks[ack] = row.id
            if acks:
                await asyncio.wait(acks, timeout=ACK_SECONDS)
            sent = []
            for ack, event_id in acks.items():
                if not ack.done():
                    error = error or Unavailable("The stream did not acknowledge in time.")
                elif (failed := ack.exception()) is None:
                    sent.append(event_id)
                elif isinstance(failed, Exception):
                    error = error or failed
            return sent, error
        finally:
            for ack in acks:
                if not ack.done():
                    ack.cancel()

    def _subject(self, row: Any) -> str:
        return stream.subject_of(row.subject, row.tenant_id, self._prefix)


def _headers(row: Any) -> dict[str, str]:
    return {**row.headers, "Nats-Msg-Id": str(row.id)}


def _split(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cuts where a batch would be too large."""
    first, size = 0, 0
    for number, row in enumerate(rows):
        if number > first and (number - first == BATCH_EVENTS or size + len(row.body) > BATCH_BYTES):
            yield rows[first:number]
            first, size = number, 0
        size += len(row.body)
    if rows:
        yield rows[first:]
