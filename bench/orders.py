"""Orders per second through RecordOrders, beside bare psycopg inserting the same rows.

    .venv/bin/python -m bench.orders [orders]

Starts PostgreSQL, NATS and the customers service of its own, client and service in this one process; PostgreSQL
flushes each commit. Each kind runs in turns with its limit, three times; the best run of each counts.
"""

import asyncio
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import sql
from psycopg.types.json import Jsonb

from libs import config
from libs.ids import new_id
from libs.run.stack import postgres, servers
from libs.run.stack.home import Home
from regulars.customers.v1 import orders_pb2 as pb
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from regulars.type.v1.money_pb2 import Money
from tests.customers.shop import Shop, open_shop
from tests.platform import running_stack
from tests.servers import Servers

BATCH = 1000
RUNS = 3
PEOPLE = 500
NOW = 1_750_000_000


@dataclass
class Place:
    """What the runs work with."""

    shop: Shop
    admin_url: str
    people: list[str]
    number: int = 0

    @property
    def calls(self) -> Any:
        """Calls about orders."""
        return self.shop.calls(OrdersServiceStub)

    def order(self, **fields: Any) -> pb.Order:
        """A paid order of three lines."""
        self.number += 1
        lines = [
            pb.OrderItem(
                sku=f"SKU-{self.number * 7 % 1000 + i}",
                name="Cotton shirt, long sleeves",
                category=f"category {(self.number + i) % 20}",
                brand=f"brand {(self.number * 3 + i) % 30}",
                quantity=1 + i,
                unit_price=Money(amount_minor=1990 + i),
            )
            for i in range(3)
        ]
        return pb.Order(
            source="bench",
            external_id=f"{self.number}-{new_id().hex[-8:]}",
            status=pb.ORDER_STATUS_PAID,
            placed_at=Timestamp(seconds=NOW + self.number * 60),
            channel="web",
            items=lines,
            **fields,
        )


async def known(place: Place, count: int) -> float:
    """Orders of customers that are there, in batches of 1,000."""
    people = place.people
    return await _batches(place, [place.order(customer_id=people[i % len(people)]) for i in range(count)])


async def strangers(place: Place, count: int) -> float:
    """Orders of people who are not, each of another."""
    guests = [pb.OrderCustomer(email=f"{new_id().hex}@example.com") for _ in range(count)]
    return await _batches(place, [place.order(customer=guest) for guest in guests])


async def updates(place: Place, count: int) -> float:
    """Newer revisions of orders that are there."""
    people = place.people
    orders = [place.order(customer_id=people[i % len(people)]) for i in range(count)]
    await _batches(place, orders)
    for each in orders:
        each.revision, each.status = 2, pb.ORDER_STATUS_FULFILLED
    return await _batches(place, orders)


async def stream(place: Place, count: int) -> float:
    """Orders of customers that are there, by RecordOrderStream."""
    orders = [place.order(customer_id=place.people[i % len(place.people)]) for i in range(count)]

    async def requests() -> AsyncIterator[pb.RecordOrderStreamRequest]:
        for each in orders:
            yield pb.RecordOrderStreamRequest(record=pb.OrderRecord(order=each))

    began, done = time.perf_counter(), 0
    async for answer in place.calls.RecordOrderStream(requests(), timeout=120):
        assert answer.result.outcome == pb.RECORD_OUTCOME_CREATED, answer
        done += 1
    assert done == count
    return time.perf_counter() - began


async def single(place: Place, count: int) -> float:
    """Orders of customers that are there, one by one, eight callers at once."""
    orders = iter([place.order(customer_id=place.people[i % len(place.people)]) for i in range(count)])

    async def caller() -> None:
        for each in orders:
            await place.calls.RecordOrder(pb.RecordOrderRequest(order=each))

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(8)))
    return time.perf_counter() - began


async def _batches(place: Place, orders: list[pb.Order]) -> float:
    requests = [
        pb.RecordOrdersRequest(records=[pb.OrderRecord(order=each) for each in orders[i : i + BATCH]])
        for i in range(0, len(orders), BATCH)
    ]
    began = time.perf_counter()
    for request in requests:
        answer = await place.calls.RecordOrders(request, timeout=120)
        assert all(not each.HasField("error") for each in answer.results), answer.results[0]
    return time.perf_counter() - began


