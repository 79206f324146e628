"""Reads of searches: candidates by tokens, whole lists by columns, and how many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from psycopg.rows import tuple_row

from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.crypto.search_tokens import SearchTokens
from libs.db import Tx
from services.customers.profiles.queries import PROFILE, first_id_at
from services.customers.search.ordering import Phase
from services.customers.search.rules import Plan

# How many candidates one plan gives at most: by relevance at first, and if they were too few; for each letter that one
# word may lack; for the last level; for a list by columns.
FIRST_CANDIDATES = 200
CANDIDATES = 600
EACH_SPELLING = 30
LAST_CANDIDATES = 400
MOST_LISTED = 50_000
EXACT_TOTAL = 10_000
# From so many candidates on, a list by columns walks the index of its order and skips who is no candidate.
WALKED_FROM = 2_000
# What the database expects a count to cost at most, in its own units, for us to count: some tens of milliseconds.
DEAR = 20_000


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a search looks. `filters` are the fields of the database's type search_filter that are given."""

    business_id: UUID
    key_version: int
    filters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def filters_json(self) -> str | None:
        """The filters as the candidate function takes them."""
        return orjson.dumps(self.filters).decode() if self.filters else None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a plan. None of `all_of` and no `any_of` matches nobody."""

    all_of: list[int] | None
    any_of: tuple[list[int], ...]

    @classmethod
    def of(cls, plan: Plan, made: SearchTokens) -> "Tokens":
        """The tokens that a plan's terms have."""
        return cls(
            sorted({made.token(*term) for term in plan.all_of}) or None,
            tuple(sorted({made.token(*term) for term in terms}) for terms in plan.any_of),
        )


_CALL = """search_candidates(%(business)s::uuid, %(version)s::integer, %(all)s::integer[], %(any1)s::integer[],
    %(any2)s::integer[], %(any3)s::integer[], %(ids)s::uuid[], %(filter)s::jsonb, %(limit)s::integer)"""
_OPEN = """
    select c.customer_id, c.profile, k.key_id, k.epoch, k.wrapped
    from ({calls}) as h (customer_id)
    join customers c on c.tenant_id = %(tenant)s and c.customer_id = h.customer_id
    join subject_keys k on k.tenant_id = c.tenant_id and k.key_id = c.key_id
"""


async def candidates(tx: Tx, scope: Scope, wanted: Sequence[Tokens], limit: int) -> list[Any]:
    """Rows for `opened`: customers of the business who pass the filters and may match one of `wanted`.

    Up to `limit` for each of `wanted`.
    """
    calls, params = _calls(tx, scope, wanted, limit)
    async with tx.driver.cursor(binary=True) as cursor:
        await cursor.execute(_OPEN.format(calls=calls), params, prepare=True)
        return await cursor.fetchall()


async def among(tx: Tx, scope: Scope, ids: Sequence[UUID]) -> list[UUID]:
    """Those of the ids who are the business's and pass the filters."""
    params = _params(tx, scope, None, len(ids)) | {"ids": list(ids)}
    return [row[0] for row in await _rows(tx, f"select h from {_CALL} as h", params)]  # noqa: S608 – constants


def opened(row: Any, keys: TenantKeys, reading: Reading) -> dict[str, str]:
    """What is known of the person of a row of `candidates`, by the names of a profile's fields."""
    customer_id, sealed, key_id, epoch, wrapped = row[:5]
    key = keys.unwrap(key_id, epoch, wrapped)
    known: dict[str, str] = orjson.loads(keys.open(reading, customer_id, key, PROFILE, customer_id, sealed))
    return known


def _params(tx: Tx, scope: Scope, wanted: Tokens | None, limit: int) -> dict[str, Any]:
    any_of = [*(wanted.any_of if wanted else ()), None, None, None]
    return {
        "tenant": tx.tenant_id,
        "business": scope.business_id,
        "version": scope.key_version,
        "all": wanted.all_of if wanted else None,
        "any1": any_of[0],
        "any2": any_of[1],
        "any3": any_of[2],
        "ids": None,
        "filter": scope.filters_json,
        "limit": limit,
    }


# --- whole lists -------------------------------------------------------------------------------------------

