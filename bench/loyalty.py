"""Points, tiers and reports: each figure beside its limit, in turns on one stack.

    .venv/bin/python -m bench.loyalty [cases …] [--members 20000] [--each 1] [--orders 2000] [--rounds 3] [--seconds 3]

Members with an order, an entry and a lot for each of their orders are put in by set-based SQL (`loyalty_data`). The
limit is the same work in bare SQL by psycopg: the same rows, no rules, no walls, no events, each commit flushed. CPU is
of the service and of PostgreSQL, per call; what else the machine does is not in it.
"""

import argparse
import asyncio
import os
import platform
import signal
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import grpc
import httpx
import psycopg

from bench import loyalty_data as data
from bench import stack
from bench.cpu import seconds as cpu_seconds
from libs import clock
from libs.caller import Caller, acting_as
from libs.db import Database
from libs.run.stack import members
from regulars.loyalty.v1 import ledger_pb2, reports_pb2, tiers_pb2
from regulars.loyalty.v1.ledger_pb2_grpc import LedgerServiceStub
from regulars.loyalty.v1.reports_pb2_grpc import ReportsServiceStub
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from services.loyalty.ledger import expiry
from services.loyalty.ledger.jobs import LANES, LOTS_AT_ONCE
from services.loyalty.reports import jobs as reports

CALLERS, CONNECTIONS = 16, 8
AT_ONCE, HELD, ASKED = 20, 1_000, 100  # the race: twenty want 100 of 1,000 points
RACES, ORDERS_BY_HAND = 5, 40
DEADLINE = 600.0
FOLDED = 4  # marks of points, rewards and cohorts, and no change of revenue left
PREVIEWED = [("BRONZE", 0), ("SILVER", 10_000), ("GOLD", 20_000), ("PLATINUM", 30_000)]


@dataclass
class Bench:
    """What the cases work with."""

    on: stack.Stack
    channel: grpc.aio.Channel
    members: int
    orders: int
    rounds: int
    seconds: float
    put_in_at: datetime

    @property
    def bearer(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a call."""
        return (("authorization", f"Bearer {self.on.token}"),)

    @property
    def business(self) -> str:
        """The business of all members."""
        return str(self.on.business_id)

    def pids(self) -> list[int]:
        """Loyalty's processes and the database's."""
        return self.on.pids("loyalty", "postgres")

    def owner(self) -> psycopg.Connection[Any]:
        """The database as its owner sees it: without walls."""
        return psycopg.connect(self.on.url("loyalty", "owner"), autocommit=True)

    @asynccontextmanager
    async def as_service(self) -> AsyncIterator[Database]:
        """Loyalty's database, as the service itself uses it."""
        database = self.on.database("loyalty")
        itself = Caller(tenant_id=self.on.tenant_id, subject="loyalty", kind="service", service="loyalty")
        try:
            with acting_as(itself):
                yield database
        finally:
            await database.close()


def row(name: str, ours: str, limit: str, share: str, goal: str = "") -> None:
    """One line of the table."""
    print(f"| {name} | {ours} | {limit} | {share} | {goal} |", flush=True)


# ---------------------------------------------------------------------- earn, redeem


async def calls(bench: Bench) -> None:
    """Points given by hand and redeemed, by callers at once, beside the bare transaction."""
    stub = LedgerServiceStub(bench.channel)

    async def earn(number: int) -> None:
        await stub.AdjustPoints(
            ledger_pb2.AdjustPointsRequest(
                customer_id=str(data.customer(number)), business_id=bench.business, points=5, reason="bench"
            ),
            metadata=bench.bearer,
            timeout=30,
        )

    async def redeem(number: int) -> None:
        await stub.RedeemPoints(
            ledger_pb2.RedeemPointsRequest(
                customer_id=str(data.customer(number)), business_id=bench.business, points=1
            ),
            metadata=bench.bearer,
            timeout=30,
        )

    for name, ours, points in (("earn", earn, 5), ("redeem", redeem, -1)):
        rates, limits, spent, spent_bare = [], [], [], []
        for _ in range(bench.rounds):
            rate, cpu = await _busy(bench, ours, CALLERS)
            rates.append(rate)
            spent.append(cpu)
            async with data.bare(bench.on, CONNECTIONS) as bare:
                rate, cpu = await _busy(bench, partial(bare.book, points), CONNECTIONS)
            limits.append(rate)
            spent_bare.append(cpu)
        share = statistics.median(a / b for a, b in zip(rates, limits, strict=True))
        row(
            f"{name}, per second",
            f"{statistics.median(rates):,.0f} ({statistics.median(spent):.2f} ms CPU)",
            f"{statistics.median(limits):,.0f} ({statistics.median(spent_bare):.2f} ms CPU)",
            f"{share:.2f}",
        )


async def _busy(bench: Bench, call: Callable[[int], Awaitable[None]], callers: int) -> tuple[float, float]:
    """Calls per second of so many callers, each with members of its own, and CPU of each in milliseconds."""
    done, until = 0, time.perf_counter() + bench.seconds

    async def caller(first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() < until:
            await call(number % bench.members)
            number, done = number + callers, done + 1

    before, began = cpu_seconds(bench.pids()), time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(callers)))
    took = time.perf_counter() - began
    return done / took, (cpu_seconds(bench.pids()) - before) / max(done, 1) * 1000


