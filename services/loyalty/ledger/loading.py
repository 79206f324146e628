"""What a batch of orders is worked in with, read under the locks of all accounts that it concerns."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, select, text

from libs import arrays
from libs.db import Tx
from libs.pipeline import Query, Step
from libs.problems import Conflict
from services.loyalty.cards import queries as cards_queries
from services.loyalty.ledger import queries, reading, rules, writing
from services.loyalty.ledger.tables import allocations, entries
from services.loyalty.ledger.work import Heard, Judged, Members, Work, look_at_segments, look_at_tiers
from services.loyalty.programs import queries as programs_queries
from services.loyalty.programs import rules as earning
from services.loyalty.programs.queries import Program, RuleBook
from services.loyalty.programs.rules import Context, Rule
from services.loyalty.tiers import queries as tiers_queries
from services.loyalty.tiers.rules import ladder_of

_e, _al = entries.c, allocations.c

# Whose orders were judged to, and who spent on them. They need not be whom the events name: a merge was undone, or is
# still to be heard of.
_WHOSE = Query(
    text("""
    select j.account_id from judged_orders j where j.tenant_id = :tenant and j.order_id = any(:orders)
    union
    select e.account_id from entries e
    where e.tenant_id = :tenant and e.order_id = any(:orders) and e.kind = 2
""")
)
_JUDGED = Query(
    text("select j.* from judged_orders j where j.tenant_id = :tenant and j.order_id = any(:orders)")
)
_SPENT = Query(
    text("""
    select e.account_id, e.order_id, e.entry_id, e.points from entries e
    where e.tenant_id = :tenant and e.order_id = any(:orders) and e.kind = 2
""")
)
_AWARDED = Query(
    text("""
    select w.program_id, w.source, w.rule_id, w.points from awards w
    where w.tenant_id = :tenant and w.program_id = any(:programs) and w.source = any(:sources)