_MEMBERS = (
    "memberships m",
    "m.tenant_id = %(tenant)s::uuid and m.business_id = %(business)s::uuid and m.deleted_at is null",
)
_JOINS = {
    "x": "join customer_metrics x on x.tenant_id = m.tenant_id and x.business_id = m.business_id"
    " and x.customer_id = m.customer_id",
    "s": "join customer_search s on s.tenant_id = m.tenant_id and s.customer_id = m.customer_id"
    " and s.key_version = %(version)s::integer",
    "p": "join customers p on p.tenant_id = m.tenant_id and p.customer_id = m.customer_id",
}
# The same conditions as in the candidate function; a test holds the two together.
_FILTERS = {
    "status": "m.status = any (%(f_status)s::smallint[])",
    "type": "m.type = any (%(f_type)s::smallint[])",
    "source": "m.source = any (%(f_source)s::text[])",
    "tags_any": "m.tags <> '{}'"  # most have none, and this is cheaper than what follows
    " and exists (select from unnest(m.tags) as tag where lower(tag) = any (%(f_tags_any)s::text[]))",
    "tags_all": "(select array_agg(lower(tag)) from unnest(m.tags) as tag) @> %(f_tags_all)s::text[]",
    "attributes": "attributes_agree(m.attributes, %(f_attributes)s::jsonb)",
    "country": "s.country = any (%(f_country)s::text[])",
    "city": "s.city = %(f_city)s::integer",
    "created_after": "p.created_at >= %(f_created_after)s::timestamptz and m.customer_id >= %(first_id)s::uuid",
    "created_before": "p.created_at < %(f_created_before)s::timestamptz and m.customer_id <= %(last_id)s::uuid",
    "last_order_after": "x.last_order_at >= %(f_last_order_after)s::timestamptz",
    "last_order_before": "x.last_order_at < %(f_last_order_before)s::timestamptz",
    "total_spent_min": "coalesce(x.total_spent_minor, 0) >= %(f_total_spent_min)s::bigint",
    "total_spent_max": "coalesce(x.total_spent_minor, 0) <= %(f_total_spent_max)s::bigint",
    "order_count_min": "coalesce(x.orders_completed, 0) >= %(f_order_count_min)s::integer",
    "order_count_max": "coalesce(x.orders_completed, 0) <= %(f_order_count_max)s::integer",
}


async def listed(
    tx: Tx, scope: Scope, phase: Phase, after: Sequence[Any] | None, size: int
) -> list[tuple[UUID, tuple[Any, ...]]]:
    """Up to `size` customers who pass the filters, in the order of `phase`, with what they are sorted by."""
    statement, params = _selected(tx, scope, phase, after)
    columns = ", ".join(phase.expressions)
    rows = await _rows(
        tx, f"select m.customer_id, {columns} {statement} order by {phase.order} limit {int(size)}", params
    )
    return [(row[0], row[1:]) for row in rows]


# By the metrics' id or the membership's: whichever has the index that is walked.
_IS_HIT = {
    True: "(x.customer_id in (select h from hits)) is true",
    False: "(m.customer_id in (select h from hits)) is true",
}


async def matching(
    tx: Tx, scope: Scope, wanted: Sequence[Tokens], phase: Phase, after: Sequence[Any] | None, size: int
) -> list[Any]:
    """Up to `size` rows for `opened` of customers who may match one of `wanted`, in the order of `phase`.

    After the five columns of `opened` come how many candidates there are in all, and what they are sorted by.
    """
    calls, params = _calls(tx, scope, wanted, MOST_LISTED)
    unfiltered = Scope(scope.business_id, scope.key_version)
    few, more = _selected(tx, unfiltered, phase, after, hits=True)
    many, _ = _selected(tx, unfiltered, phase, after)
    sorts = [f"sort{i}" for i in range(len(phase.columns))]
    columns = ", ".join(
        f"{expression} as {name}" for expression, name in zip(phase.expressions, sorts, strict=True)
    )
    order = ", ".join(
        f"{name} {'desc' if column.descending else 'asc'}"
        for name, column in zip(sorts, phase.columns, strict=True)
    )
    # Only one of the two is carried out. "is true" keeps the planner from a join, which it would begin at the hits.
    ways = [few]
    if phase.is_indexed:
        more["walked"] = WALKED_FROM
        ways = [
            f"{few} and (select n from counted) < %(walked)s",  # noqa: S608 – constants
            f"{many} and (select n from counted) >= %(walked)s and {_IS_HIT[phase.first_is_there]}",  # noqa: S608
        ]
    page = " union all ".join(
        f"(select m.customer_id, {columns} {way} order by {phase.order} limit {int(size)})" for way in ways
    )
    whole = (
        f"with hits as materialized ({calls}), counted as (select count(*) as n from hits),"  # noqa: S608 – constants
        f" page as materialized ({page})"
        " select page.customer_id, c.profile, k.key_id, k.epoch, k.wrapped, (select n from counted),"
        f" {', '.join(sorts)} from page"
        " join customers c on c.tenant_id = %(tenant)s and c.customer_id = page.customer_id"
        " join subject_keys k on k.tenant_id = c.tenant_id and k.key_id = c.key_id"
        f" order by {order}"
    )
    return await _rows(tx, whole, params | more)


