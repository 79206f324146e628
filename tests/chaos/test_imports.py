"""kill -9 during imports and their undoing: every row is written once, told once, and taken back once.

CHAOS_SECONDS makes it longer than one round of kills (`make chaos`).
"""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg

from libs import config
from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.imports_pb2_grpc import ImportsServiceStub
from tests.chaos import checker, imports_checker
from tests.chaos.machine import Machine, running
from tests.chaos.workload import AWAY, CALL_SECONDS, open_business
from tests.customers.imports.shop import PIECE, csv_of
from tests.flows.looking import rows
from tests.platform import Stack, TenantOfTest
from tests.scan.sentinels import Sentinels

CHILD = "child"  # the process of an import, which is no member of the stack
PEOPLE, ORDERS = 4000, 1500
MORE = 3  # in the long run the files and the rounds are so many times as long
PATIENCE_SECONDS = 240
WRITING: list[tuple[str, ...]] = [(CHILD,), ("postgres",), ("customers",), ("nats",)]
ORDERING: list[tuple[str, ...]] = [("customers", "postgres")]
UNDOING: list[tuple[str, ...]] = [("postgres", "nats"), ("customers",)]


@dataclass
class Importer:
    """Somebody who imports, and asks again until there is an answer. `left` is who was not killed yet."""

    machine: Machine
    stack: Stack
    tenant: TenantOfTest
    shop: str
    long: bool
    left: list[tuple[str, ...]] = field(default_factory=list)
    kills: int = 0
    broken: int = 0

    def __post_init__(self) -> None:
        claims: dict[str, Any] = {"businesses": [self.shop], "ttl_seconds": 86_400}
        self._calls: Any = self.tenant.calls(ImportsServiceStub, **claims)

    async def upload(self, content: bytes, kind: pb.ImportKind.ValueType) -> str:
        """The id of an uploaded file."""

        async def parts() -> AsyncIterator[pb.UploadImportRequest]:
            settings = pb.UploadImportSettings(kind=kind, source="shop", file_name="file.csv")
            yield pb.UploadImportRequest(settings=settings)
            for i in range(0, len(content), PIECE):
                yield pb.UploadImportRequest(chunk=content[i : i + PIECE])

        made: pb.Import = await self._calls.UploadImport(parts())
        return made.id

    async def imported(self, import_id: str, rounds: list[tuple[str, ...]]) -> pb.Import:
        """Starts an import, and kills what the rounds say while it is at work."""
        await self._asked(self._calls.StartImport, pb.StartImportRequest(id=import_id))
        return await self._struck(import_id, rounds)

    async def undone(self, import_id: str, rounds: list[tuple[str, ...]]) -> pb.Import:
        """Takes it back under the same bad luck."""
        await self._asked(self._calls.UndoImport, pb.UndoImportRequest(id=import_id))
        return await self._struck(import_id, rounds)

    async def _struck(self, import_id: str, rounds: list[tuple[str, ...]]) -> pb.Import:
        self.left += rounds * (MORE if self.long else 1)
        at = 0
        async with asyncio.timeout(PATIENCE_SECONDS * (4 if self.long else 1)):
            while (now := await self._get(import_id)).state in (
                pb.IMPORT_STATE_QUEUED,
                pb.IMPORT_STATE_RUNNING,
                pb.IMPORT_STATE_UNDOING,
            ):
                if self.left and now.job.progress_done > at and children(self.machine):
                    at = now.job.progress_done
                    await self._strike(self.left.pop(0))
                await asyncio.sleep(0.05)
        return now

    async def _strike(self, names: Sequence[str]) -> None:
        for pid in children(self.machine) if CHILD in names else ():
            os.kill(pid, signal.SIGKILL)
        killed = self.machine.kill(*(name for name in names if name != CHILD))
        self.kills += 1
        await self.machine.until_back(killed)
        if "customers" in names and not self.long:
            await self._expire_leases()

    async def _expire_leases(self) -> None:
        """The 30 seconds that others wait for a process that died with a job are over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await rows(
                        self.stack,
                        "update customers.jobs set lease_until = now() where state = 'running' returning id",
                    )
                except psycopg.OperationalError:
                    await asyncio.sleep(0.2)
                else:
                    return

    async def _get(self, import_id: str) -> pb.Import:
        found: pb.Import = await self._asked(self._calls.GetImport, pb.GetImportRequest(id=import_id))
        return found

    async def _asked(self, rpc: Any, request: Any) -> Any:
        for _ in itertools.count():
            try:
                return await rpc(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in AWAY:
                    raise
                self.broken += 1
                await asyncio.sleep(0.1)


def children(machine: Machine) -> list[int]:
    """Process ids of the imports that the machine does."""
    parent = machine.home.read_run()["children"]["customers"]["pid"]
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and b"imports.child" in (entry / "cmdline").read_bytes()
                and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            ):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def people(count: int, sentinels: Sentinels) -> bytes:
    """A file of customers."""
    header: Iterable[object] = ("Customer ID", "Email", "First name")
    return csv_of([header, *((f"c{i}", sentinels.email(), sentinels.name()) for i in range(count))])


def orders(count: int, people: int) -> bytes:
    """A file of their orders."""
    header: Iterable[object] = ("Order ID", "Customer ID", "Order date", "Total", "Order status")
    told = (
        (f"o{i}", f"c{i * 7 % people}", f"2026-0{1 + i % 9}-{1 + i % 28:02d}", f"{1 + i % 90}.50", "paid")
        for i in range(count)
    )
    return csv_of([header, *told])


async def test_rows_are_imported_and_taken_back_once_whatever_is_killed(sentinels: Sentinels) -> None:
    long = float(config.process_environment().get("CHAOS_SECONDS", "0")) > 0
    wanted, bought = (PEOPLE * MORE, ORDERS * MORE) if long else (PEOPLE, ORDERS)
    async with running(Path(sentinels.root), "chaos-imports") as machine:
        stack = machine.stack()
        tenant = await stack.new_tenant()
        shop = await open_business(tenant)
        who = Importer(machine, stack, tenant, shop, long)
        first = await who.upload(people(wanted, sentinels), pb.IMPORT_KIND_CUSTOMERS)
        second = await who.upload(orders(bought, wanted), pb.IMPORT_KIND_ORDERS)
        in_first = await who.imported(first, WRITING)
        in_second = await who.imported(second, ORDERING)
        await machine.until_healthy()
        await checker.until_quiet(stack, tenant)
        told = (stack, tenant, shop, wanted, bought)
        assert await imports_checker.written(*told, in_first, in_second) == []
        seen = await imports_checker.written(*told[:-2], wanted + 1, bought + 1, in_first, in_second)
        assert len(seen) >= 10, seen  # it would see a row too few
        back_second = await who.undone(second, [(CHILD,)])
        back_first = await who.undone(first, UNDOING)
        await machine.until_healthy()
        await checker.until_quiet(stack, tenant)
        assert await imports_checker.taken_back(*told, back_first, back_second) == []
        await stack.close()
    print(f"{who.kills} times killed, {who.broken} calls without an answer")
    assert not who.left, "the work was over before"
    assert who.broken > 0, "nothing was interrupted at all"
