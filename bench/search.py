"""Prints what searches cost by kind and size, beside clear text with pg_trgm on the same rows, and what typos find.

    .venv/bin/python -m bench.search --sizes 10000 100000 [--write]

Times are of the service's own method in this process: parse, transaction, candidates, opening, ranking, answer.
Without Debian's PostgreSQL 15 (/usr/lib/postgresql/15, contrib) a bare count(*) stands beside them.
"""

import argparse
import asyncio
import os
import platform
import pwd
import random
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psycopg
from rapidfuzz import fuzz

from bench.names import Someone, people
from libs import caller as callers
from libs import clock, dsn
from libs.caller import Caller
from libs.crypto import Kind, LiveVersions, TenantKeys
from libs.ids import new_id
from libs.run.stack import postgres
from libs.run.stack.home import free_port
from regulars.customers.v1 import search_pb2 as pb
from services.customers.profiles.queries import PROFILE
from services.customers.profiles.rules import Profile, identifiers
from services.customers.search import actions
from services.customers.search.folding import words
from services.customers.search.service import SearchService
from tests import servers as of_run
from tests.platform import running_stack

ROUNDS = 100
PAGE = 20
GOAL_MS, GOAL_RECALL = 25.0, 0.97
DEBIAN = Path("/usr/lib/postgresql/15/bin")
RESULTS = Path(__file__).parent / "RESULTS-search.md"
Ask = Callable[[str], Awaitable[list[tuple[str, str]]]]
"""Answers a query with (first name, last name), best first."""


@dataclass
class Measured:
    """Seconds of one kind of query, ours (`cpu`: in this process) and beside it; who was found."""

    ours: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    found_beside: list[bool] = field(default_factory=list)


# --- loading -------------------------------------------------------------------------------------------------


def rows(keys: TenantKeys, business: UUID, some: Iterable[Someone]) -> Iterator[dict[str, Any]]:
    """The product's own rows for people who join one business."""
    ones = dict.fromkeys(Kind, 1)
    live = LiveVersions(keys.tenant_id, ones, dict.fromkeys(Kind, (1,)), {})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    dice = random.Random(7)
    for i, someone in enumerate(some):
        customer = new_id()
        profile = Profile(someone.first, someone.last, "", someone.email, someone.phone)
        row, key = keys.new_subject_key(live, customer, now)
        (search,) = actions.rows_of(keys, [1], profile, {business: ()})
        orders = 0 if dice.random() < 0.2 else 1 + int(dice.expovariate(0.3))
        yield {
            "customer": customer,
            "key": row,
            "profile": keys.seal(key, PROFILE, customer, orjson.dumps(profile.known())),
            "identifiers": [
                (kind, index.digest)
                for kind, value in identifiers(profile, {})
                for index in keys.blind_indexes(live, kind, value)
            ],
            "tokens": "{" + ",".join(map(str, search["tokens"])) + "}",
            "status": dice.choices((1, 2, 3), (90, 7, 3))[0],
            "country": dice.choice(("US", "US", "US", "DE", "FR", "IT", "SE")),
            "tag": dice.choice(("early", "west", "news", "rare")) if dice.random() < 0.3 else "",
            "orders": orders,
            "spent": sum(dice.randrange(500, 20_000) for _ in range(min(orders, 8))),
            "last_order": now - timedelta(minutes=dice.randrange(2_000_000)),
            "now": now + timedelta(milliseconds=i),
        }


def load(
    url: str, tenant: UUID, business: UUID, made: Iterable[dict[str, Any]], seed: list[Someone]
) -> float:
    """Copies rows in as the owner of the tables, chunk by chunk; gives the seconds that it took."""
    started = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("set statement_timeout = 0")
        owner.execute("drop index customer_search_tokens_idx")
        chunk: list[dict[str, Any]] = []
        for one in made:
            chunk.append(one)
            if len(chunk) == 20_000:
                _copy(owner, tenant, business, chunk)
                chunk = []
        _copy(owner, tenant, business, chunk)
        owner.execute("set maintenance_work_mem = '512MB'")
        owner.execute(
            "create index customer_search_tokens_idx on customer_search using gin (tokens)"
            " with (fastupdate = on, gin_pending_list_limit = 1024)"
        )
        owner.execute("vacuum analyze")
    return time.perf_counter() - started