async def race(bench: Bench) -> None:
    """Twenty redemptions of one balance at once: exactly as many as there are points for."""
    stub = LedgerServiceStub(bench.channel)
    took: list[float] = []
    for number in range(RACES):
        customer = str(data.customer(number))
        before = await stub.GetBalance(
            ledger_pb2.GetBalanceRequest(customer_id=customer, business_id=bench.business),
            metadata=bench.bearer,
        )
        await stub.AdjustPoints(
            ledger_pb2.AdjustPointsRequest(
                customer_id=customer, business_id=bench.business, points=HELD - before.balance, reason="bench"
            ),
            metadata=bench.bearer,
        )

        async def redeem(whose: str = customer) -> bool:
            request = ledger_pb2.RedeemPointsRequest(
                customer_id=whose, business_id=bench.business, points=ASKED
            )
            try:
                await stub.RedeemPoints(request, metadata=bench.bearer, timeout=30)
            except grpc.aio.AioRpcError as refusal:
                if refusal.code() != grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                return False
            return True

        began = time.perf_counter()
        got = await asyncio.gather(*(redeem() for _ in range(AT_ONCE)))
        took.append(time.perf_counter() - began)
        after = await stub.GetBalance(
            ledger_pb2.GetBalanceRequest(customer_id=customer, business_id=bench.business),
            metadata=bench.bearer,
        )
        assert (sum(got), after.balance) == (HELD // ASKED, 0), (sum(got), after.balance)
    row(
        f"{AT_ONCE} at once want {ASKED} of {HELD:,} points",
        f"{statistics.median(took) * 1000:.0f} ms; {HELD // ASKED} got them, 0 left, {RACES} times of {RACES}",
        "",
        "",
        "never overspent",
    )


# ---------------------------------------------------------------------- masses


async def preview(bench: Bench) -> None:
    """Who would move where if the tiers were others, beside the bare aggregate of what they spent."""
    stub = TiersServiceStub(bench.channel)
    configuration = _configuration(PREVIEWED)
    request = tiers_pb2.PreviewTierConfigurationRequest(
        business_id=bench.business, configuration=configuration
    )
    ours, limits, spent, spent_bare = [], [], [], []
    for _ in range(bench.rounds):
        before, began = cpu_seconds(bench.pids()), time.perf_counter()
        answer = await stub.PreviewTierConfiguration(request, metadata=bench.bearer, timeout=DEADLINE)
        ours.append(time.perf_counter() - began)
        spent.append(cpu_seconds(bench.pids()) - before)
        assert answer.members >= bench.members
        before, began = cpu_seconds(bench.pids()), time.perf_counter()
        await asyncio.to_thread(data.aggregate, bench.on)
        limits.append(time.perf_counter() - began)
        spent_bare.append(cpu_seconds(bench.pids()) - before)
    row(
        f"preview of tiers, {bench.members:,} members",
        f"{statistics.median(ours):.2f} s ({statistics.median(spent):.2f} s CPU)",
        f"{statistics.median(limits):.2f} s ({statistics.median(spent_bare):.2f} s CPU)",
        f"{statistics.median(limits) / statistics.median(ours):.2f}",
        "< 5 s at 1,000,000",
    )


async def recalculate(bench: Bench) -> None:
    """Other tiers, and all members moved in a job."""
    stub = TiersServiceStub(bench.channel)
    configuration = _configuration(PREVIEWED)
    request = tiers_pb2.UpdateTierConfigurationRequest(
        business_id=bench.business, configuration=configuration
    )
    before, began = cpu_seconds(bench.pids()), time.perf_counter()
    made = await stub.UpdateTierConfiguration(request, metadata=bench.bearer, timeout=DEADLINE)
    state = "select state from jobs where id = %s"
    with bench.owner() as owner:
        done: Any = ("queued",)
        while done[0] != "succeeded":
            await asyncio.sleep(0.2)
            done = owner.execute(state, [made.recalculation_job_id]).fetchone()
    took, cpu = time.perf_counter() - began, cpu_seconds(bench.pids()) - before
    row(
        f"recalculation of {bench.members:,} members",
        f"{took:.1f} s, {bench.members / took:,.0f} a second ({cpu / bench.members * 1000:.2f} ms CPU each)",
        "",
        "",
    )


def _configuration(tiers: list[tuple[str, int]]) -> tiers_pb2.TierConfiguration:
    return tiers_pb2.TierConfiguration(
        period=tiers_pb2.TIER_PERIOD_YEARLY,
        tiers=[tiers_pb2.Tier(name=name, spending_minor=least) for name, least in tiers],
    )


async def expire(bench: Bench) -> None:
    """All lots past their expiry at once, booked batch after batch, beside one UPDATE of the same rows."""
    with Stopped(bench.on.pids("loyalty")):  # its timer would help
        lots = await asyncio.to_thread(data.make_due, bench.on)
        began, before = time.perf_counter(), cpu_seconds(bench.on.pids("postgres"))
        await asyncio.to_thread(data.empty_and_undo, bench.on)
        limit, limit_cpu = time.perf_counter() - began, cpu_seconds(bench.on.pids("postgres")) - before
        began, before = time.perf_counter(), cpu_seconds(bench.pids())
        own = time.process_time()
        async with bench.as_service() as database:
            await asyncio.gather(*(_lapse(database, lane) for lane in range(LANES)))
        ours = time.perf_counter() - began
        ours_cpu = cpu_seconds(bench.pids()) - before + time.process_time() - own
    assert await asyncio.to_thread(data.faults, bench.on) == 0
    row(
        f"{lots:,} lots lapse",
        f"{ours:.1f} s, {lots / ours:,.0f} a second ({ours_cpu / lots * 1000:.3f} ms CPU each)",
        f"{limit:.1f} s ({limit_cpu / lots * 1000:.3f} ms CPU each)",
        f"{limit / ours:.2f}",
        "< 60 s of 1,000,000",
    )


async def _lapse(database: Database, lane: int) -> None:
    more = 1
    while more:
        async with database.tx() as tx:
            more = await expiry.expire_lots(tx, LOTS_AT_ONCE, lane, LANES)


class Stopped:
    """Processes that stand still while the block runs."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)


async def folded(bench: Bench) -> None:
    """Waits until the service has folded all that was put in: its timer would disturb the cases."""
    began = time.perf_counter()
    with bench.owner() as owner:
        done: Any = (0,)
        while done[0] < FOLDED:
            await asyncio.sleep(1)
            done = owner.execute(
                "select (select count(*) from fold_marks where folded_until > %(at)s)"
                " + (select count(*) from report_marks where folded_until > %(at)s)"
                " + (select 1 - least(count(*), 1) from revenue_changes)",
                {"at": bench.put_in_at - reports.SETTLED_AFTER},
            ).fetchone()
    row(
        f"{bench.members:,} entries folded by the timer, the wait for it included",
        f"{time.perf_counter() - began:.0f} s",
        "",
        "",
    )


async def read_reports(bench: Bench) -> None:
    """Each report over a year."""
    stub = ReportsServiceStub(bench.channel)
    with bench.owner() as owner:
        owner.execute("vacuum analyze")
    year = {"first_day": "2026-01-01", "last_day": "2026-12-31", "by": reports_pb2.REPORT_GROUPING_MONTH}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("points", year),
        ("points", {**year, "by": reports_pb2.REPORT_GROUPING_TIER}),
        ("tiers", year),
        ("rewards", year),
        ("costs", year),
        ("cohorts", year),
    ]
    for name, fields in asked:
        took, spent = [], []
        for _ in range(bench.rounds):
            request = reports_pb2.GetReportRequest(report=name, business_id=bench.business, **fields)
            before, began = cpu_seconds(bench.pids()), time.perf_counter()
            await stub.GetReport(request, metadata=bench.bearer, timeout=DEADLINE)
            took.append(time.perf_counter() - began)
            spent.append(cpu_seconds(bench.pids()) - before)
        by = " by tier" if fields["by"] == reports_pb2.REPORT_GROUPING_TIER else ""
        row(
            f"report {name}{by}, {bench.members:,} members",
            f"{statistics.median(took) * 1000:.0f} ms ({statistics.median(spent) * 1000:.0f} ms CPU)",
            "",
            "",
            "< 1 s at 1,000,000",
        )


# ---------------------------------------------------------------------- orders


async def by_rest(bench: Bench) -> None:
    """An order over REST until its points are read over REST, one after another on an idle stack."""
    took: list[float] = []
    headers = {"authorization": f"Bearer {bench.on.token}"}
    base = f"http://127.0.0.1:{bench.on.settings.port}/api/v1"
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30, trust_env=False) as client:
        body = {"firstName": "Bench", "email": "b@example.com"}
        made = await client.post(f"/customers?businessId={bench.business}", json=body)
        customer = made.raise_for_status().json()["id"]
        for number in range(1, ORDERS_BY_HAND + 1):
            order = {
                "source": "till",
                "externalId": f"bench-{number}",
                "status": "PAID",
                "placedAt": "2026-06-01T12:00:00Z",
                "customerId": customer,
                "total": {"amountMinor": 1000},
            }
            began = time.perf_counter()
            (await client.post(f"/orders?businessId={bench.business}", json=order)).raise_for_status()
            while True:
                found = await client.get(f"/customers/{customer}/loyalty/balance?businessId={bench.business}")
                if found.is_success and int(found.json()["balance"]) == 10 * number:
                    break
                await asyncio.sleep(0.005)
            took.append(time.perf_counter() - began)
    p95 = statistics.quantiles(took, n=20)[-1]
    row(
        f"order to points over REST, {ORDERS_BY_HAND} one by one",
        f"p50 {statistics.median(took) * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms",
        "",
        "",
        "p95 < 1 s",
    )


async def catch_up(bench: Bench) -> None:
    """Two events of each of many orders wait in the outbox of customers: how long until all gave their points."""
    with bench.owner() as owner:
        judged = "select count(*) from judged_orders"
        first: Any = owner.execute(judged).fetchone()
        began, before = time.perf_counter(), cpu_seconds(bench.pids())
        await asyncio.to_thread(data.tell_orders, bench.on, bench.orders, bench.members)
        told = time.perf_counter()
        done: Any = first
        while done[0] < first[0] + bench.orders:
            await asyncio.sleep(0.5)
            done = owner.execute(judged).fetchone()
    took, cpu = time.perf_counter() - told, cpu_seconds(bench.pids()) - before
    row(
        f"{bench.orders:,} orders caught up",
        f"{took:.1f} s, {bench.orders / took:,.0f} a second ({cpu / bench.orders * 1000:.2f} ms CPU each)",
        f"told in {told - began:.1f} s",
        "",
        "1,000,000 with their import < 10 min",
    )


CASES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "calls": calls,
    "race": race,
    "preview": preview,
    "recalculate": recalculate,
    "reports": read_reports,
    "rest": by_rest,
    "orders": catch_up,
    "expire": expire,
}
UNDISTURBED = {"orders", "expire"}  # by days that are folded meanwhile


@asynccontextmanager
async def ready(given: argparse.Namespace) -> AsyncIterator[Bench]:
    """A stack with that many members."""
    async with (
        stack.running() as found,
        grpc.aio.insecure_channel(members.address(found.settings, "loyalty")) as channel,
    ):
        began = time.perf_counter()
        await asyncio.to_thread(data.put_in, found, given.members, given.each)
        print(f"{given.members:,} members put in within {time.perf_counter() - began:.0f} s.", flush=True)
        yield Bench(found, channel, given.members, given.orders, given.rounds, given.seconds, clock.now())


async def main(given: argparse.Namespace) -> None:
    """Starts what is needed and measures."""
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"
    )
    async with ready(given) as bench:
        print("\n| | ours | limit | share | goal |\n| --- | ---: | ---: | ---: | --- |")
        quiet = False
        for name in given.cases or CASES:
            if name not in UNDISTURBED and not quiet:
                await folded(bench)
                quiet = True
            await CASES[name](bench)
    print(f"\nLoad at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="CASE", help=", ".join(CASES))
    arguments.add_argument("--members", type=int, default=20_000, help="default 20,000")
    arguments.add_argument("--each", type=int, default=1, choices=(1, 2), help="orders of each member")
    arguments.add_argument("--orders", type=int, default=2_000, help="to catch up")
    arguments.add_argument("--rounds", type=int, default=3, help="in turns")
    arguments.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    asyncio.run(main(arguments.parse_args()))
