"""Customers by the ten thousand: sealed and indexed by the product's own code, put in by COPY."""

import base64
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import orjson
import psycopg
from psycopg.types.json import Jsonb

from bench.stack import Stack
from libs import clock, envelope
from libs.caller import Caller, acting_as
from libs.crypto import LiveVersions, live_versions
from libs.ids import new_id
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import events_pb2 as events
from services.customers.profiles import rules
from services.customers.profiles.queries import PROFILE
from services.customers.profiles.rules import Profile

CHUNK = 5_000
FIRST = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Karla", "Leon")
LAST = ("Adler", "Bauer", "Conrad", "Dietz", "Engel", "Fischer", "Graf", "Huber", "Jung", "Keller", "Lang")

COLUMNS = {
    "customers": "tenant_id customer_id key_id version profile email_verified phone_verified created_at updated_at",
    "subject_keys": "tenant_id key_id subject_id epoch wrapped created_at",
    "memberships": "tenant_id business_id customer_id status type tags attributes source joined_at",
    "customer_identifiers": "tenant_id kind key_version bidx customer_id",
    "outbox": "tenant_id id subject headers body created_at",
}
TYPES = {
    "customers": "uuid uuid uuid int8 bytea bool bool timestamptz timestamptz",
    "subject_keys": "uuid uuid uuid int4 bytea timestamptz",
    "memberships": "uuid uuid uuid int2 int2 text[] jsonb text timestamptz",
    "customer_identifiers": "uuid text int4 bytea uuid",
    "outbox": "uuid uuid text jsonb bytea timestamptz",
}
Rows = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Person:
    """One made-up customer; the same number is always the same person."""

    number: int

    def profile(self) -> Profile:
        """What is known of them."""
        chance = random.Random(self.number)
        first, last = chance.choice(FIRST), chance.choice(LAST)
        return Profile(
            first_name=first,
            last_name=last,
            email=f"{first}.{last}.{self.number}@example.com",
            phone=f"+49151{self.number:08d}",
            born_on=f"19{chance.randint(50, 99)}-0{chance.randint(1, 9)}-{chance.randint(10, 28)}",
            language="de",
        )

    def request(self, business_id: UUID) -> bytes:
        """The request that creates them."""
        known: Any = self.profile().known()
        message = pb.Customer(**known, tags=["vip", "newsletter"])
        return pb.CreateCustomerRequest(business_id=str(business_id), customer=message).SerializeToString()


async def versions(stack: Stack) -> LiveVersions:
    """The key versions of the bench's tenant."""
    database = stack.database("customers")
    try:
        with acting_as(Caller(tenant_id=stack.tenant_id, subject="bench")):
            async with database.read() as tx:
                return await live_versions(tx)
    finally:
        await database.close()


def rows(stack: Stack, live: LiveVersions, person: Person) -> Rows:
    """Every row of a new customer, by table."""
    tenant_id, customer_id, now = stack.tenant_id, new_id(), clock.now()
    keys, profile = stack.keys.for_tenant(stack.tenant_id), person.profile()
    key_row, key = keys.new_subject_key(live, customer_id, now)
    sealed = keys.seal(key, PROFILE, customer_id, orjson.dumps(profile.known()))
    business = stack.business_id
    tags = ["vip", "newsletter"]
    return {
        "customers": [(tenant_id, customer_id, key_row.key_id, 1, sealed, False, False, now, now)],
        "subject_keys": [(tenant_id, key_row.key_id, customer_id, key_row.epoch, key_row.wrapped, now)],
        "memberships": [(tenant_id, business, customer_id, 1, 2, tags, Jsonb({}), "manual", now)],
        "customer_identifiers": [
            (tenant_id, kind, index.key_version, index.digest, customer_id)
            for kind, value in sorted(rules.identifiers(profile, {}))
            for index in keys.blind_indexes(live, kind, value)
        ],
    }


