"""Somebody who imports one file after the other, takes every second pair back, and asks until there is an answer."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.imports_pb2_grpc import ImportsServiceStub
from tests.chaos.machine import Machine
from tests.chaos.people import open_business
from tests.chaos.work import CALL_SECONDS, Refused, Work, called
from tests.customers.imports.shop import PIECE, csv_of
from tests.platform import Stack, TenantOfTest
from tests.scan.sentinels import Sentinels

CUSTOMERS, ORDERS, UNDOING = "customers", "orders", "undoing"
KINDS = {CUSTOMERS: pb.IMPORT_KIND_CUSTOMERS, ORDERS: pb.IMPORT_KIND_ORDERS}
KEPT = {CUSTOMERS: 1500, ORDERS: 1300}  # rows of a file that stays
TAKEN_BACK = {CUSTOMERS: 900, ORDERS: 400}
PATIENCE_SECONDS = 600
AT_WORK = {pb.IMPORT_STATE_QUEUED, pb.IMPORT_STATE_RUNNING, pb.IMPORT_STATE_UNDOING}
_numbers = itertools.count(1)


@dataclass
class Place:
    """A business of its own that files are imported into: its imports as they ended, each with its rows."""

    tenant: TenantOfTest
    shop: str
    done: list[tuple[pb.Import, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        claims: dict[str, Any] = {"businesses": [self.shop], "ttl_seconds": 86_400}
        self.calls: Any = self.tenant.calls(ImportsServiceStub, **claims)

    def rows(self, kind: str) -> int:
        """How many rows of a kind went in."""
        return sum(rows for done, rows in self.done if done.kind == KINDS[kind])


@dataclass
class Imports(Work):
    """Imports. `awaited` is the work that somebody waits for to be at: it goes on with that until they saw it."""

    machine: Machine
    kept: Place
    taken_back: Place
    sentinels: Sentinels
    awaited: str = ""
    _at: str = ""
    _fresh: bool = False

    async def until_at(self, what: str, seconds: float = 120) -> None:
        """Waits until it is at this work, has come further since it was last asked, and has a process for it."""
        self.awaited, self._fresh = what, False
        try:
            async with asyncio.timeout(seconds):
                while not (self._fresh and self.is_at(what)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"no import came to {what}") from None
        finally:
            self.awaited = ""

    def is_at(self, what: str) -> bool:
        """Whether a process of its own is at this work."""
        return self._at == what and bool(self.machine.children())

    async def run(self) -> None:
        """Imports until `stop`; what it has begun to take back it takes back to the end."""
        while not self.stop.is_set():
            for kind, count in KEPT.items():
                while self.awaited != UNDOING and not self.stop.is_set():
                    await self._import(self.kept, kind, count)
                    if self.awaited != kind:
                        break
            if not self.stop.is_set():
                await self._take_back()

    async def _take_back(self) -> None:
        """Both files go in, the orders come out, then the customers."""
        made = [await self._import(self.taken_back, kind, TAKEN_BACK[kind]) for kind in TAKEN_BACK]
        for each in reversed(made):
            with suppress(Refused):  # it was undone by a call without an answer
                await self._ask(self.taken_back.calls.UndoImport, pb.UndoImportRequest(id=each))
            done = await self._over(self.taken_back, each, UNDOING)
            self.taken_back.done = [(done if i.id == each else i, n) for i, n in self.taken_back.done]

    async def _import(self, place: Place, kind: str, count: int) -> str:
        """The id of an import that is through."""
        content = self._people(count) if kind == CUSTOMERS else self._orders(count)
        made = await self.until_answered(
            lambda: called(place.calls.UploadImport(_parts(content, kind), timeout=30))
        )
        with suppress(Refused):  # it was done by a call without an answer
            await self._ask(place.calls.StartImport, pb.StartImportRequest(id=made.id))
        place.done.append((await self._over(place, made.id, kind), count))
        found: str = made.id
        return found

    async def _over(self, place: Place, import_id: str, what: str) -> pb.Import:
        """The import once nothing more happens to it by itself."""
        at = 0
        self._at = what
        self.under_way += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    now: pb.Import = await self._ask(place.calls.GetImport, pb.GetImportRequest(id=import_id))
                    if now.state not in AT_WORK:
                        return now
                    if now.job.progress_done > at:
                        at, self._fresh = now.job.progress_done, True
                    await asyncio.sleep(0.05)
        finally:
            self.under_way -= 1
            self._at = ""

    async def _ask(self, rpc: Any, request: Any) -> Any:
        found = await self.until_answered(lambda: called(rpc(request, timeout=CALL_SECONDS)))
        self.acknowledged += 1
        return found

    def _people(self, count: int) -> bytes:
        """A file of customers."""
        header: Iterable[object] = ("Customer ID", "Email", "First name")
        self._file = next(_numbers)
        told = ((f"c{self._file}-{i}", self.sentinels.email(), self.sentinels.name()) for i in range(count))
        return csv_of([header, *told])

    def _orders(self, count: int) -> bytes:
        """A file of orders of those who came last."""
        header: Iterable[object] = ("Order ID", "Customer ID", "Order date", "Total", "Order status")
        number, people = next(_numbers), TAKEN_BACK[CUSTOMERS]
        told = (
            (
                f"o{number}-{i}",
                f"c{self._file}-{i * 7 % people}",
                f"2026-0{1 + i % 9}-{1 + i % 28:02d}",
                f"{1 + i % 90}.50",
                "pending" if i % 3 else "paid",
            )
            for i in range(count)
        )
        return csv_of([header, *told])


async def _parts(content: bytes, kind: str) -> AsyncIterator[pb.UploadImportRequest]:
    settings = pb.UploadImportSettings(kind=KINDS[kind], source="shop", file_name="file.csv")
    yield pb.UploadImportRequest(settings=settings)
    for i in range(0, len(content), PIECE):
        yield pb.UploadImportRequest(chunk=content[i : i + PIECE])


async def open_place(stack: Stack) -> Place:
    """A tenant with a business for imports."""
    tenant = await stack.new_tenant()
    return Place(tenant, await open_business(tenant))
