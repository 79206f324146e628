"""Takes batches from a durable pull consumer as soon as there is anything, without waiting for full ones."""

import asyncio
import json
import time
from collections.abc import Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

EXPIRES_SECONDS = 5.0
ACK_WAIT_SECONDS = 30.0
MAX_ACK_PENDING = 2000

_IDLE = ("404", "408", "100")


class ConsumerGone(Exception):
    """The durable consumer or its stream is not there (any more)."""


async def ensure_durable(js: JetStreamContext, stream: str, durable: str, subjects: Sequence[str]) -> None:
    """Makes the durable consumer, from the start of the stream, or adds `subjects` to its filters.

    Filters are only ever added, so that an older version of the service that starts during a deploy does not
    make the server skip what the newer one hears. Events of an added subject that were published before are
    not delivered. Raises NotFoundError if the stream is not there.
    """
    try:
        config = (await js.consumer_info(stream, durable)).config
    except NotFoundError:
        config = ConsumerConfig(
            name=durable,
            durable_name=durable,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            max_deliver=-1,
            max_ack_pending=MAX_ACK_PENDING,
            filter_subjects=sorted(subjects),
        )
        await js.add_consumer(stream, config)
        return
    filters = set(config.filter_subjects or ())
    if config.filter_subject:
        filters.add(config.filter_subject)
    if not filters.issuperset(subjects):
        widened = config.evolve(filter_subject=None, filter_subjects=sorted(filters.union(subjects)))
        await js.add_consumer(stream, widened)


class Puller:
    """One outstanding request for up to `batch` messages; they are taken as they come."""

    def __init__(self, nc: Client, stream: str, durable: str, batch: int) -> None:
        self._nc = nc
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = nc.new_inbox()
        self._batch = batch
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._outstanding = 0
        self._requested_at = 0.0
        self._reconnects = 0

    async def start(self) -> None:
        """Subscribes to the answers."""
        self._subscription = await self._nc.subscribe(self._inbox, cb=self._arrive)

    async def stop(self) -> list[Msg]:
        """Ends the subscription; gives the messages that came and were not taken."""
        if self._subscription is not None and not self._nc.is_closed:
            await self._subscription.unsubscribe()
        left = []
        while not self._arrived.empty():
            msg = self._arrived.get_nowait()
            if _status(msg) is None:
                left.append(msg)
        return left

    async def take(self, seconds: float = 1.0) -> list[Msg]:
        """Messages that are there, one at least within `seconds`, at most a batch. Raises ConsumerGone."""
        await self._ask()
        taken: list[Msg] = []
        try:
            async with asyncio.timeout(seconds):
                first = await self._arrived.get()
        except TimeoutError:
            return taken
        self._sort(first, taken)
        while len(taken) < self._batch and not self._arrived.empty():
            self._sort(self._arrived.get_nowait(), taken)
        await self._ask()  # the next come while these are worked in
        return taken

    async def _arrive(self, msg: Msg) -> None:
        self._arrived.put_nowait(msg)

    def _sort(self, msg: Msg, taken: list[Msg]) -> None:
        status = _status(msg)
        if status is None:
            self._outstanding -= 1
            taken.append(msg)
        elif status != "100":
            self._outstanding = 0
            if status not in _IDLE and "Batch Completed" not in str(msg.headers):
                self._fail(status, taken)

    def _fail(self, status: str, taken: list[Msg]) -> None:
        """A refusal ends the request; messages in hand go first, the next request will tell again."""
        if not taken:
            raise ConsumerGone(status)

    async def _ask(self) -> None:
        reconnects = self._nc.stats["reconnects"]
        expired = time.monotonic() - self._requested_at > EXPIRES_SECONDS + 1
        if self._outstanding > 0 and not expired and reconnects == self._reconnects:
            return
        request = {"batch": self._batch, "expires": int(EXPIRES_SECONDS * 1e9)}
        await self._nc.publish(self._request, json.dumps(request).encode(), reply=self._inbox)
        self._outstanding = self._batch
        self._requested_at = time.monotonic()
        self._reconnects = reconnects


def _status(msg: Msg) -> str | None:
    if msg.data or not msg.headers:
        return None
    return msg.headers.get("Status")
