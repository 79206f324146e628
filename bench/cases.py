"""The cases: what is measured, and what it is measured beside."""

import base64
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from bench import data, limits, stack
from bench.data import Person
from bench.measure import Answer, Figures, Side, alternating
from bench.stack import Child, Stack
from libs import config
from libs.crypto import LiveVersions
from libs.migrate import migrate
from libs.run.stack.home import free_port
from regulars.customers.v1 import customers_pb2 as pb
from services.customers.profiles import queries

GET = limits.CONSTANT
CREATE = "/regulars.customers.v1.CustomersService/CreateCustomer"
SAMPLE = 5_000
EVENTS = 5_000


@dataclass(frozen=True)
class Plan:
    """How long to measure. `seconds` of one side in one round."""

    rounds: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """A case at a size: the product's figures first, then the limits. `goal` is the share that quality asks for."""

    case: str
    size: int
    figures: list[Figures]
    goal: str
    met: bool | None
    note: str = ""


@dataclass
class Bench:
    """What the cases work with. `ids` are the customers that were seeded; `next_number` the next new person."""

    stack: Stack
    plan: Plan
    folder: Path
    live: LiveVersions
    load: Child
    ids: list[UUID]
    next_number: int = 10_000_000

    def file(self, name: str, bodies: list[bytes]) -> str:
        """Requests for the load generator."""
        return data.write_lines(self.folder / name, bodies)

    def order(self, **order: Any) -> Callable[[], Answer]:
        """What the load generator does in one round."""
        return lambda: self.load.ask({"seconds": self.plan.seconds, **order})

    def sample(self) -> list[UUID]:
        """Customers to read."""
        return random.Random(1).sample(self.ids, min(SAMPLE, len(self.ids)))

    def metadata(self) -> list[tuple[str, str]]:
        """The token."""
        return [("authorization", f"Bearer {self.stack.token}")]

    def processes(self, *names: str) -> dict[str, list[int]]:
        """Members of the stack, for their CPU."""
        return {name: self.stack.pids(name) for name in names}

    def request(self, customer_id: UUID) -> bytes:
        """The request that reads one customer."""
        business = str(self.stack.business_id)
        return pb.GetCustomerRequest(id=str(customer_id), business_id=business).SerializeToString()

    def answer(self) -> bytes:
        """A customer as the product answers it."""
        with grpc.insecure_channel(self.customers()) as channel:
            rpc: Any = channel.unary_unary(GET)
            answer: bytes = rpc(self.request(self.ids[0]), metadata=self.metadata(), timeout=10)
        return answer

    def customers(self) -> str:
        """Where the customers service answers."""
        return self.stack.settings.address_of("customers")

    @contextmanager
    def limit_server(self) -> Iterator[Child]:
        """The least code that reads the same rows, echoes, or answers a constant."""
        found = self.stack
        walls = (
            f"set_config('app.tenant_id', '{found.tenant_id}', true), set_config('app.businesses', '*', true)"
        )
        given = {
            "answer": base64.b64encode(self.answer()).decode(),
            "url": found.url("customers", "app"),
            "begin": f"BEGIN READ ONLY; SELECT {walls}",
            "statement": str(queries._ONE.compile(dialect=psycopg_dialect.dialect())),  # type: ignore[no-untyped-call]
            "where": {"tenant": str(found.tenant_id), "business": str(found.business_id)},
        }
        with stack.child("bench.limits", given) as child:
            yield child


def get_over_grpc(bench: Bench) -> Result:
    """A profile by id over gRPC, beside psycopg behind grpc.aio, and the echo of the same message."""
    ids = bench.sample()
    with bench.limit_server() as limit:
        there = f"127.0.0.1:{limit.said['port']}"
        common: dict[str, Any] = {"kind": "grpc", "callers": 16}
        sides = [
            Side(
                "product",
                bench.order(
                    **common,
                    address=bench.customers(),
                    path=GET,
                    metadata=bench.metadata(),
                    bodies=bench.file("get", [bench.request(each) for each in ids]),
                ),
                bench.processes("customers", "postgres"),
            ),
            Side(
                "grpc.aio + psycopg",
                bench.order(
                    **common,
                    address=there,
                    path=limits.GET,
                    bodies=bench.file("ids", [each.bytes for each in ids]),
                ),
                {"limit": [limit.pid], **bench.processes("postgres")},
            ),
            Side(
                "grpc.aio echo",
                bench.order(
                    **common, address=there, path=limits.ECHO, bodies=bench.file("echo", [bench.answer()])
                ),
                {"limit": [limit.pid]},
            ),
        ]
        figures = alternating(sides, bench.plan.rounds)
    share = figures[0].beside(figures[1])[0]
    return Result("profile by id, gRPC", len(bench.ids), figures, "≥ 80 % of psycopg's rate", share >= 0.8)