""")
)


def asked_whose(tx: Tx, order_ids: Iterable[UUID]) -> Step:
    """What gives the accounts that orders did something to. Under the locks of the orders nobody judges them."""
    return _WHOSE, {"tenant": tx.tenant_id, "orders": arrays.uuids(list(order_ids))}


async def load(
    tx: Tx,
    programs: Mapping[UUID, Sequence[Program]],
    members: Members,
    todo: Sequence[Heard],
    whose: Sequence[Any],
) -> Work:
    """Everything that the orders need, read under the locks of their accounts; `whose` are rows of `asked_whose`.

    Raises Conflict if a merge moved orders before these were locked.
    """
    by_id = {program.program_id: program for each in programs.values() for program in each}
    wanted = {
        (program.program_id, each.customer_id) for each in todo for program in programs[each.business_id]
    }
    opened = await writing.open_accounts(tx, wanted, by_id)
    if whose:
        now = await reading.roots(tx, [row.account_id for row in whose])
        theirs = await queries.owners(tx, set(now.values()))
        opened |= {(e.program_id, e.customer_id): e.account_id for e in theirs if e.program_id in by_id}
    account_ids = sorted(opened.values())
    order_ids = [each.order_id for each in todo]
    # First the locks: what is read before them may change.
    those = {"tenant": tx.tenant_id, "orders": arrays.uuids(order_ids)}
    asked: list[Step] = [
        (_JUDGED, those),
        (_SPENT, those),
        programs_queries.asked_rules(tx, list(by_id)),
        tiers_queries.asked_ladders(tx, list(by_id)),
        tiers_queries.asked_standings(tx, account_ids),
    ]
    books, found = await reading.books_with(tx, account_ids, by_id, asked, lock=True)
    before, redeemed, rows_of_rules, tiers, standings = found
    judged = _judged(before)
    if any(each.account_id not in books for each in judged.values()):
        raise Conflict
    of_program = await _rules(tx, by_id, judged, rows_of_rules)
    reclaims = await _reclaims(tx, order_ids) if judged else {}
    spent = await _spent(tx, redeemed)
    shares = await queries.shares(
        tx, [each[0] for them in spent.values() for mine in them.values() for each in mine]
    )
    closed = {lot for them in (*reclaims.values(), *shares.values()) for lot in them}
    if closed:
        books = await reading.books(tx, account_ids, by_id, lock=True, more_lots=closed)
    ever = [rule for each in of_program.values() for rule in each.ever]
    needs_numbers = any(_is_counting(rule) for rule in ever)
    numbers = await queries.orders_before(tx, account_ids) if needs_numbers else {}
    given: dict[UUID, dict[str, dict[date, int]]] = {}
    days = [each.local_day for each in todo]
    for row in await queries.given_before(tx, account_ids, ever, min(days), max(days)):
        days_of = given.setdefault(row.account_id, {}).setdefault(str(row.rule_id), {})
        days_of[row.local_day] = int(row.points)
    work = Work(by_id, of_program, opened, books, members, judged, numbers, given, reclaims, spent, shares)
    work.ladders = {row.program_id: ladder_of(row.definition) for row in tiers}
    work.standings = tiers_queries.standings_in(standings)
    await look_at_tiers(tx, work, order_ids)
    await look_at_segments(tx, work)
    if judged:
        work.awarded = await _awarded(tx, by_id, order_ids)
    if any(rule.kind == earning.STAMP_CARD for rule in ever):
        work.cards = await cards_queries.cards_of(tx, account_ids)
        work.stamps = await cards_queries.stamps_of_orders(tx, order_ids)
    return work


def _is_counting(rule: Rule) -> bool:
    return rule.terms.get("trigger") in {earning.FIRST_ORDER, earning.NTH_ORDER}


async def _rules(
    tx: Tx,
    program_ids: Iterable[UUID],
    judged: Mapping[tuple[UUID, UUID], Judged],
    now: Sequence[Any],
) -> dict[UUID, RuleBook]:
    """The rules that hold now, and those that held at `tx.now` and when an order of the batch was first judged."""
    if judged:
        since = min(tx.now, *(each.judged_at for each in judged.values()))
        return {each: await programs_queries.rule_book(tx, each, since) for each in program_ids}
    return {each: RuleBook([row for row in now if row.program_id == each]) for each in program_ids}


def _judged(rows: Iterable[Any]) -> dict[tuple[UUID, UUID], Judged]:
    return {
        (row.program_id, row.order_id): Judged(
            account_id=row.account_id,
            version=row.version,
            judged_at=row.judged_at,
            context=_context_of(row.context),
            given=row.given,
            reclaimed=row.reclaimed,
            shortfall=row.shortfall,
        )
        for row in rows
    }


async def _awarded(
    tx: Tx, program_ids: Iterable[UUID], order_ids: Iterable[UUID]
) -> dict[tuple[UUID, str], dict[UUID, int]]:
    """What rules gave for orders: by program and source, then by rule."""
    where = {
        "tenant": tx.tenant_id,
        "programs": arrays.uuids(list(program_ids)),
        "sources": [f"order:{each}" for each in order_ids],
    }
    found: dict[tuple[UUID, str], dict[UUID, int]] = {}
    for row in (await tx.together((_AWARDED, where)))[0]:
        found.setdefault((row.program_id, row.source), {})[row.rule_id] = int(row.points)
    return found


async def _reclaims(tx: Tx, order_ids: Sequence[UUID]) -> dict[tuple[UUID, UUID], dict[UUID, int]]:
    """What returns of an order took from lots and did not give back: by (account, order), then by lot."""
    wanted = (
        select(_e.account_id, _e.order_id, _al.lot_id, (-func.sum(_al.points)).label("points"))
        .join(allocations, and_(_al.tenant_id == _e.tenant_id, _al.entry_id == _e.entry_id))
        .where(
            _e.tenant_id == tx.tenant_id,
            _e.order_id.in_(order_ids),
            _e.kind == rules.REVERSE,
            _e.reverses_id.is_(None),
        )
        .group_by(_e.account_id, _e.order_id, _al.lot_id)
    )
    found: dict[tuple[UUID, UUID], dict[UUID, int]] = {}
    rows = (await tx.execute(wanted)).all()
    now = await reading.roots(tx, {row.account_id for row in rows})
    for row in rows:
        if row.points > 0:
            found.setdefault((now[row.account_id], row.order_id), {})[row.lot_id] = int(row.points)
    return found


async def _spent(tx: Tx, rows: Sequence[Any]) -> dict[UUID, dict[UUID, list[tuple[UUID, int, int]]]]:
    """Redemptions on orders: by order, then by account: (entry, points, points that came back)."""
    back = await queries.returned(tx, [row.entry_id for row in rows]) if rows else {}
    now = await reading.roots(tx, {row.account_id for row in rows})
    found: dict[UUID, dict[UUID, list[tuple[UUID, int, int]]]] = {}
    for row in rows:
        spent = row.entry_id, -row.points, back.get(row.entry_id, 0)
        found.setdefault(row.order_id, {}).setdefault(now[row.account_id], []).append(spent)
    return found


def _context_of(stored: Mapping[str, Any]) -> Context:
    values = dict(stored)
    if "segment_ids" in values:
        values["segment_ids"] = frozenset(values["segment_ids"])
    return Context(**values)
