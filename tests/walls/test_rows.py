"""The second wall: what PostgreSQL itself shows to the application's role, however careless a query is."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from libs import dsn
from tests.contracts.database import NOT_WALLED, SERVICES, VERSIONS, Admin, administrator, tables
from tests.platform import Stack
from tests.walls.world import World


@contextmanager
def application(stack: Stack, service: str, **walls: str) -> Iterator[Admin]:
    """A transaction of the application's role that is rolled back. `walls`: tenant_id, businesses."""
    settings = stack.settings
    url = dsn.role_url(stack.admin_url, settings.home, settings.database, service, "app")
    with psycopg.connect(url) as connection:
        for name, value in walls.items():
            connection.execute("select set_config('app.' || %s, %s, true)", [name, value])
        yield connection
        connection.rollback()


def walled(stack: Stack, service: str) -> list[str]:
    with psycopg.connect(administrator(stack)) as database, application(stack, service) as app:
        names = [
            name
            for name in tables(database, [service])
            if name not in NOT_WALLED and name.partition(".")[2] not in VERSIONS
        ]
        seen = app.execute(
            "select t from unnest(%s::text[]) t where has_table_privilege(t, 'select')", [names]
        )
        return [row[0] for row in seen]


def count(connection: Admin, table: str, where: str = "true", *given: object) -> int:
    query = sql.SQL("select count(*) from {} where " + where).format(sql.Identifier(*table.split(".")))
    found = connection.execute(query, given).fetchone()
    assert found is not None
    return int(found[0])


def jobs_of(service: str) -> int:
    """The jobs that a world has: one of the test's own, and loyalty's, which judges the members by its tiers."""
    return 2 if service == "loyalty" else 1


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "walls",
    [
        {},
        {"businesses": "*"},
        {"tenant_id": "", "businesses": "*"},
        {"tenant_id": str(uuid4()), "businesses": "*"},
    ],
    ids=["forgotten", "only businesses", "empty", "of nobody"],
)
async def test_who_names_no_tenant_sees_nothing(
    stack: Stack, home: World, service: str, walls: dict[str, str]
) -> None:
    with application(stack, service, **walls) as app:
        assert {name: n for name in walled(stack, service) if (n := count(app, name))} == {}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_tenant_sees_all_of_its_own_rows_and_no_others(
    stack: Stack, home: World, next_door: World, service: str
) -> None:
    mine = home.tenant.id
    with (
        psycopg.connect(administrator(stack)) as database,
        application(stack, service, tenant_id=str(mine), businesses="*") as app,
    ):
        names = [name for name in walled(stack, service) if not name.endswith(("outbox", "inbox", "parked"))]
        there = {name: count(database, name, "tenant_id = %s", mine) for name in names}
        assert {name: count(app, name) for name in names} == there
        assert there[f"{service}.jobs"] >= 2 * jobs_of(service)
        assert there[f"{service}.tenants"] == 1


@pytest.mark.parametrize("service", SERVICES)
async def test_a_business_sees_no_rows_of_another(
    stack: Stack, home: World, next_door: World, service: str
) -> None:
    here = {"tenant_id": str(home.tenant.id), "businesses": home.business}
    with psycopg.connect(administrator(stack)) as database, application(stack, service, **here) as app:
        names = [
            name
            for name in tables(database, [service], having="business_id")
            if name in walled(stack, service)
        ]
        assert {
            name: n for name in names if (n := count(app, name, "business_id <> %s", home.business))
        } == {}
        assert count(app, f"{service}.jobs") >= jobs_of(service)


@pytest.mark.parametrize("service", SERVICES)
async def test_rows_cannot_be_given_to_another_tenant(stack: Stack, home: World, service: str) -> None:
    given = []
    for table in walled(stack, service):
        with application(stack, service, tenant_id=str(home.tenant.id), businesses="*") as app:
            move = sql.SQL("update {} set tenant_id = %s").format(sql.Identifier(*table.split(".")))
            try:
                if app.execute(move, [uuid4()]).rowcount:
                    given.append(table)
            except psycopg.errors.InsufficientPrivilege:
                continue
    assert given == []
