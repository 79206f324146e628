"""What orders do to accounts, worked in from events: once each, in whatever order they come.

An order's event bears its whole state (decision 16). The newest state decides: what the order gave by its amounts,
what returns take back of that, and what comes back of points that were spent on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from libs.db import Tx
from libs.inbox import NotYet
from libs.outbox import Fact
from libs.pipeline import Query
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.cards import rules as cards
from services.loyalty.cards.rules import Card
from services.loyalty.ledger import loading, queries, reading, rules
from services.loyalty.ledger.work import (
    NO_RULE,
    Heard,
    Judged,
    Work,
    asked_members,
    business_key,
    members_in,
    note_awards,
    reasons,
    save,
    tier_said,
)
from services.loyalty.programs import queries as programs_queries
from services.loyalty.programs import rules as earning
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import Award, Context, Rule

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


async def work_in_orders(tx: Tx, heard: Iterable[Heard]) -> None:
    """Works orders in that were completed, or cancelled. Emits what happened to points.

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
    _, found, known, changed, judged_to = await tx.together(
        (reading.FIND_BY_KEY, {}),
        programs_queries.asked_of_businesses(tx, businesses),
        asked_members(tx, whose),
        (_ORDERS, {"rows": orjson.dumps(rows).decode()}),
        loading.asked_whose(tx, newest),
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
    work = await loading.load(tx, programs, members, todo, judged_to)
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


# ---------------------------------------------------------------------- one order in one program


def _work_in(tx: Tx, work: Work, program: Program, heard: Heard) -> None:
    key = program.program_id, heard.order_id
    account_id = work.accounts[program.program_id, heard.customer_id]
    before = work.judged.get(key)
    whole = rules.kept(1, heard.purchase.total_minor, heard.refunded_minor, cancelled=heard.cancelled)
    _give_back(work, program, heard)
    if before is None and not whole:
        return  # nothing of it is left: it is judged if that changes
    if before is None:
        context = _context(work, program, heard, account_id)
        before = Judged(account_id=account_id, version=0, judged_at=tx.now, context=context)
        work.judged[key] = before
        work.numbers[account_id] = work.numbers.get(account_id, 0) + 1
    of_then = work.rules[program.program_id].at(before.judged_at)
    worth, awards = _judge(work, program, heard, before, of_then)
    if worth > before.given:
        _earn(work, program, heard, before, awards, of_then)
    _take_back(work, program, heard, before, worth)
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


def _judge(
    work: Work, program: Program, heard: Heard, before: Judged, of_then: Sequence[Rule]
) -> tuple[int, Sequence[Award]]:
    """What the order is worth by the rules of then, and why. One that grew keeps to what is left of limits by now."""
    found = earning.judge(of_then, heard.purchase, before.context, program.zone)
    if before.version and found.points > before.given:
        by_now = replace(before.context, **_given(work, program, heard, before.account_id))
        found = earning.judge(of_then, heard.purchase, by_now, program.zone)
        return max(found.points, before.given), found.awards
    return found.points, found.awards


def _earn(
    work: Work,
    program: Program,
    heard: Heard,
    before: Judged,
    awards: Sequence[Award],
    of_then: Sequence[Rule],
) -> None:
    """Gives what the order is worth more than it gave, and says of each rule what it gives more, or less."""
    book, source = work.books[before.account_id], _source(heard)
    earlier = dict(work.awarded.get((program.program_id, source), {}))
    more: list[Award] = []
    for award in awards:
        was = earlier.pop(award.rule_id or NO_RULE, 0)
        told = f"{award.explanation}, {was} of them given before" if was else award.explanation
        more.append(replace(award, points=award.points - was, explanation=told))
    names = {rule.rule_id: rule.name for rule in of_then} | {NO_RULE: before.context.tier}
    gone = [
        Award(
            None if rule_id == NO_RULE else rule_id, names.get(rule_id, ""), -was, "no longer for this order"
        )
        for rule_id, was in earlier.items()
    ]
    points = sum(award.points for award in awards) - before.given
    settings, at = program.settings, heard.completed_at or heard.purchase.placed_at
    book.earn(
        points,
        available_at=max(earning.available_at(settings, at), book.now) if settings.pending_days else book.now,
        expires_at=earning.expires_at(settings, at, program.zone),
        order_id=heard.order_id,
        counted_at=_counted_at(program, heard),
        reasons=reasons(award for award in (*more, *gone) if award.points),
    )
    before.given += points
    nothing = [replace(award, points=0) for award in gone]
    note_awards(work, program, before.account_id, source, heard.local_day, [*awards, *nothing])


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
        "customer_id": str(work.owners[before.account_id][1]),
        "business_id": str(program.business_id),
        "program_id": str(program.program_id),
        "rule_id": str(rule.rule_id),
    }
    offer = str(rule.terms.get("offer", ""))
    messages: list[Any] = []
    for number in range(card.filled + 1, after.filled + 1):
        award = cards.award(rule, number)
        if award is not None:
            book, source = work.books[before.account_id], f"card:{number}"
            book.earn(
                award.points,
                available_at=book.now,
                expires_at=earning.expires_at(program.settings, book.now, program.zone),
                source=source,
                counted_at=_counted_at(program, heard),
                reasons=reasons([award]),
            )
            own = f"{source}:{before.account_id}"
            note_awards(work, program, before.account_id, own, heard.local_day, [award])
        points = award.points if award else 0
        messages.append(events.CardCompleted(**told, filled=number, points=points, offer=offer))
    needed = int(rule.terms["stamps"])
    messages += [
        events.ProgressMilestone(**told, percent=percent, stamps=cards.here(rule, after), needed=needed)
        for percent in done.milestones
    ]
    work.card_facts += [
        Fact(message, before.account_id, after.version, program.business_id) for message in messages
    ]


