"""What orders do to accounts, worked in from events: once each, in whatever order they come.

An order's event bears its whole state (decision 16). The newest state decides: what the order gave by its amounts,
what returns take back of that, and what comes back of points that were spent on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import and_, func, select, text

from libs import arrays
from libs.db import Tx
from libs.inbox import NotYet
from libs.outbox import Fact
from libs.pipeline import Query, Step
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.cards import queries as cards_queries
from services.loyalty.cards import rules as cards
from services.loyalty.cards.rules import Card
from services.loyalty.ledger import queries, reading, rules, writing
from services.loyalty.ledger.rules import Book
from services.loyalty.ledger.tables import allocations, entries, judged_orders
from services.loyalty.ledger.work import (
    Judged,
    Members,
    Work,
    asked_members,
    business_key,
    look_at_segments,
    look_at_tiers,
    members_in,
    note_awards,
    reasons,
    save,
    tier_said,
)
from services.loyalty.programs import queries as programs_queries
from services.loyalty.programs import rules as earning
from services.loyalty.programs.queries import Program, RuleBook
from services.loyalty.programs.rules import Award, Context, Purchase, Rule
from services.loyalty.tiers import queries as tiers_queries
from services.loyalty.tiers.rules import ladder_of

_j, _e, _al = judged_orders.c, entries.c, allocations.c

_JUDGED = Query(
    text("select j.* from judged_orders j where j.tenant_id = :tenant and j.order_id = any(:orders)")
)
_SPENT = Query(
    text("""
    select e.account_id, e.order_id, e.entry_id, e.points from entries e
    where e.tenant_id = :tenant and e.order_id = any(:orders) and e.kind = 2
""")
)
_ORDERS = Query(
    text("""
    insert into orders as o
    select r.* from json_populate_recordset(null::orders, cast(:rows as json)) r
    on conflict on constraint orders_pkey do update
    set version = excluded.version, cancelled = excluded.cancelled, placed_at = excluded.placed_at,
        completed_at = excluded.completed_at, local_day = excluded.local_day,
        total_minor = excluded.total_minor, refunded_minor = excluded.refunded_minor, facts = excluded.facts
    where o.version < excluded.version
    returning o.order_id
""")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A completed order as an event told it."""

    order_id: UUID
    business_id: UUID
    customer_id: UUID
    version: int
    cancelled: bool
    completed_at: datetime
    local_day: date
    refunded_minor: int
    purchase: Purchase


async def work_in_orders(tx: Tx, heard: Iterable[Heard]) -> None:
    """Works completed orders in. Emits what happened to points.

    Raises NotYet for an order whose business or customer was not heard of yet.
    """
    newest: dict[UUID, Heard] = {}
    for each in heard:
        before = newest.get(each.order_id)
        if before is None or before.version < each.version:
            newest[each.order_id] = each
    if not newest:
        return
    businesses = sorted({each.business_id for each in newest.values()})
    whose = {(each.business_id, each.customer_id) for each in newest.values()}
    rows = [_order_row(tx, newest[order_id]) for order_id in sorted(newest)]
    _, found, known, changed = await tx.together(
        (reading.FIND_BY_KEY, {}),
        programs_queries.asked_of_businesses(tx, businesses),
        asked_members(tx, whose),
        (_ORDERS, {"rows": orjson.dumps(rows).decode()}),
    )
    programs = _programs(businesses, found)
    members = members_in(known, whose)
    fresh = {row.order_id for row in changed}
    todo = sorted(
        (each for each in newest.values() if each.order_id in fresh),
        key=lambda each: (each.purchase.placed_at, each.order_id),
    )
    if not todo:
        return
    work = await _load(tx, programs, members, todo)
    for each in todo:
        for program in programs[each.business_id]:
            _work_in(tx, work, program, each)
    await save(tx, work)


def _programs(business_ids: Iterable[UUID], rows: Iterable[Any]) -> dict[UUID, list[Program]]:
    found: dict[UUID, list[Program]] = {}
    for row in rows:
        found.setdefault(row.business_id, []).append(programs_queries.program_of(row))
    for business_id in business_ids:
        if business_id not in found:
            raise NotYet(business_key(business_id))
    return found