async def limit(place: Place, count: int, per_commit: int) -> float:
    """The same rows of `orders` and `outbox` by bare psycopg: executemany, one commit for every `per_commit`."""
    async with await psycopg.AsyncConnection.connect(place.admin_url) as db:
        await db.execute("set search_path = customers")
        tables = {}
        for table, each in (("orders", 1), ("outbox", 2)):
            query = sql.SQL("select * from {} limit %s").format(sql.Identifier(table))
            cursor = await db.execute(query, [per_commit * each])
            names = [column.name for column in cursor.description or ()]
            tables[table] = names, await cursor.fetchall()
        if not tables["outbox"][1]:  # all published: any row of its size will do
            tables["outbox"] = (
                ["tenant_id", "id", "subject", "headers", "body", "created_at"],
                [
                    (
                        new_id(),
                        new_id(),
                        "customers.order.recorded",
                        {"ce-id": "x" * 400},
                        b"x" * 300,
                        "2026-01-01",
                    )
                ]
                * (2 * per_commit),
            )
        await db.commit()
        await db.execute("set session_replication_role = replica")  # no foreign keys to check
        await db.commit()
        total = 0.0
        for done in range(0, count, per_commit):
            want = min(per_commit, count - done)
            ready = {
                t: (n, [_fresh(n, row) for row in (r * want)[: want * (1 + (t == "outbox"))]])
                for t, (n, r) in tables.items()
            }
            began = time.perf_counter()
            for table, (names, rows) in ready.items():
                statement = sql.SQL("insert into {} ({}) values ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, names)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(names)),
                )
                async with db.cursor() as cursor:
                    await cursor.executemany(statement, rows)
            await db.commit()
            total += time.perf_counter() - began
        await db.execute("delete from outbox where subject = 'none'")
        await db.commit()
    return total


def _fresh(names: list[str], row: tuple[Any, ...]) -> list[Any]:
    changed = {"order_id": new_id(), "id": new_id(), "external_id": new_id().hex, "subject": "none"}
    return [
        changed.get(name, Jsonb(value) if isinstance(value, dict | list) and name != "tags" else value)
        for name, value in zip(names, row, strict=True)
    ]


Kind = tuple[str, Callable[[Place, int], Awaitable[float]], int, int]


async def measure(place: Place, orders: int) -> None:
    """Prints a row for each kind."""
    kinds: list[Kind] = [
        ("known customers, batches of 1,000", known, orders, 500),
        ("newer revisions, batches of 1,000", updates, orders, 500),
        ("strangers (a guest each), batches of 1,000", strangers, orders, 500),
        ("known customers, one stream", stream, orders, 500),
        ("known customers, one by one, 8 callers", single, max(100, orders // 10), 1),
    ]
    print("| orders | per second | bare psycopg | ratio |\n| --- | ---: | ---: | ---: |")
    for name, run, count, per_commit in kinds:
        ours, bare = [], []
        for _ in range(RUNS):
            ours.append(await run(place, count) / count)
            bare.append(await limit(place, count, per_commit) / count)
        print(
            f"| {name} | {1 / min(ours):,.0f} | {1 / min(bare):,.0f} | {min(bare) / min(ours):.2f} |",
            flush=True,
        )


async def main(orders: int) -> None:
    """Starts what is needed and measures."""
    root = Path(tempfile.mkdtemp(prefix="regulars-bench-orders-"))
    root.chmod(0o711)  # noqa: ASYNC240 – nothing runs yet
    home = Home(root / "servers")
    prepared = await servers.prepare(config.Settings(home=home.root), home)
    processes = await servers.start(prepared.programs)
    try:
        found = Servers(prepared.postgres_url, prepared.nats_url, prepared.redis_url)
        (root / "service").mkdir(mode=0o700)
        async with running_stack(found, root / "service", "bench", ["customers"]) as stack:
            shop = await open_shop(await stack.new_tenant())
            people = [(await shop.create()).id for _ in range(PEOPLE)]
            url = prepared.postgres_url.rpartition("/")[0] + "/test_bench"
            place = Place(shop, url, people)
            await known(place, BATCH)  # warm
            print(f"{platform.machine()}, {cpu_count()} cores, Python {platform.python_version()}\n")
            await measure(place, orders)
    finally:
        await servers.stop_all(processes)
        with ThreadPoolExecutor(1) as apart:
            apart.submit(postgres.discard, home).result()
            apart.submit(shutil.rmtree, root, ignore_errors=True).result()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000))