def _kept(heard: Heard, points: int) -> int:
    return rules.kept(points, heard.purchase.total_minor, heard.refunded_minor, cancelled=heard.cancelled)


def _counted_at(program: Program, heard: Heard) -> datetime:
    """When points of an order count for tiers: with what was spent on it, however late they come or go back."""
    return earning.beginning(heard.local_day, program.zone)


def _take_back(work: Work, program: Program, heard: Heard, before: Judged, worth: int) -> None:
    """Takes back what the order gave and is not worth, or gives it again after a return that was told too large."""
    book, counted_at = work.books[before.account_id], _counted_at(program, heard)
    more = before.given - _kept(heard, worth) - before.reclaimed
    if more > 0:
        before.shortfall += book.reclaim(heard.order_id, more, counted_at=counted_at).shortfall
    elif more < 0:
        short = min(-more, before.shortfall)
        shares = work.reclaims.get((before.account_id, heard.order_id), {})
        book.give_back(heard.order_id, -more - short, short, shares, counted_at=counted_at)
        before.shortfall -= short
    before.reclaimed += more


def _give_back(work: Work, program: Program, heard: Heard) -> None:
    """Gives back what anybody spent on the order, as far as it came back."""
    for account_id, spent in work.spent.get(heard.order_id, {}).items():
        if account_id not in work.books or work.owners[account_id][0] != program.program_id:
            continue
        for entry_id, points, back in spent:
            due = points - _kept(heard, points) - back
            if due > 0:
                shares = work.shares.get(entry_id, {})
                work.books[account_id].restore(entry_id, due, shares, order_id=heard.order_id)


def _context(work: Work, program: Program, heard: Heard, account_id: UUID) -> Context:
    return Context(
        **tier_said(work, program, account_id),
        segment_ids=work.segments.get((heard.business_id, heard.customer_id), frozenset()),
        number=work.numbers.get(account_id, 0) + 1,
        **_given(work, program, heard, account_id),
        refused=queries.refusal(work.members[heard.business_id, heard.customer_id], program),
    )


def _given(work: Work, program: Program, heard: Heard, account_id: UUID) -> dict[str, Any]:
    """What rules gave the member on the order's day and in its month, but for the order itself."""
    day, own = heard.local_day, work.awarded.get((program.program_id, _source(heard)), {})
    on_day: dict[str, int] = {}
    in_month: dict[str, int] = {}
    for rule, days in work.given.get(account_id, {}).items():
        mine = own.get(UUID(rule), 0)
        on_day[rule] = days.get(day, 0) - mine
        in_month[rule] = -mine + sum(
            points for on, points in days.items() if (on.year, on.month) == (day.year, day.month)
        )
    return {
        "given_day": {rule: points for rule, points in on_day.items() if points > 0},
        "given_month": {rule: points for rule, points in in_month.items() if points > 0},
    }


def _source(heard: Heard) -> str:
    return f"order:{heard.order_id}"


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
