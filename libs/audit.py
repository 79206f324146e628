"""Who read whose data: nothing sealed opens without a `Reading`, which leaves an entry before the answer."""

import asyncio
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from uuid import UUID

from libs import caller as callers
from libs import clock
from libs.caller import Caller
from libs.db import Database
from libs.ids import new_id
from libs.outbox import emit
from libs.problems import Unavailable
from libs.spool import Segment, Spool, SpoolFull
from libs.wakeups import bell
from regulars.type.v1 import audit_pb2 as pb

log = logging.getLogger(__name__)

MAX_SPOOL_BYTES = 64 * 1024 * 1024
# Bounds of one entry, one event and one transaction; an event must stay well under 900 kB (libs/outbox).
ENTRY_CUSTOMERS = 5_000
EVENT_BYTES = 256 * 1024
TX_BYTES = 4 * 1024 * 1024
# How long entries gather before they are moved, and how often files of dead processes are looked for.
GATHER_SECONDS = 0.5
CLAIM_SECONDS = 30.0
RETRY_SECONDS = 1.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KINDS = {
    "user": pb.ACTOR_KIND_USER,
    "customer": pb.ACTOR_KIND_CUSTOMER,
    "service": pb.ACTOR_KIND_SERVICE,
}
# What callers send as purpose and request id is kept only where it cannot hold a name or an address.
_PURPOSE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class NoReading(Exception):
    """Sealed data was opened outside of `with audit.reading(…)`: a fault of the program."""


class Reading:
    """The audit context of one answer: notes whose data is opened, and writes one entry when the block ends.

    The answer leaves after the block. Raises Unavailable, at either end, if the entry has no room.
    """

    __slots__ = ("_audit", "_caller", "_categories", "_live", "_opened")

    def __init__(self, audit: "Audit", caller: Caller, categories: Iterable[str]) -> None:
        self._audit = audit
        self._caller = caller
        self._categories = categories
        self._opened: dict[UUID, None] = {}
        self._live = False

    def opened(self, customer_id: UUID) -> None:
        """Notes that data of this customer is opened. Raises NoReading outside of the block."""
        if not self._live:
            raise NoReading
        self._opened[customer_id] = None

    def only(self, customer_ids: Iterable[UUID]) -> None:
        """Keeps these alone: a search opens candidates to judge them, and answers with some of them."""
        wanted = frozenset(customer_ids)
        self._opened = {each: None for each in self._opened if each in wanted}

    def __enter__(self) -> "Reading":
        self._audit.check_room()
        self._live = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Written after a failure too: the data was open, whatever became of it.
        self._live = False
        if self._opened:
            self._audit.record(self._caller, self._categories, self._opened)


