import os
import shutil
import socket
from collections.abc import AsyncIterator

import psycopg
import pytest

from libs import config
from libs.run.stack import nats, postgres, redis
from libs.run.stack import servers as stack_servers
from libs.run.stack.faults import BadConfiguration, DataTooNew
from libs.run.stack.home import Home
from tests.servers import Servers, make_directory


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    directory = make_directory()
    found = Home(directory / "home")
    yield found
    postgres.discard(found)
    shutil.rmtree(directory)


async def test_a_second_start_keeps_ports_passwords_and_data(home: Home) -> None:
    urls = []
    for attempt in range(2):
        prepared = await stack_servers.prepare(config.Settings(home=home.root), home, durable=False)
        running = await stack_servers.start(prepared.programs)
        try:
            urls.append((prepared.postgres_url, prepared.nats_url, prepared.redis_url))
            with psycopg.connect(prepared.postgres_url, autocommit=True) as connection:
                if attempt == 0:
                    connection.execute("create table kept as select 42 as answer")
                assert connection.execute("select answer from kept").fetchone() == (42,)
        finally:
            await stack_servers.stop_all(running)
        assert not any(process.alive() for process in running)
    assert urls[0] == urls[1]


async def test_nothing_is_open_to_other_users(home: Home) -> None:
    prepared = await stack_servers.prepare(config.Settings(home=home.root), home, durable=False)
    data = next(program.cwd for program in prepared.programs if program.name == "postgres")
    assert data.stat().st_mode & 0o777 == 0o700
    for private in (home.secrets, home.logs, home.root / "nats", home.root / "redis"):
        assert private.stat().st_mode & 0o077 == 0
    for secret in home.secrets.iterdir():
        assert secret.stat().st_mode & 0o077 == 0
    if os.geteuid() == 0:
        assert data.stat().st_uid != 0


async def test_data_of_a_newer_postgres_is_refused(home: Home) -> None:
    prepared = await stack_servers.prepare(config.Settings(home=home.root), home, durable=False)
    data = next(program.cwd for program in prepared.programs if program.name == "postgres")
    (data / "PG_VERSION").write_text("99\n")
    with pytest.raises(DataTooNew, match="PostgreSQL 99"):
        await stack_servers.prepare(config.Settings(home=home.root), home, durable=False)


async def test_a_taken_private_port_is_replaced(home: Home) -> None:
    home.prepare()
    first = home.private_port("nats")
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", first))
        assert home.private_port("nats") != first


async def test_given_servers_are_used_and_none_is_started(servers: Servers, home: Home) -> None:
    settings = config.Settings(
        home=home.root,
        postgres_url=servers.postgres_url,
        nats_url=servers.nats_url,
        redis_url=servers.redis_url,
    )
    prepared = await stack_servers.prepare(settings, home)
    assert prepared.programs == ()
    assert "@" not in prepared.environment()["REGULARS_POSTGRES_URL"]


async def test_servers_that_do_not_answer_are_named(home: Home) -> None:
    settings = config.Settings(home=home.root, postgres_url="postgresql://x:secret@127.0.0.1:1/x")
    with pytest.raises(BadConfiguration, match="REGULARS_POSTGRES_URL") as refused:
        await stack_servers.prepare(settings, home)
    assert "secret" not in str(refused.value)
    for check, name in ((nats.check, "NATS"), (redis.check, "REDIS")):
        scheme = name.lower()
        with pytest.raises(BadConfiguration, match=f"REGULARS_{name}_URL"):
            await check(f"{scheme}://127.0.0.1:1")


async def test_statements_and_values_stay_out_of_postgres_logs(home: Home) -> None:
    prepared = await stack_servers.prepare(config.Settings(home=home.root), home, durable=False)
    only = tuple(program for program in prepared.programs if program.name == "postgres")
    running = await stack_servers.start(only)
    try:
        async with await psycopg.AsyncConnection.connect(
            prepared.postgres_url, autocommit=True
        ) as connection:
            await connection.execute("create table people (email text primary key)")
            for _ in range(2):
                try:
                    await connection.execute("insert into people values (%s)", ("sentinel-7f3a@example.com",))
                except psycopg.errors.UniqueViolation:
                    continue
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                await connection.execute("select 'sentinel-7f3a'::uuid")
    finally:
        await stack_servers.stop_all(running)
    assert b"sentinel-7f3a" not in only[0].log.read_bytes()
