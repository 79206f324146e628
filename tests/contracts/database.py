"""Questions to PostgreSQL's catalogue."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from sqlalchemy import MetaData

from libs import plumbing
from libs.crypto import tables as crypto
from libs.run.stack import members
from tests.platform import Stack

Admin = psycopg.Connection[tuple[Any, ...]]

SERVICES = [name for name in members.present() if name != members.GATEWAY]
# Alembic's own, in every schema: the application may read them and nothing else.
VERSIONS = ("plumbing_version", "schema_version")
# Tables that the application sees whole, and why.
NOT_WALLED = {
    "customers.accounts": "the tenants themselves: found by slug before anybody is known to belong to one",
}


def administrator(stack: Stack) -> str:
    """The administrator's address of the stack's database."""
    return urlunsplit(urlsplit(stack.admin_url)._replace(path=f"/{stack.settings.database}"))


def declared(service: str) -> list[MetaData]:
    """The tables that the code of a service knows."""
    known = [plumbing.metadata, crypto.metadata]
    if find_spec(f"services.{service}.tables"):
        known.append(import_module(f"services.{service}.tables").metadata)
    return known


def tables(database: Admin, services: Iterable[str] = SERVICES, *, having: str = "") -> list[str]:
    """`schema.table` of every table of our services, or of those that have a column of the name."""
    found = database.execute(
        """
        select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and not c.relispartition and n.nspname = any(%s)
        and (%s = '' or exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = %s))
        order by 1
        """,
        [list(services), having, having],
    )
    return [row[0] for row in found]


def columns(database: Admin, table: str) -> dict[str, tuple[str, bool]]:
    """The columns of `schema.table`: (type as PostgreSQL writes it, whether it may be null)."""
    found = database.execute(
        """
        select attname, format_type(atttypid, atttypmod), not attnotnull from pg_attribute
        where attrelid = %s::regclass and attnum > 0 and not attisdropped
        """,
        [table],
    )
    return {name: (kind, nullable) for name, kind, nullable in found}


def keys(database: Admin) -> list[tuple[str, str, str, list[str]]]:
    """(`schema.table`, name, p or u or f, columns) of primary, unique and foreign keys, unique indexes included."""
    found = database.execute(
        """
        select n.nspname || '.' || t.relname, k.name, k.kind, array(
            select a.attname::text from unnest(k.columns) with ordinality as u (number, place)
            join pg_attribute a on a.attrelid = t.oid and a.attnum = u.number order by u.place
        )
        from (
            select conrelid as of, conname::text as name, contype::text as kind, conkey::smallint[] as columns
            from pg_constraint where contype in ('p', 'f')
            union all
            select indrelid, indexrelid::regclass::text, 'u', string_to_array(indkey::text, ' ')::smallint[]
            from pg_index where indisunique and not indisprimary
        ) k join pg_class t on t.oid = k.of join pg_namespace n on n.oid = t.relnamespace
        where n.nspname = any(%s) and not t.relispartition
        """,
        [SERVICES],
    )
    return [(table, name.rpartition(".")[2], kind, list(over)) for table, name, kind, over in found]