def _copy(owner: Any, tenant: UUID, business: UUID, chunk: list[dict[str, Any]]) -> None:
    def put(table: str, columns: str, made: Iterable[tuple[Any, ...]]) -> None:
        with owner.cursor().copy(f"copy {table} ({columns}) from stdin") as copy:
            for row in made:
                copy.write_row(row)

    put(
        "customers",
        "tenant_id, customer_id, key_id, version, profile, email_verified, phone_verified, created_at, updated_at",
        (
            (tenant, r["customer"], r["key"].key_id, 1, r["profile"], False, False, r["now"], r["now"])
            for r in chunk
        ),
    )
    put(
        "subject_keys",
        "tenant_id, key_id, subject_id, epoch, wrapped, created_at",
        (tuple(r["key"]) for r in chunk),
    )
    put(
        "memberships",
        "tenant_id, business_id, customer_id, status, type, tags, attributes, source, joined_at",
        (
            (
                tenant,
                business,
                r["customer"],
                r["status"],
                2,
                [r["tag"]] if r["tag"] else [],
                "{}",
                "csv",
                r["now"],
            )
            for r in chunk
        ),
    )
    put(
        "customer_identifiers",
        "tenant_id, kind, key_version, bidx, customer_id",
        ((tenant, kind, 1, digest, r["customer"]) for r in chunk for kind, digest in r["identifiers"]),
    )
    put(
        "customer_search",
        "tenant_id, customer_id, key_version, tokens, businesses, country",
        ((tenant, r["customer"], 1, r["tokens"], [business], r["country"]) for r in chunk),
    )
    put(
        "customer_metrics",
        "tenant_id, business_id, customer_id, orders_recorded, orders_completed, orders_cancelled, orders_refunded,"
        " total_spent_minor, refunded_minor, net_minor, average_order_minor, first_order_at, last_order_at, items,"
        " visits, lifecycle_stage, updated_at",
        (
            (
                *(tenant, business, r["customer"], r["orders"], r["orders"], 0, 0, r["spent"], 0, r["spent"]),
                *(
                    r["spent"] // r["orders"],
                    r["last_order"],
                    r["last_order"],
                    r["orders"],
                    r["orders"],
                    1,
                    r["now"],
                ),
            )
            for r in chunk
            if r["orders"]
        ),
    )


# --- clear text beside ---------------------------------------------------------------------------------------


