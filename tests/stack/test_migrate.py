import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql

from libs import config, dsn
from libs.migrate import SchemaTooNew, migrate
from libs.revisions import directories, newest
from tests.servers import Servers

SERVICE = "room"  # has no migrations of its own: only the plumbing


@pytest.fixture
def fresh(servers: Servers, tmp_path: Path) -> Iterator[config.Settings]:
    """Settings of a database that does not exist yet, with an administrator who is no superuser."""
    database = f"m{uuid4().hex[:12]}"
    boss = f"boss_{database}"
    with psycopg.connect(servers.postgres_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("create role {} login createrole createdb password 'boss'").format(sql.Identifier(boss))
        )
    url = dsn.with_user(servers.postgres_url, "postgres", boss, "boss")
    yield config.Settings(home=tmp_path, database=database, postgres_url=url)
    with psycopg.connect(servers.postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))
        names = [dsn.role_name(database, SERVICE, role) for role in dsn.ROLES]
        for name in (*names, boss):
            admin.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


def connected(settings: config.Settings, role: dsn.Role) -> psycopg.Connection[tuple[object, ...]]:
    url = dsn.role_url(settings.postgres_url, settings.home, settings.database, SERVICE, role)
    return psycopg.connect(url, autocommit=True)


async def test_three_at_once_apply_each_revision_once(fresh: config.Settings) -> None:
    applied = await asyncio.gather(*(asyncio.to_thread(migrate, fresh, [SERVICE]) for _ in range(3)))
    first = [steps for steps in applied if steps]
    assert len(first) == 1
    heads = {f"{SERVICE} {head}" for head in newest(SERVICE).values() if head}
    assert heads <= set(first[0])


@pytest.mark.parametrize("service", config.SERVICES)
def test_files_are_named_after_their_revisions(service: str) -> None:
    heads = {
        table: ScriptDirectory(str(path), version_locations=[str(path)]).get_current_head()
        for table, path in directories(service)
    }
    assert newest(service) == heads


def test_the_application_owns_nothing_and_may_not_write_the_version(fresh: config.Settings) -> None:
    migrate(fresh, [SERVICE])
    with connected(fresh, "app") as app:
        owners = {
            row[0]
            for row in app.execute(
                "select distinct tableowner from pg_tables where schemaname = %s", (SERVICE,)
            )
        }
        assert owners == {dsn.role_name(fresh.database, SERVICE, "owner")}
        version = app.execute("select version_num from plumbing_version").fetchone()
        assert version == (newest(SERVICE)["plumbing_version"],)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("update plumbing_version set version_num = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("create table mine (id int)")


def test_no_role_is_let_in_without_its_password(fresh: config.Settings) -> None:
    migrate(fresh, [SERVICE])
    name = dsn.role_name(fresh.database, SERVICE, "app")
    wrong = dsn.with_user(fresh.postgres_url, fresh.database, name, "guess")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(wrong)
    assert dsn.passwords_file(fresh.home).stat().st_mode & 0o777 == 0o600


def test_a_schema_of_a_newer_version_is_refused(fresh: config.Settings) -> None:
    migrate(fresh, [SERVICE])
    with connected(fresh, "owner") as owner:
        owner.execute("update plumbing_version set version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="newer Regulars"):
        migrate(fresh, [SERVICE])
