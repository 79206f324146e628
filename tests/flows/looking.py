"""What is really stored and sent: rows past all walls, and a tenant's events as the stream keeps them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import nats
import nats.errors
import psycopg
from google.protobuf.message import Message
from nats.js.api import ConsumerConfig, DeliverPolicy
from psycopg.rows import dict_row

from libs import stream
from libs.envelope import Event, Letter, read, type_of
from tests.platform import Stack

Row = dict[str, Any]


async def rows(stack: Stack, query: str, *values: object) -> list[Row]:
    """Rows of the stack's database, seen by the administrator."""
    url = stack.admin_url.rpartition("/")[0] + f"/{stack.settings.database}"
    async with (
        await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection,
        connection.cursor() as cursor,
    ):
        await cursor.execute(query.encode(), values)
        return await cursor.fetchall()


async def as_stored(stack: Stack, schema: str, tenant_id: UUID) -> str:
    """Every row of a tenant in a schema, as PostgreSQL writes it: bytes in hex."""
    tables = await rows(
        stack,
        "select distinct table_name from information_schema.columns "
        "where table_schema = %s and column_name = 'tenant_id' order by 1",
        schema,
    )
    found = []
    for name in (table["table_name"] for table in tables):
        query = f'select t::text as row from {schema}."{name}" t where tenant_id = %s'
        found += [f"{name} {row['row']}" for row in await rows(stack, query, tenant_id)]
    return "\n".join(found)


async def letters(stack: Stack, tenant_id: UUID) -> list[Letter]:
    """All events of a tenant that are on the stream, in the order of their arrival."""
    prefix = stack.settings.prefix
    client = await nats.connect(stack.settings.nats_url)
    try:
        js = client.jetstream()
        subject = f"{prefix}customers.*.*.{tenant_id}"
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        subscription = await js.pull_subscribe(subject, stream=stream.stream_name(prefix), config=config)
        found: list[Letter] = []
        waiting = (await subscription.consumer_info()).num_pending or 0
        while len(found) < waiting:
            for msg in await subscription.fetch(min(500, waiting - len(found)), timeout=5):
                whole = msg.subject.removeprefix(prefix).removesuffix(f".{tenant_id}")
                found.append(Letter(whole, dict(msg.headers or {}), msg.data))
                await msg.ack()
        await subscription.unsubscribe()
        return found
    finally:
        await client.close()


async def events(stack: Stack, tenant_id: UUID, kind: Callable[[], Message]) -> list[Event[Any]]:
    """A tenant's events of one type on the stream."""
    name = kind().DESCRIPTOR.full_name
    return [
        read(letter, type(kind())) for letter in await letters(stack, tenant_id) if type_of(letter) == name
    ]
