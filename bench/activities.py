"""Activities per second through RecordActivities, beside COPY of the same rows; and what a page of a timeline costs.

    .venv/bin/python -m bench.activities [activities]

Starts PostgreSQL, NATS and the customers service of its own, client and service in this one process; PostgreSQL
flushes each commit. Each kind runs in turns with its limit, three times; the best run of each counts.
"""

import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from os import cpu_count
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from google.protobuf.struct_pb2 import Struct
from psycopg import sql
from sqlalchemy import text

from libs import clock, config
from libs.caller import Caller, acting_as
from libs.ids import new_id
from libs.instants import stamp
from libs.run.stack import postgres, servers
from libs.run.stack.home import Home
from regulars.customers.v1 import activities_pb2 as pb
from regulars.customers.v1 import timeline_pb2
from regulars.customers.v1.activities_pb2_grpc import ActivitiesServiceStub
from regulars.customers.v1.timeline_pb2_grpc import TimelineServiceStub
from services.customers.timeline import queries
from services.customers.timeline.queries import Wanted
from tests.customers.shop import Shop, open_shop
from tests.platform import Stack, running_stack
from tests.servers import Servers

BATCH = 1000
RUNS = 3
PEOPLE = 500
MONTHS = 24
TIMELINE_ROWS = 100_000
PAGES = 200
PAGE = 50
TABLES = ("activities", "activity_ids", "outbox")

# What the timeline would be as one table of its own, for comparison.
INDEX_TABLE = """
create table timeline_index (
    tenant_id uuid not null, business_id uuid not null, customer_id uuid not null, occurred_at timestamptz not null,
    entry_id uuid not null, kind smallint not null,
    primary key (tenant_id, business_id, customer_id, occurred_at, entry_id, kind)
)
"""


_ONE_TABLE = text("""
    select occurred_at, entry_id, kind from timeline_index
    where tenant_id = :tenant and business_id = :business and customer_id = :customer
      and (occurred_at, entry_id) < (:at, :id)
    order by occurred_at desc, entry_id desc limit :size
""")


@dataclass
class Place:
    """What the runs work with."""

    stack: Stack
    shop: Shop
    admin_url: str
    people: list[str]
    emails: list[str]

    @property
    def calls(self) -> Any:
        """Calls about activities."""
        return self.shop.calls(ActivitiesServiceStub)

    def activity(self, number: int, **fields: Any) -> pb.Activity:
        """A product view of a visit, some time in the last month."""
        return pb.Activity(
            id=str(new_id()),
            kind=pb.ACTIVITY_KIND_PRODUCT_VIEW,
            occurred_at=stamp(clock.now() - timedelta(minutes=number % 40_000)),
            session=f"visit {number // 5}",
            utm=pb.Utm(source="newsletter", medium="email", campaign="spring"),
            referrer="https://www.example.com",
            device=pb.DEVICE_TYPE_MOBILE,
            country="DE",
            product=pb.ActivityProduct(sku=f"SKU-{number % 1000}", name="Cotton shirt", category="shirts"),
            **fields,
        )


async def plain(place: Place, count: int) -> float:
    """Product views, customers named by id."""
    people = place.people
    return await _record(
        place,
        [
            pb.ActivityItem(customer_id=people[n % len(people)], activity=place.activity(n))
            for n in range(count)
        ],
    )


async def sealed(place: Place, count: int) -> float:
    """The same with properties, which are sealed."""
    people = place.people
    items = []
    for n in range(count):
        properties = Struct()
        properties.update({"position": n, "list": "new arrivals", "sizes": ["S", "M"]})
        item = place.activity(n, properties=properties)
        items.append(pb.ActivityItem(customer_id=people[n % len(people)], activity=item))
    return await _record(place, items)


async def by_email(place: Place, count: int) -> float:
    """Product views, customers named by e-mail."""
    emails = place.emails
    return await _record(
        place,
        [pb.ActivityItem(email=emails[n % len(emails)], activity=place.activity(n)) for n in range(count)],
    )


async def again(place: Place, count: int) -> float:
    """Batches that were recorded before."""
    people = place.people
    items = [
        pb.ActivityItem(customer_id=people[n % len(people)], activity=place.activity(n)) for n in range(count)
    ]
    await _record(place, items)
    return await _record(place, items, pb.ACTIVITY_OUTCOME_DUPLICATE)


