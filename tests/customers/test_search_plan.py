"""Searches walk the index of tokens, as the application's own role, with row-level security in force."""

import itertools
import random
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from libs import dsn
from libs.caller import Caller, acting_as
from libs.ids import new_id
from services.customers.profiles.rules import Profile
from services.customers.search import actions, queries, rules, tokens
from services.customers.search.queries import Scope, Tokens
from services.customers.search.rules import Level, Plan
from tests.customers.shop import Shop
from tests.platform import Stack

PEOPLE = 4_000
FIRST = ["john", "maria", "peter", "anna", "hans", "julia", "ivan", "chloe", "pedro", "aisha"]
PARTS = [
    "sm",
    "ith",
    "er",
    "son",
    "ka",
    "ov",
    "mül",
    "ler",
    "ga",
    "rcia",
    "lo",
    "pez",
    "ta",
    "naka",
    "wal",
    "ton",
]


@pytest.fixture
async def crowd(shop: Shop, stack: Stack) -> Scope:
    """Some thousands of search rows, written as the owner of the tables."""
    dice = random.Random(3)
    keys = stack.runtimes["customers"].keys.for_tenant(shop.tenant.id)
    tenant, business, now = shop.tenant.id, UUID(shop.id), "2026-01-01T00:00:00Z"
    people = []
    for _ in range(PEOPLE):
        profile = Profile(first_name=dice.choice(FIRST), last_name="".join(dice.choices(PARTS, k=3)))
        people.append((new_id(), actions.rows_of(keys, [1], profile, {business: ()})[0]["tokens"]))
    with psycopg.connect(owner_url(stack), autocommit=True) as owner, owner.cursor() as cursor:
        key_ids = [new_id() for _ in people]
        for table, columns, rows in (
            (
                "customers",
                "key_id, version, profile, email_verified, phone_verified, created_at, updated_at",
                [(key_id, 1, b"", False, False, now, now) for key_id in key_ids],
            ),
            (
                "memberships",
                "business_id, status, type, tags, attributes, source, joined_at",
                [(business, 1, 2, [], "{}", "csv", now) for _ in people],
            ),
            ("customer_search", "key_version, tokens, businesses", [(1, t, [business]) for _, t in people]),
        ):
            with cursor.copy(f"copy {table} (tenant_id, customer_id, {columns}) from stdin") as copy:
                for (customer, _), row in zip(people, rows, strict=True):
                    copy.write_row((tenant, customer, *row))
        with cursor.copy(
            "copy subject_keys (tenant_id, key_id, subject_id, epoch, wrapped, created_at) from stdin"
        ) as copy:
            for (customer, _), key_id in zip(people, key_ids, strict=True):
                copy.write_row((tenant, key_id, customer, 1, b"x", now))
        cursor.execute("analyze customer_search")
        cursor.execute("analyze memberships")
    return Scope(business, 1)


def owner_url(stack: Stack) -> str:
    settings = stack.settings
    url = dsn.role_url(stack.admin_url, settings.home, settings.database, "customers", "owner")
    return f"{url}?options=-csearch_path%3Dcustomers"


async def scans(tx: Any) -> Counter[str]:
    """How often this connection has scanned each index of the table, and the table itself; for differences."""
    counted = await tx.execute(
        text("""
            select relname, pg_stat_get_xact_numscans(oid) from pg_class
            where oid = 'customer_search'::regclass
               or oid in (select indexrelid from pg_index where indrelid = 'customer_search'::regclass)
        """)
    )
    return Counter({str(name): int(times) for name, times in counted})


QUERIES = [
    ("john", Level.WORDS),
    ("smith", Level.PREFIX),
    ("jo", Level.PREFIX),
    ("mit", Level.INSIDE),
    ("jonh smithka", Level.ONE_EDIT),
    ("garciatanaka", Level.ONE_EDIT),
    ("mria", Level.ONE_EDIT),
    ("mariia smihtte", Level.TWO_EDITS),
]
FILTERS: list[dict[str, Any]] = [{}, {"status": [1]}, {"total_spent_max": 5, "country": ["DE"]}]


