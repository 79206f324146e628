"""Statements that travel together do all or nothing, and leave a connection that the next call can use."""

import asyncio
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import bindparam, insert, select, text

from libs.caller import acting_as
from libs.ids import new_id
from libs.pipeline import Query
from libs.plumbing import outbox
from tests.libs.rooms import Room

WHO = Query(
    text("select current_setting('app.tenant_id') as tenant, current_setting('transaction_read_only') as ro")
)
DIVIDE = Query(text("select 1 / cast(:by as integer) as result"))
SLEEP = Query(text("select pg_sleep(cast(:seconds as double precision))"))
PID = Query(text("select pg_backend_pid() as pid"))
POST = Query(insert(outbox))
POSTED = Query(select(outbox).where(outbox.c.id == bindparam("event")))


def row(room: Room) -> dict[str, object]:
    return {
        "tenant_id": room.tenant_id,
        "id": new_id(),
        "subject": "customers.customer.created",
        "headers": Jsonb({"a": 1}),
        "lane": 0,
        "body": b"\x00\xff",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
    }


async def test_fetch_reads_as_the_caller_s_tenant_and_writes_nothing(room: Room) -> None:
    with acting_as(room.me()):
        ((found,),) = await room.db.fetch((WHO, {}))
        assert (found.tenant, found.ro) == (str(room.tenant_id), "on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await room.db.fetch((POST, row(room)))


async def test_values_come_back_as_they_went(room: Room) -> None:
    mine = row(room)
    with acting_as(room.me()):
        async with room.db.tx() as tx:
            posted, (found,) = await tx.together((POST, mine), (POSTED, {"event": mine["id"]}))
    assert posted == []
    assert (found.tenant_id, found.id, found.body) == (mine["tenant_id"], mine["id"], mine["body"])
    assert (found.headers, found.created_at) == ({"a": 1}, mine["created_at"])


async def test_a_failed_step_undoes_those_before_it(room: Room) -> None:
    async def fail() -> None:
        async with room.db.tx() as tx:
            await tx.together((POST, row(room)), (DIVIDE, {"by": 0}), (POST, row(room)))

    with acting_as(room.me()):
        for _ in range(3):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await fail()
        ((found,),) = await room.db.fetch((DIVIDE, {"by": 1}))
    assert found.result == 1
    assert await room.waiting() == 0


async def test_a_rollback_forgets_the_plans_that_it_drops(room: Room) -> None:
    async def give_up() -> None:
        async with room.db.tx() as tx:
            await tx.together((DIVIDE, {"by": 1}))
            for _ in range(10):  # so often that psycopg plans it too, and drops all plans at the rollback
                await tx.scalar(text("select 1"))
            raise ZeroDivisionError

    with acting_as(room.me()):
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await give_up()
            assert await room.db.fetch((DIVIDE, {"by": 1}))


async def test_a_cancelled_read_gives_its_connection_back_in_order(room: Room) -> None:
    with acting_as(room.me()):
        for _ in range(6):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await room.db.fetch((SLEEP, {"seconds": 4}))
        found = await asyncio.gather(*(room.db.fetch((DIVIDE, {"by": 1})) for _ in range(20)))
    assert all(rows[0][0].result == 1 for rows in found)


async def test_connections_that_died_in_the_pool_are_replaced(room: Room) -> None:
    with acting_as(room.me()):
        ((before,),) = await room.db.fetch((PID, {}))
        async with await psycopg.AsyncConnection.connect(
            room.machine.settings.postgres_url, autocommit=True
        ) as admin:
            await admin.execute("select pg_terminate_backend(%s, 5000)", (before.pid,))
        ((after,),) = await room.db.fetch((PID, {}))
    assert after.pid != before.pid
