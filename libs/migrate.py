"""Makes the database of a stack: roles and schemas first, then the migrations of each service.

Safe to run again, and by two at once. The administrator may be a superuser, or a role with CREATEROLE that
may create schemas in the database.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import sql

from libs import config, dsn
from libs.revisions import directories

# A migration that needs longer sets its own; none waits for a lock that live traffic holds.
OWNER_OPTIONS = "-c lock_timeout=5s -c statement_timeout=60s -c timezone=UTC"
Report = Callable[[str], None]


class MigrationFailed(RuntimeError):
    """The database refused a migration, or the bootstrap before it."""


class SchemaTooNew(RuntimeError):
    """The database was migrated by a newer version of this software."""


def migrate(
    settings: config.Settings, services: Iterable[str], report: Report = lambda line: None
) -> list[str]:
    """Brings the schemas of `services` to this version; gives what was applied ("customers 0001").

    `settings.postgres_url` names the administrator. Raises SchemaTooNew, MigrationFailed.
    """
    applied: list[str] = []
    at = "the database"
    try:
        with _lock(settings.postgres_url, settings.database):
            _create_database(settings.postgres_url, settings.database)
            for service in services:
                at = service
                _bootstrap(settings, service)
                for step in _lines(settings, service):
                    applied.append(step)
                    report(step)
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        driver = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        reason = driver.diag.message_primary if isinstance(driver, psycopg.Error) else None
        done = f" (after {applied[-1]})" if applied else ""
        message = f"Migrating {at} failed{done}: {type(driver).__name__}: {reason or 'no connection'}."
        raise MigrationFailed(message) from error
    return applied


@contextmanager
def _lock(admin_url: str, database: str) -> Iterator[None]:
    """Holds the one lock of all who migrate `database`, on the server itself."""
    key = int.from_bytes(hashlib.sha256(f"regulars:{database}".encode()).digest()[:8], signed=True)
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (key,))
        yield


def _create_database(admin_url: str, database: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
            return
        name = sql.Identifier(database)
        connection.execute(sql.SQL("create database {} template template0 encoding 'UTF8'").format(name))
        connection.execute(sql.SQL("revoke all on database {} from public").format(name))


def _bootstrap(settings: config.Settings, service: str) -> None:
    """Roles, their passwords, the schema, and what the application's role may do with tables yet to come."""
    database, schema = settings.database, sql.Identifier(service)
    passwords = dsn.ensure_passwords(settings.home, database, service)
    names = {role: dsn.role_name(database, service, role) for role in dsn.ROLES}
    owner, app, worker = (sql.Identifier(names[role]) for role in dsn.ROLES)
    with psycopg.connect(_in_database(settings.postgres_url, database), autocommit=True) as admin:
        for role in dsn.ROLES:
            _ensure_role(admin, names[role], passwords[role])
            # Statements name tables without schema, so each role looks in its service's own.
            admin.execute(
                sql.SQL("alter role {} in database {} set search_path = {}").format(
                    sql.Identifier(names[role]), sql.Identifier(database), schema
                )
            )
        may = admin.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
        if may and not may[0]:
            # Since PostgreSQL 16 even its maker acts for a role only after granting it to himself.
            admin.execute(sql.SQL("grant {} to current_user").format(owner))
        admin.execute(
            sql.SQL("grant connect on database {} to {}, {}, {}").format(
                sql.Identifier(database), owner, app, worker
            )
        )
        known = admin.execute("select 1 from pg_namespace where nspname = %s", (service,)).fetchone()
        if not known:
            admin.execute(sql.SQL("create schema {} authorization {}").format(schema, owner))
    with psycopg.connect(_owner_url(settings, service), autocommit=True) as mine:
        for statement in (
            "grant usage on schema {schema} to {app}, {worker}",
            "alter default privileges revoke execute on functions from public",
            "alter default privileges in schema {schema} grant execute on functions to {app}",
            "alter default privileges in schema {schema}"
            " grant select, insert, update, delete on tables to {app}",
            "alter default privileges in schema {schema} grant usage, select on sequences to {app}",
        ):
            mine.execute(sql.SQL(statement).format(schema=schema, app=app, worker=worker))


def _ensure_role(admin: psycopg.Connection[Any], name: str, password: str) -> None:
    """Makes a role or gives it its password, which the server (and its log) sees as a SCRAM verifier only."""
    verifier = admin.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    known = admin.execute("select 1 from pg_roles where rolname = %s", (name,)).fetchone()
    verb = sql.SQL("alter role {} login password {}" if known else "create role {} login password {}")
    admin.execute(verb.format(sql.Identifier(name), sql.Literal(verifier)))


def _in_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def _owner_url(settings: config.Settings, service: str) -> str:
    return dsn.role_url(settings.postgres_url, settings.home, settings.database, service, "owner")


def _scripts(path: Path) -> ScriptDirectory:
    return ScriptDirectory(str(path), version_locations=[str(path)])


def _lines(settings: config.Settings, service: str) -> Iterator[str]:
    """Runs the plumbing's migrations and then the service's own, each revision in a transaction of its own.

    Migrations find the other roles' names in the settings `regulars.app_role` and `regulars.worker_role`.
    """
    options = (
        f"{OWNER_OPTIONS} -c search_path={service}"
        f" -c regulars.app_role={dsn.role_name(settings.database, service, 'app')}"
        f" -c regulars.worker_role={dsn.role_name(settings.database, service, 'worker')}"
    )
    engine = sqlalchemy.create_engine(
        _owner_url(settings, service).replace("postgresql://", "postgresql+psycopg://", 1),
        poolclass=sqlalchemy.NullPool,
        connect_args={"options": options},
        hide_parameters=True,
    )
    for table, path in directories(service):
        with engine.connect() as connection:
            for revision in _upgrade(connection, path, table, service):
                yield f"{service} {revision}"
    engine.dispose()


def _upgrade(connection: sqlalchemy.Connection, path: Path, table: str, service: str) -> list[str]:
    scripts = _scripts(path)
    applied: list[str] = []

    def steps(current: Any, _context: Any) -> Any:
        try:
            found = scripts._upgrade_revs("heads", current)
        except CommandError as unknown:
            message = (
                f"The schema of {service} is at a revision that this version does not know ({unknown}): "
                "it was migrated by a newer Regulars."
            )
            raise SchemaTooNew(message) from unknown
        applied.extend(step.revision.revision for step in found)
        return found

    environment = EnvironmentContext(Config(), scripts, fn=steps, as_sql=False)
    with environment:
        environment.configure(connection=connection, version_table=table, transaction_per_migration=True)
        with environment.begin_transaction():
            environment.run_migrations()
    if applied:
        # The default privileges let the application write every new table; these it may only read.
        app = dsn.role_name(connection.engine.url.database or "", service, "app")
        revoke = sqlalchemy.text(f'revoke insert, update, delete on "{table}" from "{app}"')
        connection.execute(revoke)
    connection.commit()
    return applied