class ClearText:
    """The same people in clear, with pg_trgm, on Debian's PostgreSQL 15."""

    def __init__(self, folder: Path) -> None:
        self._data, self._port = folder / "clear", free_port(set())
        self._user = pwd.getpwnam("postgres")

    def start(self, everybody: list[Someone]) -> "ClearText":
        """Starts the server and loads it."""
        self._data.mkdir()
        os.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self._data), "--locale=C.UTF-8", "-A", "trust")
        options = f"-p {self._port} -k /tmp -c shared_buffers=1GB -c fsync=off -c jit=off -c work_mem=64MB"
        self._run(
            "pg_ctl", "-D", str(self._data), "-w", "-l", str(self._data / "log"), "-o", options, "start"
        )
        self.connection = psycopg.connect(f"host=127.0.0.1 port={self._port} user=postgres", autocommit=True)
        run = self.connection.execute
        run("create extension pg_trgm")
        run("create table p (id bigint, first text, last text, name text, email text, phone text)")
        with self.connection.cursor().copy("copy p from stdin") as copy:
            for i, one in enumerate(everybody):
                name = " ".join(words(f"{one.first} {one.last}"))
                copy.write_row((i, one.first, one.last, name, one.email, one.phone))
        run("create index on p using gin (name gin_trgm_ops)")
        run("create index on p using gin (email gin_trgm_ops)")
        run("create index on p using gin (phone gin_trgm_ops)")
        run("create index on p (email)")
        run("create index on p (phone)")
        run("create index on p (right(phone, 4))")
        run("vacuum analyze p")
        return self

    def stop(self) -> None:
        """Stops the server."""
        self.connection.close()
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(DEBIAN / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/tmp")

    def ask(self, kind: str, query: str) -> list[tuple[str, str]]:
        """What clear text answers to a query of this kind, ranked as ours are."""
        parts = query.split()
        if kind == "exact e-mail":
            where, values = "email = %s", [query.lower()]
        elif kind == "exact phone":
            where, values = "phone = %s", [query]
        elif kind == "last 4 digits":
            where, values = "right(phone, 4) = %s", [query]
        elif kind == "any 7 digits":
            where, values = "phone like %s", [f"%{query}%"]
        elif kind == "part of e-mail":
            where, values = "email like %s", [f"%{query}%"]
        elif kind == "part of a name":
            where, values = "name like %s", [f"%{query}%"]
        elif "typo" in kind or "edits" in kind:
            if len(parts) == 1:
                return self._fuzzy("%s <%% name", "word_similarity(%s, name)", query)
            return self._fuzzy("name %% %s", "similarity(name, %s)", query)
        else:
            where = " and ".join("(name like %s or name like %s)" for _ in parts)
            values = [pattern for part in parts for pattern in (f"{part}%", f"% {part}%")]
        found = self.connection.execute(
            f"select first, last from p where {where} limit 200", values
        ).fetchall()
        asked = " ".join(sorted(parts))
        return sorted(found, key=lambda row: -fuzz.token_sort_ratio(asked, f"{row[0]} {row[1]}".lower()))[
            :PAGE
        ]

    def _fuzzy(self, where: str, by: str, query: str) -> list[tuple[str, str]]:
        statement = f"select first, last from p where {where} order by {by} desc limit {PAGE}"
        return self.connection.execute(statement, [query, query]).fetchall()


class Counting:
    """A bare count of the customers, where there is no clear text to compare with."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def stop(self) -> None:
        """Closes the connection."""
        self.connection.close()

    def ask(self, kind: str, query: str) -> list[tuple[str, str]]:
        """Counts."""
        self.connection.execute("select count(*) from customers.customers").fetchone()
        return []


# --- asking --------------------------------------------------------------------------------------------------


def slip(word: str, dice: random.Random) -> str:
    """The word with one letter dropped, added, changed, or swapped with the next."""
    at, letter = dice.randrange(len(word)), dice.choice("abcdefghijklmnopqrstuvwxyz")
    kind = dice.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + letter + word[at:]
    if kind == 2:
        return word[:at] + letter + word[at + 1 :]
    at = min(at, len(word) - 2)
    return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]


def _names(one: Someone) -> tuple[str, str]:
    first, last = words(one.first), words(one.last)
    return "".join(first), "".join(last)


def _one_slip(first: str, last: str, dice: random.Random) -> tuple[str, str]:
    return (slip(first, dice), last) if dice.random() < 0.5 else (first, slip(last, dice))


def queries(kind: str, one: Someone, dice: random.Random) -> str | None:
    """A query of a kind for one person, None if their name is too short for it."""
    first, last = _names(one)
    if min(len(first), len(last)) < 4 or not (first + last).isascii():
        return None
    digits = one.phone.lstrip("+")
    start = dice.randrange(len(last) - 3)
    made: dict[str, Callable[[], str]] = {
        "exact e-mail": lambda: one.email,
        "exact phone": lambda: one.phone,
        "last 4 digits": lambda: digits[-4:],
        "any 7 digits": lambda: digits[2:9],
        "prefix of 3": lambda: last[:3],
        "prefix of 5": lambda: last[:5],
        "two prefixes": lambda: f"{first[:3]} {last[:3]}",
        "full name": lambda: f"{last} {first}",
        "part of a name": lambda: last[start : start + 4],
        "part of e-mail": lambda: one.email[1:7],
        "one typo, full name": lambda: " ".join(_one_slip(first, last, dice)),
        "a typo in each name": lambda: f"{slip(first, dice)} {slip(last, dice)}",
        "one typo, last name": lambda: slip(last, dice),
        "two edits, full name": lambda: f"{first} {slip(slip(last, dice), dice)}",
    }
    return made[kind]() if kind in made else None


KINDS = (
    *(
        "exact e-mail",
        "exact phone",
        "last 4 digits",
        "any 7 digits",
        "prefix of 3",
        "prefix of 5",
        "two prefixes",
    ),
    *("full name", "part of a name", "part of e-mail", "one typo, full name", "a typo in each name"),
    *("one typo, last name", "two edits, full name"),
)
LISTS: dict[str, dict[str, Any]] = {
    "list, newest first": {},
    "list, by total spent": {"order_by": "total_spent desc"},
    "list, by last order": {"order_by": "last_order_at desc"},
    "list, by average order": {"order_by": "average_order desc"},
    "list, VIPs in a country by spent": {"status": [3], "country": ["SE"], "order_by": "total_spent desc"},
    "list, one tag": {"tags_any": ["rare"]},
    "prefix of 5, VIPs alone": {"query": "smith", "status": [3]},
    "prefix of 5, by total spent": {"query": "smith", "order_by": "total_spent desc"},
}


async def timed(run: Callable[[], Awaitable[Any]], into: Measured) -> Any:
    """The result, its times noted."""
    started, cpu = time.perf_counter(), time.process_time()
    found = await run()
    into.ours.append(time.perf_counter() - started)
    into.cpu.append(time.process_time() - cpu)
    return found


async def measure(count: int, rounds: int) -> tuple[dict[str, Measured], dict[str, float]]:
    """All kinds at one size."""
    postgres.SETTINGS["shared_buffers"] = "1GB"
    root = of_run.make_directory()
    beside: ClearText | Counting | None = None
    facts: dict[str, float] = {}
    try:
        found = of_run.of_run(root)
        home = root / "home"
        home.mkdir(mode=0o700)
        async with running_stack(found, home, "bench", ["customers"], REGULARS_LOG_LEVEL="ERROR") as stack:
            tenant = await stack.new_tenant()
            rt = stack.runtimes["customers"]
            business = await _business(tenant)
            everybody = list(people(count))
            keys = rt.keys.for_tenant(tenant.id)
            owner = dsn.role_url(found.postgres_url, home, "test_bench", "customers", "owner")
            owner += "?options=-csearch_path%3Dcustomers"
            started = time.perf_counter()
            facts["load s"] = await asyncio.to_thread(
                load, owner, tenant.id, business, rows(keys, business, everybody), everybody
            )
            facts["rows/s"] = count / (time.perf_counter() - started)
            with psycopg.connect(owner) as sizes:
                for name in ("customer_search", "customer_search_tokens_idx", "customers", "subject_keys"):
                    size = sizes.execute("select pg_relation_size(%s::regclass)", [name]).fetchone()
                    facts[f"{name} MB"] = (size[0] if size else 0) / 1e6
            if (DEBIAN / "initdb").exists():
                beside = await asyncio.to_thread(ClearText(root).start, everybody)
            else:
                beside = Counting(owner)
            caller = Caller(
                tenant_id=tenant.id,
                subject="bench",
                method="/regulars.customers.v1.SearchService/SearchCustomers",
            )
            with callers.acting_as(caller):
                table = await _ask_all(SearchService(rt), business, beside, everybody, rounds)
    finally:
        if beside is not None:
            beside.stop()
        await asyncio.to_thread(of_run.end, root)
    return table, facts


async def _business(tenant: Any) -> UUID:
    from regulars.customers.v1.businesses_pb2 import Business, CreateBusinessRequest
    from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub

    made = await tenant.calls(BusinessesServiceStub).CreateBusiness(
        CreateBusinessRequest(business=Business(name="Bench", currency="USD", country="US"))
    )
    return UUID(made.id)


async def _ask_all(
    service: SearchService,
    business: UUID,
    beside: ClearText | Counting,
    everybody: list[Someone],
    rounds: int,
) -> dict[str, Measured]:
    dice = random.Random(11)
    table: dict[str, Measured] = {kind: Measured() for kind in (*KINDS, *LISTS)}

    async def search(**fields: Any) -> pb.SearchCustomersResponse:
        request = pb.SearchCustomersRequest(business_id=str(business), page_size=PAGE, **fields)
        return await service.SearchCustomers(request, None)  # type: ignore[arg-type]  # needs none

    for _ in range(3):
        for kind in KINDS:
            query = None
            while query is None:
                query = queries(kind, dice.choice(everybody), dice)
            await search(query=query)
            beside.ask(kind, query)
    for _ in range(rounds):
        for kind in KINDS:
            query = None
            while query is None:
                one = dice.choice(everybody)
                query = queries(kind, one, dice)
            answer = await timed(lambda q=query: search(query=q), table[kind])  # type: ignore[misc]
            started = time.perf_counter()
            other = beside.ask(kind, query)
            table[kind].beside.append(time.perf_counter() - started)
            wanted = _names(one)
            ours = [(c.first_name, c.last_name) for c in answer.customers]
            for hits, into in ((ours, table[kind].found), (other, table[kind].found_beside)):
                top = [("".join(words(first)), "".join(words(last))) for first, last in hits[:10]]
                into.append(_right(kind, wanted, top))
    for kind, fields in LISTS.items():
        for _ in range(max(10, rounds // 4)):
            await timed(lambda f=fields: search(**f), table[kind])  # type: ignore[misc]
    return table


def _right(kind: str, wanted: tuple[str, str], top: list[tuple[str, str]]) -> bool:
    if kind in {"one typo, last name", "part of a name", "prefix of 3", "prefix of 5"}:
        return any(wanted[1] == last or kind != "one typo, last name" for _, last in top)
    if "typo" in kind or "edits" in kind or kind == "full name":
        return wanted in top
    return bool(top)


# --- telling -------------------------------------------------------------------------------------------------


def ms(seconds: list[float], percent: int) -> float:
    """A percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000 if len(seconds) > 1 else 0.0


def told(count: int, table: dict[str, Measured], facts: dict[str, float]) -> str:
    """The table of one size."""
    lines = [
        f"### {count:,} customers",
        "",
        ", ".join(f"{name} {value:,.0f}" for name, value in facts.items()),
        "",
        "| kind of query | ours p50 / p95 ms | service CPU p50 ms | beside p50 / p95 ms | p50 ratio | ours @10 |"
        " beside @10 | goal |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for kind, one in table.items():
        p50, p95 = ms(one.ours, 50), ms(one.ours, 95)
        beside = f"{ms(one.beside, 50):.2f} / {ms(one.beside, 95):.2f}" if one.beside else "–"
        ratio = f"{p50 / ms(one.beside, 50):.2f}" if one.beside else "–"
        recall = f"{statistics.mean(one.found):.3f}" if one.found else "–"
        other = f"{statistics.mean(one.found_beside):.3f}" if one.found_beside else "–"
        fast = p95 <= GOAL_MS and (
            not kind.startswith("one typo") or statistics.mean(one.found) >= GOAL_RECALL
        )
        met = "–" if kind in LISTS else "met" if fast else "missed"
        ours = f"{p50:.2f} / {p95:.2f}"
        cells = (
            kind,
            ours,
            f"{ms(one.cpu, 50):.2f}",
            beside,
            ratio,
            recall,
            other,
            met,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and prints; with --write also keeps what it printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    head = (
        f"{clock.now():%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" load average before {os.getloadavg()[0]:.1f}; {given.rounds} queries of each kind, page of {PAGE}.\n"
    )
    print(head)
    parts = [head]
    for count in given.sizes:
        table, facts = asyncio.run(measure(count, given.rounds))
        parts.append(told(count, table, facts))
        print(parts[-1], flush=True)
    if given.write:
        given.write.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