async def total(tx: Tx, scope: Scope) -> tuple[int, bool]:
    """How many customers pass the filters, and whether that is an estimate.

    It is beyond 10,000, and where the database expects that counting takes long.
    """
    statement, params = _selected(tx, scope, Phase(()), None)
    count = f"select count(*) from (select {statement} limit {EXACT_TOTAL + 1}) as counted"  # noqa: S608 – constants
    found = 0
    if (await _plan(tx, count, params))["Total Cost"] <= DEAR:
        found = int((await _rows(tx, count, params))[0][0])
        if found <= EXACT_TOTAL:
            return found, False
    return max(found, int((await _plan(tx, f"select {statement}", params))["Plan Rows"])), True


async def more_than(tx: Tx, scope: Scope, most: int) -> bool:
    """True if more than `most` customers pass the filters; counts up to there."""
    statement, params = _selected(tx, scope, Phase(()), None)
    count = f"select count(*) from (select {statement} limit {int(most) + 1}) as counted"  # noqa: S608 – constants
    return int((await _rows(tx, count, params))[0][0]) > most


async def _plan(tx: Tx, statement: str, params: Mapping[str, Any]) -> dict[str, Any]:
    rows = await _rows(tx, f"explain (format json) {statement}", params)
    plan: dict[str, Any] = rows[0][0][0]["Plan"]
    return plan


def _calls(tx: Tx, scope: Scope, wanted: Sequence[Tokens], limit: int) -> tuple[str, dict[str, Any]]:
    """The union of the candidates of several plans."""
    calls, params = [], _params(tx, scope, None, limit)
    for i, tokens in enumerate(wanted):
        call = _CALL
        for name, value in _params(tx, scope, tokens, limit).items():
            if name in {"all", "any1", "any2", "any3"}:
                call = call.replace(f"%({name})s", f"%({name}_{i})s")
                params[f"{name}_{i}"] = value
        calls.append(f"select h from {call} as h")  # noqa: S608 – constants
    return " union ".join(calls), params


def _selected(
    tx: Tx, scope: Scope, phase: Phase, after: Sequence[Any] | None, *, hits: bool = False
) -> tuple[str, dict[str, Any]]:
    """FROM and WHERE of a list, and their parameters."""
    table, condition = _MEMBERS
    conditions = [condition, *(_FILTERS[name] for name in scope.filters)]
    params: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "business": scope.business_id,
        "version": scope.key_version,
    }
    for name, value in scope.filters.items():
        params[f"f_{name}"] = orjson.dumps(value).decode() if name == "attributes" else value
    if "created_after" in scope.filters:
        params["first_id"] = first_id_at(scope.filters["created_after"])
    if "created_before" in scope.filters:
        params["last_id"] = first_id_at(scope.filters["created_before"], last=True)
    if phase.condition:
        conditions.append(phase.condition)
    if after is not None:
        further, values = phase.after(after)
        conditions.append(f"({further})")
        params |= values
    used = " ".join(conditions)
    joins = ["join hits on hits.h = m.customer_id"] if hits else []
    joins += [_JOINS[name] for name in ("s", "p") if f" {name}." in f" {used}" or f"({name}." in used]
    if phase.needs_metrics or "x." in used:
        joins.append(
            _JOINS["x"] if phase.needs_metrics and not phase.optional_metrics else f"left {_JOINS['x']}"
        )
    return f"from {table} {' '.join(joins)} where {' and '.join(conditions)}", params


async def _rows(tx: Tx, statement: str, params: Mapping[str, Any]) -> list[Any]:
    async with tx.driver.cursor(binary=not statement.startswith("explain"), row_factory=tuple_row) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchall()