async def seed(stack: Stack, numbers: range) -> list[UUID]:
    """Adds one customer for each number; gives their ids."""
    live, made = await versions(stack), []
    async with await psycopg.AsyncConnection.connect(
        stack.url("customers", "owner"), autocommit=True
    ) as owner:
        for start in range(numbers.start, numbers.stop, CHUNK):
            chunk: Rows = {table: [] for table in COLUMNS}
            for number in range(start, min(start + CHUNK, numbers.stop)):
                for table, found in rows(stack, live, Person(number)).items():
                    chunk[table] += found
            made += [row[1] for row in chunk["customers"]]
            async with owner.transaction():
                for table, found in chunk.items():
                    await _copy(owner, table, found)
        await owner.execute("vacuum analyze")
    return made


async def _copy(owner: psycopg.AsyncConnection[Any], table: str, found: Iterable[tuple[Any, ...]]) -> None:
    columns = ", ".join(COLUMNS[table].split())
    async with owner.cursor() as cursor, cursor.copy(f"copy {table} ({columns}) from stdin binary") as copy:
        copy.set_types(TYPES[table].split())
        for row in found:
            await copy.write_row(row)


def with_event(stack: Stack, found: Rows) -> Rows:
    """The rows, and that of the event which tells of them."""
    tenant_id, customer_id = found["customers"][0][:2]
    now = clock.now()
    event = events.CustomerCreated(
        customer_id=str(customer_id),
        business_id=str(stack.business_id),
        status=pb.CUSTOMER_STATUS_ACTIVE,
        type=pb.CUSTOMER_TYPE_REGISTERED,
        source="manual",
    )
    event.joined_at.FromDatetime(now)
    event_id = new_id()
    letter = envelope.write(
        event,
        event_id=event_id,
        at=now,
        caller=Caller(tenant_id=tenant_id, subject="bench"),
        aggregate_id=customer_id,
        version=1,
        business_id=stack.business_id,
        cause=None,
    )
    row = (tenant_id, event_id, letter.subject, Jsonb(dict(letter.headers)), letter.body, now)
    return {**found, "outbox": [row]}


def make_bare(stack: Stack) -> None:
    """Tables of the same columns and indexes, without the product's walls and references, in a schema apart."""
    with psycopg.connect(admin_url(stack), autocommit=True) as admin:
        admin.execute("create schema if not exists bare")
        for table in COLUMNS:
            admin.execute(
                f"create table if not exists bare.{table} (like customers.{table} including all)".encode()
            )


def bare_url(stack: Stack) -> str:
    """The administrator's address, where plain names mean the bare tables."""
    return admin_url(stack, "bare")


def admin_url(stack: Stack, schema: str = "public") -> str:
    """The administrator's address, where plain names mean the tables of a schema."""
    parts = urlsplit(stack.settings.postgres_url)
    return (
        urlunsplit(parts._replace(path=f"/{stack.settings.database}")) + f"?options=-csearch_path%3D{schema}"
    )


def insert_statement(found: Rows) -> str:
    """One statement that inserts all these rows."""
    parts = []
    for table, some in found.items():
        types = TYPES[table].split()
        one = "(" + ", ".join(f"%s::{kind}" for kind in types) + ")"
        columns = ", ".join(COLUMNS[table].split())
        parts.append(f"insert into {table} ({columns}) values " + ", ".join([one] * len(some)))
    *first, last = parts
    return "with " + ", ".join(f"w{i} as ({part})" for i, part in enumerate(first)) + " " + last


def parameters(found: Rows) -> bytes:
    """The parameters of `insert_statement`, for the load generator."""
    return orjson.dumps([_plain(value) for some in found.values() for row in some for value in row])


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return "~" + base64.b85encode(value).decode()
    if isinstance(value, Jsonb):
        return orjson.dumps(value.obj).decode()
    return value


def write_lines(path: Path, bodies: Iterable[bytes]) -> str:
    """Requests for the load generator; gives the file's name."""
    path.write_bytes(b"\n".join(map(base64.b64encode, bodies)))
    return str(path)


def people(start: int, count: int) -> Iterator[Person]:
    """`count` people from a number on."""
    return map(Person, range(start, start + count))
