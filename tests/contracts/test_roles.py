"""Who may do what: roles of people, and roles of the database."""

import pytest
from psycopg import sql

from libs import config, contracts, dsn, plumbing
from libs.roles import Roles
from tests.contracts.database import NOT_WALLED, SERVICES, VERSIONS, Admin, tables
from tests.platform import Stack

# Tables with a business_id that only the tenant's wall guards, and why.
ACROSS_BUSINESSES: dict[str, str] = {}


def test_every_permission_is_held_by_a_role_and_every_role_names_permissions_that_there_are() -> None:
    roles = Roles.load(config.ROOT / "services/roles.toml")
    held = {permission for name in roles.names() for permission in roles.permissions_of(name)}
    assert {m.access.permission for m in contracts.methods().values() if m.access.permission} <= held


def test_roles_of_a_tenant_never_reach_the_platform() -> None:
    roles = Roles.load(config.ROOT / "services/roles.toml")
    reaching = {
        name
        for name in roles.names()
        if any(permission.startswith("platform.") for permission in roles.permissions_of(name))
    }
    assert reaching == {"platform"}


def role(stack: Stack, service: str, kind: dsn.Role) -> str:
    return dsn.role_name(stack.settings.database, service, kind)


@pytest.mark.parametrize("service", SERVICES)
def test_the_application_and_the_worker_own_nothing_and_become_nobody(
    database: Admin, stack: Stack, service: str
) -> None:
    for kind in ("app", "worker"):
        name = role(stack, service, kind)
        powers = database.execute(
            """
            select rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication,
                   (select count(*) from pg_auth_members where member = r.oid),
                   (select count(*) from pg_shdepend where refobjid = r.oid and deptype = 'o')
            from pg_roles r where rolname = %s
            """,
            [name],
        ).fetchone()
        assert powers == (False, 0, 0), name


@pytest.mark.parametrize("service", SERVICES)
def test_no_role_reaches_another_service(database: Admin, stack: Stack, service: str) -> None:
    others = [name for name in SERVICES if name != service]
    for kind in dsn.ROLES:
        found = database.execute(
            "select n from unnest(%s::text[]) as n where has_schema_privilege(%s, n, 'usage, create')",
            [others, role(stack, service, kind)],
        )
        assert [row[0] for row in found] == []


@pytest.mark.parametrize("service", SERVICES)
def test_the_worker_reaches_the_plumbing_only(database: Admin, stack: Stack, service: str) -> None:
    found = database.execute(
        "select t from unnest(%s::text[]) as t where has_table_privilege(%s, t, 'select, insert, update, delete')"
        " or has_any_column_privilege(%s, t, 'select, insert, update')",
        [tables(database, [service]), role(stack, service, "worker"), role(stack, service, "worker")],
    )
    reached = {row[0].partition(".")[2] for row in found}
    assert reached <= {*plumbing.metadata.tables, *VERSIONS}


@pytest.mark.parametrize("service", SERVICES)
def test_the_application_may_not_write_what_migrations_write(
    database: Admin, stack: Stack, service: str
) -> None:
    versions = [name for name in tables(database, [service]) if name.partition(".")[2] in VERSIONS]
    found = database.execute(
        "select t from unnest(%s::text[]) as t where has_table_privilege(%s, t, 'insert, update, delete, truncate')",
        [versions, role(stack, service, "app")],
    )
    assert versions
    assert [row[0] for row in found] == []


def test_every_table_is_walled_by_tenant(database: Admin, stack: Stack) -> None:
    """Row-level security is on, and every policy that lets the application in asks for the tenant."""
    open_to_all = []
    for table in tables(database):
        service, _, name = table.partition(".")
        if name in VERSIONS or table in NOT_WALLED:
            continue
        on = database.execute(
            "select relrowsecurity from pg_class where oid = %s::regclass", [table]
        ).fetchone()
        worker = role(stack, service, "worker")
        letting_in = database.execute(
            """
            select coalesce(qual, 'true'), coalesce(with_check, qual, 'true') from pg_policies
            where schemaname = %s and tablename = %s and permissive = 'PERMISSIVE' and not (roles = array[%s::name])
            """,
            [service, name, worker],
        ).fetchall()
        asks = all(
            "app.tenant_id" in text and "tenant_id =" in text for policy in letting_in for text in policy
        )
        granted = database.execute(
            "select has_table_privilege(%s, %s, 'select, insert, update, delete')",
            [role(stack, service, "app"), table],
        ).fetchone()
        if on != (True,) or not asks or (not letting_in and granted != (False,)):
            open_to_all.append(table)
    assert open_to_all == []


def test_tables_of_a_business_are_walled_by_business(database: Admin) -> None:
    open_to_all = []
    for table in tables(database, having="business_id"):
        service, _, name = table.partition(".")
        walled = database.execute(
            """
            select 1 from pg_policies where schemaname = %s and tablename = %s and permissive = 'RESTRICTIVE'
            and cmd = 'ALL' and qual like '%%app.businesses%%' and coalesce(with_check, qual) like '%%app.businesses%%'
            """,
            [service, name],
        ).fetchone()
        if not walled and table not in ACROSS_BUSINESSES:
            open_to_all.append(table)
    assert open_to_all == []


def careless(database: Admin) -> list[str]:
    """Functions that anybody may call, and those with their owner's rights that trust the search path."""
    found = database.execute(
        """
        select p.oid::regprocedure::text, p.prosecdef,
               coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false),
               exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = any(%s)
        """,
        [SERVICES],
    )
    return [
        f"{name}: {'anybody may call it' if public else 'its search_path is not fixed'}"
        for name, definer, fixed, public in found
        if public or (definer and not fixed)
    ]


def test_functions_are_called_by_whom_they_are_for_and_trust_no_search_path(database: Admin) -> None:
    assert careless(database) == []


def test_careless_functions_are_noticed(database: Admin) -> None:
    made = sql.SQL(
        "create function customers.peek() returns int language sql security definer {} as 'select 1'"
    )
    fixed = sql.SQL("set search_path = pg_catalog, pg_temp")
    for how, expected in ((sql.SQL(""), "customers.peek()"), (fixed, "customers.peek()")):
        with database.transaction(force_rollback=True):
            database.execute(made.format(how))
            assert [line.partition(":")[0] for line in careless(database)] == [expected]
    with database.transaction(force_rollback=True):
        database.execute(made.format(fixed))
        database.execute("revoke all on function customers.peek() from public")
        assert careless(database) == []
