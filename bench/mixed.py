"""What people feel of an import: reads, searches, creates and orders at a set mix, while idle and beside one, in turns.

    .venv/bin/python -m bench mixed [--rows 5000] [--rounds 3] [--mix get=60,search=20,create=10,order=10]

Runs on a stack of its own, each service in a process. A round is some seconds of the mix alone, then the mix beside an
import of as many new customers; before it is idle again, all that the import tells has gone out. The sides take turns,
so what else the machine does meets both alike: the ratios hold on a busy machine, the milliseconds do not.
"""

import argparse
import asyncio
import itertools
import os
import platform
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from bench import data, imports, stack
from bench.names import FIRST, LAST
from libs.ids import new_id
from libs.run.stack import members
from regulars.customers.v1 import customers_pb2, imports_pb2, orders_pb2, search_pb2
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from regulars.customers.v1.search_pb2_grpc import SearchServiceStub
from regulars.type.v1.money_pb2 import Money

MIX = "get=60,search=20,create=10,order=10"
PAUSE = 0.02  # of a caller, after each answer
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    customers: int
    rows: int
    rounds: int
    seconds: float
    callers: int
    mix: Mapping[str, int]


@dataclass
class Mix:
    """Calls at random, but the same ones in each run."""

    ids: Sequence[str]
    shares: Mapping[str, int]
    channel: grpc.aio.Channel
    auth: tuple[tuple[str, str], ...]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def run(self, stop: asyncio.Event, callers: int, dice: random.Random) -> Times:
        """Milliseconds of each call, by kind, of `callers` who call until `stop` is set."""
        found: Times = {kind: [] for kind in self.shares}

        async def caller() -> None:
            while not stop.is_set():
                kind = dice.choices([*self.shares], [*self.shares.values()])[0]
                began = time.perf_counter()
                await self._call(kind, dice)
                found[kind].append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(PAUSE)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return found

    async def _call(self, kind: str, dice: random.Random) -> None:
        customers = CustomersServiceStub(self.channel)
        number = next(self.numbers)
        match kind:
            case "get":
                get = customers_pb2.GetCustomerRequest(id=dice.choice(self.ids))
                await customers.GetCustomer(get, metadata=self.auth)
            case "search":
                search = search_pb2.SearchCustomersRequest(query=dice.choice(LAST), page_size=10)
                await SearchServiceStub(self.channel).SearchCustomers(search, metadata=self.auth)
            case "create":
                person = customers_pb2.Customer(
                    email=f"live{number}@example.com",
                    first_name=dice.choice(FIRST),
                    last_name=dice.choice(LAST),
                )
                create = customers_pb2.CreateCustomerRequest(customer=person)
                await customers.CreateCustomer(create, metadata=self.auth)
            case "order":
                order = orders_pb2.Order(
                    source="mixed",
                    external_id=f"{number}-{new_id().hex[-8:]}",
                    customer_id=dice.choice(self.ids),
                    status=orders_pb2.ORDER_STATUS_PAID,
                    placed_at=Timestamp(seconds=1_750_000_000 + number),
                    items=[
                        orders_pb2.OrderItem(
                            sku=f"S{number % 100}", quantity=1, unit_price=Money(amount_minor=1990)
                        )
                    ],
                )
                record = orders_pb2.RecordOrderRequest(order=order)
                await OrdersServiceStub(self.channel).RecordOrder(record, metadata=self.auth)


def newcomers(first: int, count: int) -> bytes:
    """A file of customers whom no other such file has."""
    dice = random.Random(first)
    rows = (
        (f"M{i}", dice.choice(FIRST), dice.choice(LAST), f"mixed{i}@example.com", f"+49151{10_000_000 + i}")
        for i in range(first, first + count)
    )
    return imports.csv_of([("Customer ID", "First name", "Last name", "Email", "Phone"), *rows])


