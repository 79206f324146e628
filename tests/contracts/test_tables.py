"""What the migrations make is what the code believes, and what the house asks of every table."""

from importlib import import_module

import pytest
from sqlalchemy.dialects import postgresql

from libs.run.service import Service
from tests.contracts.database import SERVICES, VERSIONS, Admin, columns, declared, keys, tables

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
# Keys that do not begin with tenant_id, and why.
WITHOUT_TENANT = {
    "leases_pkey": "one loop of a service for all tenants",
    "accounts_slug_key": "slugs are unique on the platform",
    "plumbing_version_pkc": "alembic's own",
    "schema_version_pkc": "alembic's own",
}


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_are_in_step_with_the_tables_of_the_code(database: Admin, service: str) -> None:
    believed = {
        table.name: {
            column.name: (column.type.compile(DIALECT).lower(), bool(column.nullable))
            for column in table.columns
        }
        for metadata in declared(service)
        for table in metadata.sorted_tables
    }
    real = {
        table.partition(".")[2]: columns(database, table)
        for table in tables(database, [service])
        if table.partition(".")[2] not in VERSIONS
    }
    assert believed == real


@pytest.mark.parametrize("service", SERVICES)
def test_primary_keys_are_those_of_the_code(database: Admin, service: str) -> None:
    believed = {
        table.name: {column.name for column in table.primary_key.columns}
        for metadata in declared(service)
        for table in metadata.sorted_tables
    }
    real = {
        table.partition(".")[2]: set(over)
        for table, _, kind, over in keys(database)
        if kind == "p" and table.startswith(f"{service}.") and table.partition(".")[2] not in VERSIONS
    }
    assert believed == real


def test_keys_begin_with_the_tenant(database: Admin) -> None:
    """So a tenant can be moved to a cluster of its own, and rows of one tenant lie together."""
    wrong = [
        f"{table}.{name} ({', '.join(over)})"
        for table, name, kind, over in keys(database)
        if kind in {"p", "u"} and over[0] != "tenant_id" and name not in WITHOUT_TENANT
    ]
    assert wrong == []


def test_every_table_has_a_primary_key(database: Admin) -> None:
    having = {table for table, _, kind, _ in keys(database) if kind == "p"}
    assert [table for table in tables(database) if table not in having] == []


def test_foreign_keys_can_be_followed_back(database: Admin) -> None:
    """Without an index that begins with their columns, deleting what they point to reads the whole table."""
    found = database.execute(
        """
        select c.conrelid::regclass::text || '.' || c.conname from pg_constraint c
        join pg_namespace n on n.oid = c.connamespace
        where c.contype = 'f' and n.nspname = any(%s) and not exists (
            select from pg_index i where i.indrelid = c.conrelid
            -- Who looks for a value looks for one that is not null.
            and (i.indpred is null or pg_get_expr(i.indpred, i.indrelid) ~ '^\\(\\w+ IS NOT NULL\\)$')
            and array(select unnest((string_to_array(i.indkey::text, ' ')::smallint[])[1:cardinality(c.conkey)])
                      order by 1)
              = array(select unnest(c.conkey) order by 1))
        """,
        [SERVICES],
    )
    assert [row[0] for row in found] == []


@pytest.mark.parametrize("service", SERVICES)
def test_refusals_by_constraint_name_constraints_that_there_are(database: Admin, service: str) -> None:
    declaration: Service = import_module(f"services.{service}.__main__").SERVICE
    found = database.execute(
        """
        select conname::text from pg_constraint c join pg_namespace n on n.oid = c.connamespace
        where n.nspname = %s
        union select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid
        join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and i.indisunique
        """,
        [service, service],
    )
    assert set(declaration.problems) <= {row[0] for row in found}
