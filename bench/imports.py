"""Imports of customers and orders: rows per second, CPU for each row, memory, and live reads beside it.

    .venv/bin/python -m bench.imports [customers] [orders]

Runs on a stack of its own, each service in a process. "Limit" is COPY of the same file into one bare table. CPU is
what the machine's load leaves alone; seconds are not. "Others" are NATS and the services that consume the events.
"""

import asyncio
import csv
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import psycopg

from bench import stack
from bench.cpu import seconds
from bench.names import people
from libs.run.stack import members
from regulars.customers.v1 import customers_pb2, imports_pb2
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.imports_pb2_grpc import ImportsServiceStub

PIECE = 256 * 1024
READ_PAUSE = 0.02
TOLD_EACH = 100_000  # rows: where a long run is
DEADLINE = 7200.0  # of a watcher: without one the server ends it after some minutes
AGAIN_UP_TO = 100_000  # rows of the file that is imported twice


def customers_file(count: int) -> bytes:
    """A file of customers with id, names, e-mail, phone, city of birth left out."""
    rows = (
        (f"C{i}", each.first, each.last, each.email, f"+49151{10_000_000 + i}", "gold" if i % 9 == 0 else "")
        for i, each in enumerate(people(count))
    )
    return csv_of([("Customer ID", "First name", "Last name", "Email", "Phone", "Tags"), *rows])


def orders_file(count: int, customers: int) -> bytes:
    """A file of orders of these customers, with one line each."""
    rows = (
        (
            f"O{i}",
            f"C{i * 7919 % customers}",
            f"2026-0{1 + i % 9}-{1 + i % 28:02d} 10:{i % 60:02d}:00",
            f"{10 + i % 90}.{i % 100:02d}",
            "paid",
        )
        for i in range(count)
    )
    return csv_of([("Order ID", "Customer ID", "Order date", "Total", "Order status"), *rows])