def get_through_gateway(bench: Bench) -> Result:
    """A profile by id through the gateway, beside a gateway whose service answers a constant; 32 callers."""
    found = bench.stack
    paths = [f"/api/v1/customers/{each}?business_id={found.business_id}".encode() for each in bench.sample()]
    bodies = bench.file("paths", paths)
    with bench.limit_server() as limit, second_gateway(found, limit.said["port"]) as (gateway, port):
        common: dict[str, Any] = {"kind": "rest", "callers": 32, "token": found.token, "bodies": bodies}
        sides = [
            Side(
                "product",
                bench.order(**common, port=found.settings.port),
                bench.processes("gateway", "customers", "postgres"),
            ),
            Side(
                "same gateway, constant",
                bench.order(**common, port=port),
                {"gateway": [gateway], "limit": [limit.pid]},
            ),
        ]
        figures = alternating(sides, bench.plan.rounds)
    ours = figures[0]
    spent, p95 = sum(ours.cpu_ms().values()), sorted(ours.p95)[len(ours.p95) // 2]
    goal = "p95 < 15 ms at 32 callers; ≤ 1.2 ms CPU in all processes"
    return Result("profile by id, REST", len(bench.ids), figures, goal, p95 < 15 and spent <= 1.2)


@contextmanager
def second_gateway(found: Stack, service_port: int) -> Iterator[tuple[int, int]]:
    """The same gateway program in front of another customers service; gives (pid, port)."""
    port = free_port(set())
    env = dict(found.env) | {
        "REGULARS_PORT": str(port),
        "REGULARS_METRICS_PORT": "0",
        "REGULARS_CUSTOMERS_ADDRESS": f"127.0.0.1:{service_port}",
    }
    with stack.service("gateway", env, f"http://127.0.0.1:{port}/healthz") as pid:
        yield pid, port


def create(bench: Bench) -> Result:
    """Creating customers (sealed, indexed, event out), beside the INSERT of the same rows with the same fsync."""
    found = bench.stack
    batch = int(bench.plan.seconds * 3_000)

    def product() -> Answer:
        people = _new(bench, batch)
        bodies = [person.request(found.business_id) for person in people]
        order = bench.order(
            kind="grpc",
            callers=16,
            address=bench.customers(),
            path=CREATE,
            metadata=bench.metadata(),
            bodies=bench.file("create", bodies),
            once=True,
        )
        return order()

    def bare() -> Answer:
        statement, rows = _insert(bench, _new(bench, batch))
        order = bench.order(
            kind="insert",
            callers=8,
            url=data.bare_url(found),
            statement=statement,
            bodies=bench.file("rows", rows),
            once=True,
        )
        return order()

    data.make_bare(found)
    sides = [
        Side("product", product, bench.processes("customers", "postgres")),
        Side("psycopg INSERT", bare, {"generator": [bench.load.pid], **bench.processes("postgres")}),
    ]
    figures = alternating(sides, bench.plan.rounds)
    share = figures[0].beside(figures[1])[0]
    return Result("create a customer", len(bench.ids), figures, "≥ 50 % of the INSERT's rate", share >= 0.5)


def _new(bench: Bench, count: int) -> list[Person]:
    bench.next_number += count
    return list(data.people(bench.next_number - count, count))


def _insert(bench: Bench, people: list[Person]) -> tuple[str, list[bytes]]:
    """One statement for all rows of a customer and its event, and its parameters for each of `people`."""
    rows = [data.with_event(bench.stack, data.rows(bench.stack, bench.live, person)) for person in people]
    return data.insert_statement(rows[0]), [data.parameters(row) for row in rows]


def events(bench: Bench) -> Result:
    """Events from the outbox to the inbox, beside publish and pull on bare JetStream."""
    found = bench.stack
    env = {**found.env, "REGULARS_DATABASE": "bench_events"}
    settings = config.load(config.Settings, None, env)
    migrate(replace(settings, postgres_url=found.settings.postgres_url), ["customers"])
    with stack.child("bench.events", {}, env) as child:
        sides = [
            Side(name, lambda kind=kind: child.ask({"kind": kind, "events": EVENTS}))  # type: ignore[misc]
            for name, kind in (("product", "ours"), ("bare JetStream", "bare"))
        ]
        figures = alternating(sides, bench.plan.rounds)
    return Result("event: outbox to inbox", EVENTS, figures, "–", None)


CASES: dict[str, Callable[[Bench], Result]] = {
    "get": get_over_grpc,
    "rest": get_through_gateway,
    "create": create,
    "events": events,
}
# Its figures do not depend on how many customers there are.
ONCE = {"events"}