async def _load(
    tx: Tx,
    programs: Mapping[UUID, Sequence[Program]],
    members: Members,
    todo: Sequence[Heard],
) -> Work:
    """Everything that the orders need, read under the locks of their accounts."""
    by_id = {program.program_id: program for each in programs.values() for program in each}
    wanted = {
        (program.program_id, each.customer_id) for each in todo for program in programs[each.business_id]
    }
    opened = await writing.open_accounts(tx, wanted, by_id)
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
    of_program = await _rules(tx, by_id, judged, rows_of_rules)
    reclaims = await _reclaims(tx, order_ids) if judged else {}
    spent = await _spent(tx, redeemed)
    shares = await queries.shares(tx, [each[0] for them in spent.values() for each in them])
    closed = {lot for them in (*reclaims.values(), *shares.values()) for lot in them}
    if closed:
        books = await reading.books(tx, account_ids, by_id, lock=True, more_lots=closed)
    needs_numbers = any(_is_counting(rule) for each in of_program.values() for rule in each.now)
    numbers = await queries.orders_before(tx, account_ids) if needs_numbers else {}
    given: dict[UUID, dict[str, dict[date, int]]] = {}
    days = [each.local_day for each in todo]
    capped = [rule for each in of_program.values() for rule in each.now]
    for row in await queries.given_before(tx, account_ids, capped, min(days), max(days)):
        days_of = given.setdefault(row.account_id, {}).setdefault(str(row.rule_id), {})
        days_of[row.local_day] = int(row.points)
    work = Work(by_id, of_program, opened, books, members, judged, numbers, given, reclaims, spent, shares)
    work.ladders = {row.program_id: ladder_of(row.definition) for row in tiers}
    work.standings = tiers_queries.standings_in(standings)
    await look_at_tiers(tx, work, order_ids)
    await look_at_segments(tx, work)
    if any(rule.kind == earning.STAMP_CARD for each in of_program.values() for rule in each.at(tx.now)):
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
    """The rules that hold now, and those that held when an order of the batch was first judged."""
    if judged:
        since = min(each.judged_at for each in judged.values())
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


async def _spent(tx: Tx, rows: Sequence[Any]) -> dict[tuple[UUID, UUID], list[tuple[UUID, int, int]]]:
    """Redemptions on orders: by (account, order): (entry, points, points that came back)."""
    back = await queries.returned(tx, [row.entry_id for row in rows]) if rows else {}
    now = await reading.roots(tx, {row.account_id for row in rows})
    found: dict[tuple[UUID, UUID], list[tuple[UUID, int, int]]] = {}
    for row in rows:
        spent = row.entry_id, -row.points, back.get(row.entry_id, 0)
        found.setdefault((now[row.account_id], row.order_id), []).append(spent)
    return found


# ---------------------------------------------------------------------- one order in one program


def _work_in(tx: Tx, work: Work, program: Program, heard: Heard) -> None:
    key = program.program_id, heard.order_id
    account_id = work.accounts[program.program_id, heard.customer_id]
    before = work.judged.get(key)
    whole = rules.kept(1, heard.purchase.total_minor, heard.refunded_minor, cancelled=heard.cancelled)
    if before is None and not whole:
        return  # nothing of it is left: it is judged if that changes
    if before is None:
        context = _context(work, program, heard, account_id)
        before = Judged(account_id=account_id, version=0, judged_at=tx.now, context=context)
        work.judged[key] = before
        work.numbers[account_id] = work.numbers.get(account_id, 0) + 1
    book = work.books[before.account_id]
    of_then = work.rules[program.program_id].at(before.judged_at)
    judgement = earning.judge(of_then, heard.purchase, before.context, program.zone)
    worth = judgement.points
    if worth > before.given:
        _earn(work, program, heard, before, judgement.awards)
    _return(work, book, heard, before, worth)
    for rule in of_then:
        if rule.kind == earning.STAMP_CARD:
            _stamp(work, program, heard, before, rule, whole)
    before.version = heard.version
    work.judged_rows.append(
        {
            "tenant_id": tx.tenant_id,
            "program_id": program.program_id,
            "order_id": heard.order_id,
            "business_id": heard.business_id,
            "account_id": before.account_id,
            "version": heard.version,
            "judged_at": before.judged_at,
            "context": _stored(before.context),
            "given": before.given,
            "reclaimed": before.reclaimed,
            "shortfall": before.shortfall,
        }
    )


def _earn(work: Work, program: Program, heard: Heard, before: Judged, given: Sequence[Award]) -> None:
    """Gives what the order is worth more than it gave."""
    book, source = work.books[before.account_id], f"order:{heard.order_id}"
    more = sum(award.points for award in given) - before.given
    settings = program.settings
    book.earn(
        more,
        available_at=max(earning.available_at(settings, heard.completed_at), book.now)
        if settings.pending_days
        else book.now,
        expires_at=earning.expires_at(settings, heard.completed_at, program.zone),
        order_id=heard.order_id,
        reasons=reasons(given),
    )
    before.given += more
    note_awards(work, program, before.account_id, source, heard.local_day, given)