async def main(plan: Plan) -> None:
    """Starts a stack and measures."""
    async with (
        stack.running() as found,
        grpc.aio.insecure_channel(members.address(found.settings, "customers")) as channel,
    ):
        ids = [str(each) for each in await data.seed(found, range(plan.customers))]
        bench = imports.Bench(found, channel)
        mix = Mix(ids, plan.mix, channel, bench.auth)
        owner = found.url("customers", "owner")
        idle, beside = Times(), Times()
        seconds, loads = 0.0, []
        dice = random.Random(1)
        await mix.run(_after(2), plan.callers, dice)  # connections, plans, caches
        for number in range(plan.rounds):
            await _told(owner)
            _add(idle, await mix.run(_after(plan.seconds), plan.callers, dice))
            content = newcomers(number * plan.rows, plan.rows)
            import_id = await bench.upload(content, imports_pb2.IMPORT_KIND_CUSTOMERS)
            stop = asyncio.Event()
            calling = asyncio.create_task(mix.run(stop, plan.callers, dice))
            progress, took = await bench.run(import_id)
            stop.set()
            _add(beside, await calling)
            assert progress.rows_done == plan.rows, progress
            seconds += took["seconds"]
            loads.append(os.getloadavg()[0])
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(
        f"load {min(loads):.0f} to {max(loads):.0f}; {plan.callers} callers, {plan.rounds} rounds, ", end=""
    )
    print(f"imports of {plan.rows:,} rows, {plan.rows * plan.rounds / seconds:,.0f} rows/s beside the mix\n")
    print("\n".join(table(idle, beside)))


def table(idle: Times, beside: Times) -> Iterator[str]:
    """The figures, as Markdown."""
    yield "| call | idle: calls | p50 ms | p95 ms | beside: calls | p50 ms | p95 ms | p50 ratio | p95 ratio |"
    yield "| --- |" + " ---: |" * 8
    every = [("all", [*chain(*idle.values())], [*chain(*beside.values())])]
    for name, alone, busy in [*((kind, idle[kind], beside[kind]) for kind in idle), *every]:
        if not (alone and busy):
            continue
        (a50, a95), (b50, b95) = _two(alone), _two(busy)
        yield (
            f"| {name} | {len(alone):,} | {a50:.1f} | {a95:.1f} | {len(busy):,} | {b50:.1f} | {b95:.1f} |"
            f" {b50 / a50:.2f} | {b95 / a95:.2f} |"
        )


def _two(found: list[float]) -> tuple[float, float]:
    return statistics.median(found), imports.p95(found)


def _add(sums: Times, more: Times) -> None:
    for kind, found in more.items():
        sums.setdefault(kind, []).extend(found)


def _after(seconds: float) -> asyncio.Event:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    return stop


async def _told(owner: str) -> None:
    """Returns once nothing waits in the outbox."""
    while await asyncio.to_thread(imports.waiting, owner):  # noqa: ASYNC110 – other processes send them
        await asyncio.sleep(0.5)


def _mix(given: str) -> dict[str, int]:
    found = {}
    for part in given.split(","):
        kind, _, share = part.partition("=")
        if kind not in ("get", "search", "create", "order") or not share.isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is no get, search, create or order with its share")
        found[kind] = int(share)
    return found


def plan() -> Plan:
    """What the arguments ask for."""
    arguments = argparse.ArgumentParser(prog="python -m bench mixed", description=__doc__)
    arguments.add_argument("--customers", type=int, default=2000, help="in the database before")
    arguments.add_argument("--rows", type=int, default=5000, help="of each import")
    arguments.add_argument("--rounds", type=int, default=3, help="how often the sides take turns")
    arguments.add_argument("--seconds", type=float, default=6.0, help="of an idle side")
    arguments.add_argument("--callers", type=int, default=4, help="who call at once")
    arguments.add_argument("--mix", type=_mix, default=MIX, help=f"shares of the calls (default: {MIX})")
    return Plan(**vars(arguments.parse_args()))


if __name__ == "__main__":
    asyncio.run(main(plan()))