def csv_of(rows: Iterable[Iterable[object]]) -> bytes:
    """The rows as a CSV file."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


class Bench:
    """What the runs work with."""

    def __init__(self, found: stack.Stack, channel: grpc.aio.Channel) -> None:
        self.stack = found
        self.auth = (("authorization", f"Bearer {found.token}"),)
        self.imports = ImportsServiceStub(channel)
        self.customers = CustomersServiceStub(channel)
        self.most_memory = 0

    async def upload(self, content: bytes, kind: imports_pb2.ImportKind.ValueType) -> str:
        """The id of an uploaded import."""

        async def parts() -> AsyncIterator[imports_pb2.UploadImportRequest]:
            yield imports_pb2.UploadImportRequest(
                settings=imports_pb2.UploadImportSettings(kind=kind, source="bench", file_name="bench.csv")
            )
            for i in range(0, len(content), PIECE):
                yield imports_pb2.UploadImportRequest(chunk=content[i : i + PIECE])

        made = await self.imports.UploadImport(parts(), metadata=self.auth)
        return str(made.id)

    async def run(self, import_id: str) -> tuple[imports_pb2.ImportProgress, dict[str, float]]:
        """Runs it; gives the last progress and what it took."""
        postgres, services, every = (
            self.stack.pids("postgres"),
            self.stack.pids("customers"),
            self.stack.pids(),
        )
        before = {"postgres": seconds(postgres), "customers": seconds(services), "every": seconds(every)}
        told = 0
        child = {"cpu": 0.0}
        began = time.perf_counter()
        await self.imports.StartImport(imports_pb2.StartImportRequest(id=import_id), metadata=self.auth)
        watching = self.imports.WatchImport(
            imports_pb2.WatchImportRequest(id=import_id), metadata=self.auth, timeout=DEADLINE
        )
        async for progress in watching:
            self._look(child, services)
            if progress.rows_done >= told + TOLD_EACH:
                told = progress.rows_done
                print(
                    f"{told:,} rows after {time.perf_counter() - began:.0f} s: child {child['cpu']:.0f} s,"
                    f" Postgres {seconds(postgres) - before['postgres']:.0f} s; load {os.getloadavg()[0]:.1f}",
                    file=sys.stderr,
                    flush=True,
                )
        took = time.perf_counter() - began
        spent = {"postgres": seconds(postgres) - before["postgres"]}
        spent["service"] = seconds(services) - before["customers"]
        spent["others"] = seconds(every) - before["every"] - spent["postgres"] - spent["service"]
        return progress, {
            **spent,
            "seconds": took,
            "child": child["cpu"],
            "service": spent["service"] - child["cpu"],
        }

    def _look(self, child: dict[str, float], parents: list[int]) -> None:
        """CPU and memory of the child that works now: of our service, others may have theirs on this machine."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if b"services.customers.imports.child" not in (entry / "cmdline").read_bytes():
                    continue
                status = (entry / "status").read_text()
                parent = next(line for line in status.splitlines() if line.startswith("PPid"))
                if int(parent.split()[1]) not in parents:
                    continue
                child["cpu"] = max(child["cpu"], seconds([int(entry.name)]))
            except (FileNotFoundError, ProcessLookupError):
                continue
            peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
            self.most_memory = max(self.most_memory, int(peak.split()[1]) // 1024)

    async def reads(self, ids: list[str], until: "asyncio.Event") -> list[float]:
        """Milliseconds of live reads, one after another."""
        found: list[float] = []
        while not until.is_set():
            began = time.perf_counter()
            await self.customers.GetCustomer(
                customers_pb2.GetCustomerRequest(id=ids[len(found) % len(ids)]), metadata=self.auth
            )
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(READ_PAUSE)
        return found

    async def some_ids(self, count: int) -> list[str]:
        """Customers to read."""
        made = []
        for i in range(count):
            request = customers_pb2.CreateCustomerRequest(
                customer=customers_pb2.Customer(email=f"live{i}@example.com", first_name="Live")
            )
            made.append((await self.customers.CreateCustomer(request, metadata=self.auth)).id)
        return made


def _limit(address: str, content: bytes) -> float:
    """Seconds of a COPY of the file into a table without keys."""
    with psycopg.connect(address, autocommit=True) as db:
        width = len(content.split(b"\n", 1)[0].split(b","))
        db.execute(f"create unlogged table bare ({', '.join(f'c{i} text' for i in range(width))})")
        began = time.perf_counter()
        with db.cursor().copy("copy bare from stdin (format csv, header)") as copy:
            copy.write(content)
        took = time.perf_counter() - began
        db.execute("drop table bare")
    return took


def waiting(address: str) -> int:
    """Events that the relay has not published yet."""
    with psycopg.connect(address) as db:
        found = db.execute("select count(*) from outbox").fetchone()
    return int(found[0]) if found else 0


def p95(found: list[float]) -> float:
    """The 95th percentile of these."""
    return statistics.quantiles(found, n=20)[-1] if len(found) > 20 else max(found, default=0.0)


async def main(customers: int, orders: int) -> None:
    """Starts a stack and measures."""
    async with (
        stack.running() as found,
        grpc.aio.insecure_channel(members.address(found.settings, "customers")) as channel,
    ):
        bench = Bench(found, channel)
        ids = await bench.some_ids(50)
        await asyncio.sleep(2)
        enough = asyncio.Event()
        asyncio.get_running_loop().call_later(5, enough.set)
        idle = await bench.reads(ids, enough)
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
        print(
            "| import | rows | seconds | rows/s | child ms/row | Postgres ms/row | service ms/row |"
            " others ms/row | events waiting |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        during: list[float] = []
        admin = found.url("customers", "owner")
        kinds: list[tuple[str, bytes, imports_pb2.ImportKind.ValueType, int]] = [
            ("customers", customers_file(customers), imports_pb2.IMPORT_KIND_CUSTOMERS, customers),
        ]
        if customers <= AGAIN_UP_TO:
            kinds.append(("the same again", *kinds[0][1:]))
        if orders:
            content = orders_file(orders, customers)
            kinds.append(("orders", content, imports_pb2.IMPORT_KIND_ORDERS, orders))
        for name, content, kind, rows in kinds:
            import_id = await bench.upload(content, kind)
            stop = asyncio.Event()
            reading = asyncio.create_task(bench.reads(ids, stop))
            progress, took = await bench.run(import_id)
            stop.set()
            during = await reading
            assert progress.rows_done == rows, progress
            print(
                f"| {name} | {rows:,} | {took['seconds']:.1f} | {rows / took['seconds']:,.0f} |"
                f" {took['child'] / rows * 1000:.3f} | {took['postgres'] / rows * 1000:.3f} |"
                f" {took['service'] / rows * 1000:.3f} | {took['others'] / rows * 1000:.3f} |"
                f" {await asyncio.to_thread(waiting, admin):,} |",
                flush=True,
            )
            if name == "customers":
                print_reads: Any = (
                    p95(idle),
                    p95(during),
                    statistics.median(idle),
                    statistics.median(during),
                )
        print(f"\nChild's memory at most {bench.most_memory} MB.")
        print("Live reads p95 {:.1f} ms idle, {:.1f} ms beside; median {:.1f}, {:.1f}.".format(*print_reads))
        bare = await asyncio.to_thread(_limit, admin, kinds[0][1])
        print(f"Limit: copy into a bare table {customers / bare:,.0f} rows/s.")


if __name__ == "__main__":
    asyncio.run(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 50_000,
            int(sys.argv[2]) if len(sys.argv) > 2 else 0,
        )
    )