async def _record(
    place: Place, items: list[pb.ActivityItem], outcome: int = pb.ACTIVITY_OUTCOME_RECORDED
) -> float:
    requests = [pb.RecordActivitiesRequest(items=items[i : i + BATCH]) for i in range(0, len(items), BATCH)]
    began = time.perf_counter()
    for request in requests:
        answer = await place.calls.RecordActivities(request, timeout=120)
        assert all(result.outcome == outcome for result in answer.results), answer.results[0]
    return time.perf_counter() - began


async def limit(place: Place, count: int) -> float:
    """COPY of as many rows of `activities`, `activity_ids` and `outbox`, one commit for each 1,000."""
    async with await psycopg.AsyncConnection.connect(place.admin_url) as db:
        await db.execute("set search_path = customers")
        samples: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {}
        for table in TABLES[:2]:
            query = sql.SQL("select * from {} limit %s").format(sql.Identifier(table))
            cursor = await db.execute(query, [BATCH])
            samples[table] = [c.name for c in cursor.description or ()], await cursor.fetchall()
        headers = '{"ce-id": "' + "x" * 500 + '"}'
        event = (new_id(), new_id(), "none", headers, b"x" * 180, clock.now())
        names = ["tenant_id", "id", "subject", "headers", "body", "created_at"]
        samples["outbox"] = names, [event] * BATCH
        await db.commit()
        total = 0.0
        for _ in range(0, count, BATCH):
            ids = [new_id() for _ in range(BATCH)]
            ready = {table: [_fresh(n, r, ids) for r in [rows]] for table, (n, rows) in samples.items()}
            began = time.perf_counter()
            for table, ((fresh,), (columns, _)) in (
                (table, (ready[table], samples[table])) for table in TABLES
            ):
                statement = sql.SQL("copy {} ({}) from stdin").format(
                    sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
                )
                async with db.cursor() as cursor, cursor.copy(statement) as copy:
                    for row in fresh:
                        await copy.write_row(row)
            await db.commit()
            total += time.perf_counter() - began
            await db.execute("delete from outbox where subject = 'none'")
            await db.commit()
    return total


def _fresh(names: list[str], rows: list[tuple[Any, ...]], ids: list[UUID]) -> list[tuple[Any, ...]]:
    return [
        tuple(
            ids[n] if name in {"activity_id", "id"} else value for name, value in zip(names, row, strict=True)
        )
        for n, row in enumerate(rows)
    ]


Kind = tuple[str, Callable[[Place, int], Awaitable[float]]]
KINDS: list[Kind] = [
    ("named by id", plain),
    ("named by id, with sealed properties", sealed),
    ("named by e-mail", by_email),
    ("sent a second time", again),
]


