"""The event stream on NATS JetStream: its name, subjects and settings (decision 18)."""

import logging
from datetime import timedelta
from uuid import UUID

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=30)


def stream_name(prefix: str = "") -> str:
    """The stream's name."""
    return f"{prefix}EVENTS"


def all_subjects(prefix: str = "") -> str:
    """What the stream takes in: `customers.<noun>.<verb>.<tenant>`."""
    return f"{prefix}customers.*.*.*"


def subject_of(subject: str, tenant_id: UUID, prefix: str = "") -> str:
    """Where an event of one tenant is published. `subject` is its first three tokens."""
    return f"{prefix}{subject}.{tenant_id}"


async def connect(url: str, name: str, connect_timeout: int = 2, client: Client | None = None) -> Client:
    """A connection that comes back by itself, however long NATS is away; also waits for the first time.

    `client` is connected if it is given: who needs one before NATS is there makes it.
    """
    nc = client or Client()
    await nc.connect(
        url,
        name=name,
        error_cb=_note,
        connect_timeout=connect_timeout,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds, and a fraction will do
        ping_interval=10,
        max_outstanding_pings=2,
        pending_size=8 * 1024 * 1024,
    )
    return nc


async def _note(error: Exception) -> None:
    """The client tells every failed try; the readiness and the loops say what matters of it."""
    log.debug("NATS", extra={"reason": type(error).__name__})


async def ensure_stream(
    js: JetStreamContext, prefix: str = "", *, duplicate_window_seconds: float = 120, replicas: int = 1
) -> None:
    """Makes the stream unless it is there; an operator's changes to one that is there stay."""
    name, subject = stream_name(prefix), all_subjects(prefix)
    try:
        config = (await js.stream_info(name)).config
    except NotFoundError:
        await js.add_stream(
            StreamConfig(
                name=name,
                subjects=[subject],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                max_age=KEPT_FOR.total_seconds(),
                duplicate_window=duplicate_window_seconds,
                num_replicas=replicas,
                allow_direct=True,
                allow_atomic=True,
            )
        )
    else:
        if subject not in (config.subjects or []):
            await js.update_stream(config.evolve(subjects=[*(config.subjects or []), subject]))