class Audit:
    """The trail of reads of one service in this process: a spool file, and the task that empties it."""

    def __init__(
        self, service: str, database: Database, folder: Path, max_bytes: int = MAX_SPOOL_BYTES
    ) -> None:
        """Entries wait in `folder`/<service>, at most `max_bytes` of them."""
        self._service = service
        self._database = database
        self._spool = Spool(folder / service, "audit", max_bytes)
        self._bell = bell(f"audit.{service}")
        self._moving = asyncio.Lock()

    def reading(self, *categories: str) -> Reading:
        """The context in which the current caller reads data of these categories ("user.contact.email").

        Raises Unauthenticated without a caller or a tenant: such a read could not be noted.
        """
        caller = callers.current()
        caller.tenant()
        return Reading(self, caller, categories)

    def check_room(self) -> None:
        """Raises Unavailable if another entry would not fit."""
        if self._spool.full():
            raise _no_room()

    def record(self, caller: Caller, categories: Iterable[str], customer_ids: Iterable[UUID]) -> None:
        """Writes an entry that survives kill -9; above 5,000 customers several. Raises Unavailable."""
        seconds, micros = divmod((clock.now() - _EPOCH) // _MICROSECOND, 1_000_000)
        who = (caller.subject, caller.kind, caller.on_behalf_of, caller.purpose, caller.method)
        head = caller.tenant().bytes + _head(self._service, *who, tuple(categories))
        entry = pb.Access(request_id=_plain(_REQUEST_ID, caller.request_id))
        entry.read_at.seconds, entry.read_at.nanos = seconds, micros * 1000
        ids = [each.bytes for each in customer_ids]
        try:
            for at in range(0, len(ids), ENTRY_CUSTOMERS):
                entry.id = str(new_id())
                entry.customer_ids[:] = ids[at : at + ENTRY_CUSTOMERS]
                self._spool.append(head + entry.SerializeToString())  # messages that follow on merge
        except SpoolFull:
            raise _no_room() from None
        self._bell.ring()

    async def run(self) -> None:
        """Moves entries to the outbox until cancelled, those of dead processes too. Failures are retried."""
        with self._bell.listening() as rung:
            next_claim = 0.0
            while True:
                loop = asyncio.get_running_loop()
                if loop.time() >= next_claim:
                    self.claim()
                    next_claim = loop.time() + CLAIM_SECONDS
                rung.clear()
                try:
                    await self.flush()
                except Exception:
                    log.exception("audit entries wait: they could not be moved to the outbox")
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                try:
                    await asyncio.wait_for(rung.wait(), max(0.0, next_claim - loop.time()))
                    await asyncio.sleep(GATHER_SECONDS)
                except TimeoutError:
                    continue

    def claim(self) -> int:
        """Takes over what processes of this service that died have left; gives how many files."""
        return self._spool.claim()

    async def flush(self) -> int:
        """Moves what waits now; gives how many entries. Emits AccessRecorded.

        An entry whose file is not deleted in time is emitted again, with the same id.
        """
        moved = 0
        async with self._moving:
            for segment in self._spool.cut():
                moved += await self._move(segment)
                segment.done()
        return moved

    def close(self) -> None:
        """Leaves what still waits to the next process."""
        self._spool.close()

    async def _move(self, segment: Segment) -> int:
        moved = 0
        waiting: dict[UUID, list[bytes]] = {}
        size = 0
        for record in segment.records():
            waiting.setdefault(UUID(bytes=record[:16]), []).append(record[16:])
            moved += 1
            size += len(record)
            if size > TX_BYTES:
                await self._emit_all(waiting)
                waiting, size = {}, 0
        await self._emit_all(waiting)
        return moved

    async def _emit_all(self, waiting: Mapping[UUID, list[bytes]]) -> None:
        for tenant_id, entries in waiting.items():
            service = Caller(
                tenant_id=tenant_id, subject=self._service, kind="service", service=self._service
            )
            with callers.acting_as(service):
                async with self._database.tx() as tx:
                    for event in _events(entries):
                        await emit(tx, event, aggregate_id=new_id(), version=1)
                    tx.after_commit(bell(f"outbox.{self._service}").ring)


@lru_cache(4096)
def _head(
    service: str,
    subject: str,
    kind: str,
    on_behalf_of: str | None,
    purpose: str | None,
    method: str,
    categories: tuple[str, ...],
) -> bytes:
    """What many entries begin with."""
    return pb.Access(
        service=service,
        actor=subject,
        actor_kind=_KINDS[kind],
        on_behalf_of=on_behalf_of or "",
        categories=sorted(set(categories)),
        purpose=_plain(_PURPOSE, purpose),
        method=method,
    ).SerializeToString()


def _events(entries: list[bytes]) -> Iterator[pb.AccessRecorded]:
    """The entries, in as few events as their bound allows."""
    event, size = pb.AccessRecorded(), 0
    for entry in entries:
        if size and size + len(entry) > EVENT_BYTES:
            yield event
            event, size = pb.AccessRecorded(), 0
        event.entries.add().ParseFromString(entry)
        size += len(entry)
    yield event


def _plain(pattern: re.Pattern[str], text: str | None) -> str:
    if not text:
        return ""
    return text if pattern.fullmatch(text) else "other"


def _no_room() -> Unavailable:
    return Unavailable("Reads cannot be recorded; try again.", retry_after_seconds=RETRY_SECONDS)