async def measure(place: Place, count: int) -> None:
    """Prints a row for each kind of batch."""
    print("| activities, batches of 1,000 | per second | COPY of the same rows | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name, run in KINDS:
        ours, bare = [], []
        for _ in range(RUNS):
            ours.append(await run(place, count) / count)
            bare.append(await limit(place, count) / count)
        print(
            f"| {name} | {1 / min(ours):,.0f} | {1 / min(bare):,.0f} | {min(bare) / min(ours):.2f} |",
            flush=True,
        )


async def timelines(place: Place) -> None:
    """Prints what a page costs with 100,000 activities in 24 months, beside one table that holds the timeline."""
    tenant_id, business_id = place.shop.tenant.id, UUID(place.shop.id)
    # One customer has a tenth of everything, the others share the rest.
    async with await psycopg.AsyncConnection.connect(place.admin_url) as db:
        await db.execute("set search_path = customers")
        for month in range(MONTHS):
            await db.execute(
                "select make_activity_month((now() - make_interval(months => %s))::date)", [month]
            )
        await db.execute(
            "insert into activities (tenant_id, business_id, customer_id, occurred_at, activity_id, kind, recorded_at)"
            " select %s, %s, (%s::uuid[])[case when n %% 10 = 0 then 1 else 2 + n %% %s end],"
            " now() - make_interval(mins => (n * 7919::bigint %% %s)::int), gen_random_uuid(), 1, now()"
            " from generate_series(1, %s) n",
            [
                tenant_id,
                business_id,
                place.people,
                len(place.people) - 1,
                MONTHS * 30 * 1440,
                TIMELINE_ROWS,
            ],
        )
        await db.execute(INDEX_TABLE)
        await db.execute("grant select on timeline_index to public")
        began = time.perf_counter()
        await db.execute(
            "insert into timeline_index select tenant_id, business_id, customer_id, occurred_at, activity_id, 1"
            " from activities where tenant_id = %s",
            [tenant_id],
        )
        filling = time.perf_counter() - began
        cursor = await db.execute("select count(*) from timeline_index")
        (rows,) = (await cursor.fetchone()) or (0,)
        await db.commit()
        await db.set_autocommit(True)
        await db.execute("vacuum analyze activities")
        await db.execute("vacuum analyze timeline_index")
        print(f"\nOne more row for each of {rows:,} activities: {filling / rows * 1e6:.1f} µs each.\n")
        print("| page of 50 | union of six tables | one table | whole RPC |\n| --- | ---: | ---: | ---: |")
        for name, who, skip in (
            ("first, 10,000 activities", 0, 0),
            ("after 5,000, 10,000 activities", 0, 5000),
            ("first, 180 activities", 7, 0),
        ):
            customer_id = place.people[who]
            at, entry = clock.now() + timedelta(hours=1), UUID(int=2**128 - 1)
            if skip:
                found = await db.execute(
                    "select occurred_at, entry_id from timeline_index where tenant_id = %s and business_id = %s"
                    " and customer_id = %s order by occurred_at desc, entry_id desc offset %s limit 1",
                    [tenant_id, business_id, customer_id, skip],
                )
                at, entry = (await found.fetchone()) or (at, entry)
            after = queries.At(at, entry, 1)

            reads = _Reads(place, db, UUID(customer_id), after)
            ways = (reads.union, reads.one_table, reads.whole)
            figures = [[await _ms(read) for read in ways] for _ in range(PAGES)]
            medians = (statistics.median(each) for each in zip(*figures[20:], strict=True))
            print(f"| {name} | " + " | ".join(f"{figure:.2f} ms" for figure in medians) + " |", flush=True)


async def _ms(read: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await read()
    return (time.perf_counter() - began) * 1000


@dataclass
class _Reads:
    """The same page, three ways; each in a transaction of its own."""

    place: Place
    db: psycopg.AsyncConnection[Any]
    customer_id: UUID
    after: queries.At

    async def union(self) -> None:
        """What the service does: where the entries of a page stand."""
        shop, rt = self.place.shop, self.place.stack.runtimes["customers"]
        with acting_as(Caller(tenant_id=shop.tenant.id, subject="bench")):
            async with rt.db.read() as tx:
                await queries.page(tx, UUID(shop.id), self.customer_id, Wanted(), PAGE + 1, self.after)

    async def one_table(self) -> None:
        """The same from a table that holds the timeline."""
        shop, rt = self.place.shop, self.place.stack.runtimes["customers"]
        with acting_as(Caller(tenant_id=shop.tenant.id, subject="bench")):
            async with rt.db.read() as tx:
                where = {
                    "tenant": shop.tenant.id,
                    "business": UUID(shop.id),
                    "customer": self.customer_id,
                    "at": self.after.occurred_at,
                    "id": self.after.entry_id,
                    "size": PAGE + 1,
                }
                (await tx.execute(_ONE_TABLE, where)).all()

    async def whole(self) -> None:
        """The first page as a client gets it."""
        stub: Any = self.place.shop.calls(TimelineServiceStub)
        request = timeline_pb2.ListTimelineRequest(customer_id=str(self.customer_id), page_size=PAGE)
        await stub.ListTimeline(request)


async def main(count: int) -> None:
    """Starts what is needed and measures."""
    root = Path(tempfile.mkdtemp(prefix="regulars-bench-"))
    root.chmod(0o711)  # noqa: ASYNC240 – nothing runs yet
    home = Home(root / "servers")
    prepared = await servers.prepare(config.Settings(home=home.root), home)
    processes = await servers.start(prepared.programs)
    try:
        found = Servers(prepared.postgres_url, prepared.nats_url, prepared.redis_url)
        (root / "service").mkdir(mode=0o700)
        async with running_stack(found, root / "service", "bench", ["customers"]) as stack:
            shop = await open_shop(await stack.new_tenant())
            made = [await shop.create(email=f"bench{n}@example.com") for n in range(PEOPLE)]
            url = prepared.postgres_url.rpartition("/")[0] + "/test_bench"
            place = Place(stack, shop, url, [each.id for each in made], [each.email for each in made])
            await plain(place, BATCH)  # warm
            print(f"{platform.machine()}, {cpu_count()} cores, Python {platform.python_version()}\n")
            await measure(place, count)
            await timelines(place)
    finally:
        await servers.stop_all(processes)
        with ThreadPoolExecutor(1) as apart:
            apart.submit(postgres.discard, home).result()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000))