async def test_candidates_come_by_the_index_of_tokens_alone(shop: Shop, stack: Stack, crowd: Scope) -> None:
    runtime = stack.runtimes["customers"]
    made = tokens.with_version(runtime.keys.for_tenant(shop.tenant.id), 1)
    for (query, level), filters in itertools.product(QUERIES, FILTERS):
        wanted = [Tokens.of(plan, made) for plan in rules.plans(rules.query_of(query), level)]
        assert wanted, query
        with acting_as(Caller(tenant_id=shop.tenant.id, businesses=frozenset({UUID(shop.id)}), subject="t")):
            async with runtime.db.read() as tx:
                who = (
                    await tx.execute(text("select current_user, row_security_active('customer_search')"))
                ).one()
                before = await scans(tx)
                found = await queries.candidates(tx, Scope(crowd.business_id, 1, filters), wanted, 50)
                walked = await scans(tx) - before
        assert who == (dsn.role_name(stack.settings.database, "customers", "app"), True)
        assert set(walked) == {"customer_search_tokens_idx"}, (query, filters, walked)
        assert bool(found) == ("country" not in filters), (query, filters)


async def test_the_function_gives_candidates_to_its_own_business_alone(
    shop: Shop, other_shop: Shop, stack: Stack, crowd: Scope
) -> None:
    runtime = stack.runtimes["customers"]
    made = tokens.with_version(runtime.keys.for_tenant(shop.tenant.id), 1)
    plan = Plan(frozenset(term for term in rules.word_terms("john") if term[0] == rules.GRAM))
    wanted = Tokens.of(plan, made)

    async def given(caller: Caller, scope: Scope) -> int:
        with acting_as(caller):
            async with runtime.db.read() as tx:
                calls, params = queries._calls(tx, scope, [wanted], 10_000)
                return len(await queries._rows(tx, calls, params))

    here, there = UUID(shop.id), UUID(other_shop.id)
    mine = Caller(tenant_id=shop.tenant.id, businesses=frozenset({here}), subject="t")
    all_of_them = Caller(tenant_id=shop.tenant.id, subject="t")
    others = Caller(tenant_id=shop.tenant.id, businesses=frozenset({there}), subject="t")
    nobodys = Caller(tenant_id=shop.tenant.id, businesses=frozenset(), subject="t")
    strangers = Caller(tenant_id=new_id(), subject="t")
    assert await given(mine, Scope(here, 1)) > PEOPLE / 30
    assert await given(all_of_them, Scope(here, 1)) > PEOPLE / 30
    assert await given(all_of_them, Scope(there, 1)) == 0
    assert await given(others, Scope(here, 1)) == 0
    assert await given(others, Scope(there, 1)) == 0
    assert await given(nobodys, Scope(here, 1)) == 0
    assert await given(strangers, Scope(here, 1)) == 0
    assert await given(mine, Scope(here, 2)) == 0


async def test_the_statement_of_the_function_is_a_bitmap_scan(shop: Shop, stack: Stack, crowd: Scope) -> None:
    made = tokens.with_version(stack.runtimes["customers"].keys.for_tenant(shop.tenant.id), 1)
    sure = Tokens.of(rules.plans(rules.query_of("john smith"), Level.PREFIX)[0], made).all_of
    maybe = Tokens.of(rules.plans(rules.query_of("jonh smiht"), Level.ONE_EDIT)[0], made).any_of
    statements: list[tuple[str, tuple[Any, ...]]] = [
        ("s.tokens operator(pg_catalog.@>) %s::integer[]", (sure,)),
        (
            "s.tokens operator(pg_catalog.&&) %s::integer[] and s.tokens operator(pg_catalog.&&) %s::integer[]",
            maybe,
        ),
    ]
    with psycopg.connect(owner_url(stack)) as owner:
        off = owner.execute("select proconfig from pg_proc where proname = 'search_candidates'").fetchone()
        for setting in off[0] if off else ():
            owner.execute(f"set {setting.replace('=', ' = ')}")
        for where, values in statements:
            plan = owner.execute(
                "explain select s.customer_id from customers.customer_search s where s.tenant_id = %s"
                " and s.key_version = 1 and s.businesses operator(pg_catalog.@>) array[%s::uuid]"
                f" and {where} limit 600",
                (shop.tenant.id, crowd.business_id, *values),
            ).fetchall()
            told = "\n".join(row[0] for row in plan)
            assert "Bitmap Index Scan on customer_search_tokens_idx" in told, told
            assert "Seq Scan" not in told, told


async def test_the_function_is_closed_to_everyone_else(stack: Stack) -> None:
    with psycopg.connect(owner_url(stack)) as owner:
        found = owner.execute("""
            select p.prosecdef, p.proconfig, p.proacl::text from pg_proc p
            join pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'customers' and p.proname = 'search_candidates'
        """).fetchone()
    assert found
    definer, settings, rights = found
    assert definer
    assert "search_path=pg_catalog, pg_temp" in settings
    assert f"{dsn.role_name(stack.settings.database, 'customers', 'app')}=X" in rights
    assert "{=X" not in rights
    assert ",=X" not in rights
