"""Exports of customers: rows per second, CPU for each row, memory, and live reads beside it.

    .venv/bin/python -m bench.exports [customers] [CSV] [JSONL] [XLSX]

Runs on a stack of its own, each service in a process. "Limit" is COPY of the same sealed rows out of PostgreSQL.
Every customer has a profile of six fields, tags and metrics; all columns are exported.
"""

import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import grpc
import psycopg

from bench import data, stack
from bench.cpu import seconds
from libs.run.stack import members
from regulars.customers.v1 import customers_pb2
from regulars.customers.v1 import exports_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.exports_pb2_grpc import ExportsServiceStub

READ_PAUSE = 0.02
FORMATS = {"CSV": pb.EXPORT_FORMAT_CSV, "JSONL": pb.EXPORT_FORMAT_JSONL, "XLSX": pb.EXPORT_FORMAT_XLSX}
ENDED = {pb.EXPORT_STATE_COMPLETED, pb.EXPORT_STATE_FAILED}

METRICS = """
    insert into customer_metrics
    select tenant_id, business_id, customer_id, 3, 2, 1, 0, 12345, 0, 12345, 6172, %(at)s, %(at)s, 5, 2, 'shirts', null,
        2, %(at)s
    from memberships
"""
LIMIT = """
    copy (
        select m.customer_id, c.profile, k.key_id, k.epoch, k.wrapped, m.tags, x.total_spent_minor
        from memberships m join customers c using (tenant_id, customer_id)
        join subject_keys k on k.tenant_id = c.tenant_id and k.key_id = c.key_id
        left join customer_metrics x on x.tenant_id = m.tenant_id and x.business_id = m.business_id
            and x.customer_id = m.customer_id
    ) to stdout (format binary)
"""


class Bench:
    """What the runs work with."""

    def __init__(self, found: stack.Stack, channel: grpc.aio.Channel, ids: list[UUID]) -> None:
        self.stack = found
        self.auth = (("authorization", f"Bearer {found.token}"),)
        self.exports = ExportsServiceStub(channel)
        self.customers = CustomersServiceStub(channel)
        self.ids = [str(each) for each in ids[:50]]

    async def streamed(self, form: pb.ExportFormat.ValueType) -> int:
        """Bytes of an export as a stream."""
        size = 0
        request = pb.ExportCustomersRequest(format=form)
        async for body in self.exports.ExportCustomers(request, metadata=self.auth, timeout=3600):
            size += len(body.data)
        return size

    async def written(self, form: pb.ExportFormat.ValueType) -> int:
        """Bytes of an export to a file."""
        found = await self.exports.CreateExport(pb.CreateExportRequest(format=form), metadata=self.auth)
        while found.state not in ENDED:
            await asyncio.sleep(0.1)
            found = await self.exports.GetExport(pb.GetExportRequest(id=found.id), metadata=self.auth)
        assert found.state == pb.EXPORT_STATE_COMPLETED, found
        self.last = found.id
        return found.size_bytes

    async def downloaded(self) -> int:
        """Bytes of the last file."""
        size = 0
        request = pb.DownloadExportRequest(id=self.last)
        async for body in self.exports.DownloadExport(request, metadata=self.auth, timeout=3600):
            size += len(body.data)
        return size

    async def reads(self, until: asyncio.Event) -> list[float]:
        """Milliseconds of live reads, one after another."""
        found: list[float] = []
        while not until.is_set():
            began = time.perf_counter()
            request = customers_pb2.GetCustomerRequest(id=self.ids[len(found) % len(self.ids)])
            await self.customers.GetCustomer(request, metadata=self.auth)
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(READ_PAUSE)
        return found

    async def line(self, name: str, rows: int, work: Callable[[], Awaitable[int]]) -> str:
        """Runs it beside live reads; gives its line of the table."""
        postgres, service = self.stack.pids("postgres"), self.stack.pids("customers")
        _forget_peaks(service)
        before = seconds(postgres), seconds(service)
        stop = asyncio.Event()
        reading = asyncio.create_task(self.reads(stop))
        began = time.perf_counter()
        size = await work()
        took = time.perf_counter() - began
        stop.set()
        reads = await reading
        spent = seconds(postgres) - before[0], seconds(service) - before[1]
        return (
            f"| {name} | {rows:,} | {size / 1e6:.1f} | {took:.1f} | {rows / took:,.0f} | {spent[1] / rows * 1e6:.0f} |"
            f" {spent[0] / rows * 1e6:.0f} | {max(map(_peak, service))} | {_p95(reads):.1f} | {max(reads):.1f} |"
        )


def _forget_peaks(pids: list[int]) -> None:
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def _p95(found: list[float]) -> float:
    return statistics.quantiles(found, n=20)[-1] if len(found) > 20 else max(found, default=0.0)


def _limit(address: str, rows: int) -> str:
    size, began = 0, time.perf_counter()
    with psycopg.connect(address) as db, db.cursor().copy(LIMIT) as copy:
        for part in copy:
            size += len(part)
    took = time.perf_counter() - began
    return f"| limit: COPY | {rows:,} | {size / 1e6:.1f} | {took:.1f} | {rows / took:,.0f} | | | | | |"


async def main(customers: int, names: list[str]) -> None:
    """Starts a stack and measures."""
    chosen = {name: form for name, form in FORMATS.items() if name in names or not names}
    async with stack.running() as found:
        print(f"Seeding {customers:,} customers …", flush=True)
        ids = await data.seed(found, range(customers))
        owner = found.url("customers", "owner")
        with psycopg.connect(owner, autocommit=True) as db:
            db.execute(METRICS, {"at": "2026-03-14T15:09:26Z"})
            db.execute("vacuum analyze")
        async with grpc.aio.insecure_channel(members.address(found.settings, "customers")) as channel:
            bench = Bench(found, channel, ids)
            enough = asyncio.Event()
            asyncio.get_running_loop().call_later(5, enough.set)
            idle = await bench.reads(enough)
            print(
                f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};",
                end=" ",
            )
            print(f"live reads while idle: p95 {_p95(idle):.1f} ms, longest {max(idle):.1f} ms\n")
            print(
                "| export | customers | MB | seconds | customers/s | service µs each | Postgres µs each | peak MB |"
                " live p95 ms | longest ms |"
            )
            print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
            print(await asyncio.to_thread(_limit, owner, customers), flush=True)
            for name, form in chosen.items():
                streamed = partial(bench.streamed, form)
                print(await bench.line(f"{name}, streamed", customers, streamed), flush=True)
            for name, form in chosen.items():
                print(await bench.line(f"{name}, file", customers, partial(bench.written, form)), flush=True)
            print(await bench.line("the last file, downloaded", customers, bench.downloaded), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2:]))