def _stamp(work: Work, program: Program, heard: Heard, before: Judged, rule: Rule, counts: int) -> None:
    """Puts the order's stamps on a card, or takes them back once nothing of the order is left."""
    let_in = earning.is_for(rule, heard.purchase, before.context, program.zone)
    worth = cards.stamps_of(rule, heard.purchase) if counts and let_in else 0
    change = worth - work.stamps.get((heard.order_id, rule.rule_id), 0)
    if not change:
        return
    key = before.account_id, rule.rule_id
    card = work.cards.get(key, Card())
    done = cards.stamped(rule, card, change)
    after = replace(done.card, version=card.version + 1)
    work.cards[key] = work.changed_cards[key] = after
    work.stamps[heard.order_id, rule.rule_id] = worth
    work.changed_stamps[heard.order_id, rule.rule_id] = before.account_id, worth
    told = {
        "customer_id": str(heard.customer_id),
        "business_id": str(program.business_id),
        "program_id": str(program.program_id),
        "rule_id": str(rule.rule_id),
    }
    points, offer = int(rule.terms.get("points", 0)), str(rule.terms.get("offer", ""))
    messages: list[Any] = []
    for number in range(card.filled + 1, after.filled + 1):
        if points:
            book, source = work.books[before.account_id], f"card:{number}"
            award = Award(rule.rule_id, rule.name, points, f"for full card number {number}")
            book.earn(
                points,
                available_at=book.now,
                expires_at=earning.expires_at(program.settings, book.now, program.zone),
                source=source,
                reasons=reasons([award]),
            )
            own = f"{source}:{before.account_id}"
            note_awards(work, program, before.account_id, own, heard.local_day, [award])
        messages.append(events.CardCompleted(**told, filled=number, points=points, offer=offer))
    needed = int(rule.terms["stamps"])
    messages += [
        events.ProgressMilestone(**told, percent=percent, stamps=cards.here(rule, after), needed=needed)
        for percent in done.milestones
    ]
    work.card_facts += [
        Fact(message, before.account_id, after.version, program.business_id) for message in messages
    ]


def _return(work: Work, book: Book, heard: Heard, before: Judged, worth: int) -> None:
    """Takes back what the order gave and is not worth, and gives back what was spent on it."""

    def kept(points: int) -> int:
        return rules.kept(points, heard.purchase.total_minor, heard.refunded_minor, cancelled=heard.cancelled)

    more = before.given - kept(worth) - before.reclaimed
    if more > 0:
        before.shortfall += book.reclaim(heard.order_id, more).shortfall
    elif more < 0:
        short = min(-more, before.shortfall)
        shares = work.reclaims.get((before.account_id, heard.order_id), {})
        book.give_back(heard.order_id, -more - short, short, shares)
        before.shortfall -= short
    before.reclaimed += more
    for entry_id, points, back in work.spent.get((before.account_id, heard.order_id), ()):
        due = points - kept(points) - back
        if due > 0:
            book.restore(entry_id, due, work.shares.get(entry_id, {}), order_id=heard.order_id)


def _context(work: Work, program: Program, heard: Heard, account_id: UUID) -> Context:
    day = heard.local_day
    given = work.given.get(account_id, {})
    return Context(
        **tier_said(work, program, account_id),
        segment_ids=work.segments.get((heard.business_id, heard.customer_id), frozenset()),
        number=work.numbers.get(account_id, 0) + 1,
        given_day={rule: days[day] for rule, days in given.items() if day in days},
        given_month={
            rule: total
            for rule, days in given.items()
            if (
                total := sum(
                    points for on, points in days.items() if (on.year, on.month) == (day.year, day.month)
                )
            )
        },
        refused=queries.refusal(work.members[heard.business_id, heard.customer_id], program),
    )


# ---------------------------------------------------------------------- stored forms


def _order_row(tx: Tx, heard: Heard) -> dict[str, Any]:
    bought = heard.purchase
    return {
        "tenant_id": tx.tenant_id,
        "order_id": heard.order_id,
        "business_id": heard.business_id,
        "customer_id": heard.customer_id,
        "version": heard.version,
        "cancelled": heard.cancelled,
        "placed_at": bought.placed_at,
        "completed_at": heard.completed_at,
        "local_day": heard.local_day,
        "total_minor": bought.total_minor,
        "refunded_minor": heard.refunded_minor,
        "facts": {
            "subtotal_minor": bought.subtotal_minor,
            "discount_minor": bought.discount_minor,
            "shipping_minor": bought.shipping_minor,
            "tax_minor": bought.tax_minor,
            "channel": bought.channel,
            "store": bought.store,
            "lines": [
                [line.sku, line.category, line.brand, line.quantity, line.amount_minor]
                for line in bought.lines
            ],
        },
    }


def _stored(context: Context) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "tier": context.tier,
        "tier_percent": context.tier_percent,
        "segment_ids": sorted(context.segment_ids),
        "number": context.number,
        "given_day": dict(context.given_day),
        "given_month": dict(context.given_month),
        "refused": context.refused,
    }
    return {name: value for name, value in plain.items() if value != getattr(Context(), name)}


def _context_of(stored: Mapping[str, Any]) -> Context:
    values = dict(stored)
    if "segment_ids" in values:
        values["segment_ids"] = frozenset(values["segment_ids"])
    return Context(**values)
