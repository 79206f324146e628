"""All that a batch of orders or occasions is worked in with: read once, changed by each, written back at the end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from libs import arrays
from libs.db import Tx
from libs.inbox import NotYet
from libs.outbox import Fact
from libs.pipeline import Query, Step
from services.loyalty.cards import actions as cards_actions
from services.loyalty.cards.rules import Card
from services.loyalty.ledger import reading, writing
from services.loyalty.ledger.rules import Book
from services.loyalty.ledger.writing import Member, Owned
from services.loyalty.programs.queries import Program, RuleBook
from services.loyalty.programs.rules import Award, Context, Purchase
from services.loyalty.segments.queries import Segments, segments_of
from services.loyalty.tiers import actions as tiers
from services.loyalty.tiers import queries as tiers_queries
from services.loyalty.tiers.rules import Ladder, Standing, Tier

NO_RULE = UUID(int=0)  # the rule of what a tier multiplies

Members = dict[tuple[UUID, UUID], Any]

_MEMBERS = Query(
    text("""
    select m.* from unnest(:businesses, :customers) as k (business_id, customer_id)
    cross join lateral (
        select m.* from memberships m
        where m.tenant_id = :tenant and m.business_id = k.business_id and m.customer_id = k.customer_id
          and m.joined_at is not null limit 1
    ) m
""")
)
_JUDGED = Query(
    text("""
    insert into judged_orders as j
    select r.* from json_populate_recordset(null::judged_orders, cast(:rows as json)) r
    on conflict on constraint judged_orders_pkey do update
    set version = excluded.version, given = excluded.given, reclaimed = excluded.reclaimed,
        shortfall = excluded.shortfall
""")
)
_AWARDS = Query(
    text("""
    insert into awards as w
    select r.* from json_populate_recordset(null::awards, cast(:rows as json)) r
    on conflict on constraint awards_pkey do update set points = excluded.points
""")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An order as an event told it; `completed_at` is None of one that was cancelled before it was completed."""

    order_id: UUID
    business_id: UUID
    customer_id: UUID
    version: int
    cancelled: bool
    completed_at: datetime | None
    local_day: date
    refunded_minor: int
    purchase: Purchase


@dataclass(slots=True, kw_only=True)
class Judged:
    """What an order did to an account so far."""

    account_id: UUID
    version: int
    judged_at: datetime
    context: Context
    given: int = 0
    reclaimed: int = 0
    shortfall: int = 0


@dataclass(slots=True)
class Work:
    """All that a batch of orders is worked in with; one for a transaction.

    `awarded` is what rules gave for a source (program, source): points by rule. `owners` has whose each account is.
    """

    programs: dict[UUID, Program]
    rules: dict[UUID, RuleBook]
    accounts: dict[Member, UUID]
    books: dict[UUID, Book]
    members: Members
    judged: dict[tuple[UUID, UUID], Judged]
    numbers: dict[UUID, int]
    given: dict[UUID, dict[str, dict[date, int]]]
    reclaims: dict[tuple[UUID, UUID], dict[UUID, int]]
    spent: dict[UUID, dict[UUID, list[tuple[UUID, int, int]]]]
    shares: dict[UUID, dict[UUID, int]]
    ladders: dict[UUID, Ladder] = field(default_factory=dict)
    standings: dict[UUID, Standing] = field(default_factory=dict)
    past: dict[UUID, Standing] = field(default_factory=dict)
    segments: Segments = field(default_factory=dict)
    cards: dict[tuple[UUID, UUID], Card] = field(default_factory=dict)
    stamps: dict[tuple[UUID, UUID], int] = field(default_factory=dict)
    changed_cards: dict[tuple[UUID, UUID], Card] = field(default_factory=dict)
    changed_stamps: dict[tuple[UUID, UUID], tuple[UUID, int]] = field(default_factory=dict)
    card_facts: list[Fact] = field(default_factory=list)
    judged_rows: list[dict[str, Any]] = field(default_factory=list)
    awarded: dict[tuple[UUID, str], dict[UUID, int]] = field(default_factory=dict)
    award_rows: dict[tuple[UUID, str, UUID], dict[str, Any]] = field(default_factory=dict)
    owners: dict[UUID, Member] = field(init=False)

    def __post_init__(self) -> None:
        self.owners = {account_id: member for member, account_id in self.accounts.items()}


async def known_members(tx: Tx, members: set[tuple[UUID, UUID]]) -> Members:
    """The memberships of (business, customer). Raises NotYet for one that was not heard of."""
    return members_in((await tx.together((reading.FIND_BY_KEY, {}), asked_members(tx, members)))[1], members)


def asked_members(tx: Tx, members: set[tuple[UUID, UUID]]) -> Step:
    """What gives the rows of `members_in`."""
    return _MEMBERS, {
        "tenant": tx.tenant_id,
        "businesses": arrays.uuids([business_id for business_id, _ in members]),
        "customers": arrays.uuids([customer_id for _, customer_id in members]),
    }


def members_in(rows: Iterable[Any], members: set[tuple[UUID, UUID]]) -> Members:
    """The memberships by (business, customer). Raises NotYet for one that was not heard of."""
    found = {(row.business_id, row.customer_id): row for row in rows}
    for business_id, customer_id in members:
        if (business_id, customer_id) not in found:
            raise NotYet(member_key(business_id, customer_id))
    return found


def member_key(business_id: UUID, customer_id: UUID) -> str:
    """What events of a member wait for who was not heard of yet."""
    return f"member:{business_id}:{customer_id}"


def business_key(business_id: UUID) -> str:
    """What events of a business wait for that was not heard of yet."""
    return f"business:{business_id}"


async def look(tx: Tx, work: Work) -> None:
    """Where the members stand before their orders are worked in, and in which segments they are."""
    work.ladders = {each: await tiers_queries.ladder(tx, each) for each in sorted(work.programs)}
    work.standings = await tiers_queries.standings_of(tx, sorted(work.books))
    await look_at_tiers(tx, work)
    await look_at_segments(tx, work)


async def look_at_tiers(tx: Tx, work: Work, order_ids: Sequence[UUID] = ()) -> None:
    """Where those stand by now whose override, period or grace has ended, before these orders."""
    known: dict[UUID, dict[UUID, Standing]] = {}
    for (program_id, _), account_id in work.accounts.items():
        if account_id in work.standings:
            known.setdefault(program_id, {})[account_id] = work.standings[account_id]
    for program_id, theirs in known.items():
        program, ladder = work.programs[program_id], work.ladders[program_id]
        work.past |= await tiers_queries.past(tx, program, ladder, theirs, order_ids)


async def look_at_segments(tx: Tx, work: Work) -> None:
    """In which segments the members are, if a rule asks."""
    if any(rule.conditions.segment_ids for each in work.rules.values() for rule in each.ever):
        work.segments = await segments_of(tx, {customer_id for _, customer_id in work.members})


def tier_said(work: Work, program: Program, account_id: UUID) -> dict[str, Any]:
    """What the member's tier says in a context."""
    tier = tier_of(work, program, account_id)
    return {"tier": tier.name, "tier_percent": tier.earning_percent}


def tier_of(work: Work, program: Program, account_id: UUID) -> Tier:
    """The member's tier before what is worked in."""
    ladder = work.ladders[program.program_id]
    standing = work.past.get(account_id) or work.standings.get(account_id)
    return ladder.tier(standing.tier) if standing else ladder.tiers[0]


def note_awards(
    work: Work, program: Program, account_id: UUID, source: str, day: date, given: Sequence[Award]
) -> None:
    """Notes what rules gave for a source, all in all, and counts what is new of it towards their limits."""
    known = work.awarded.setdefault((program.program_id, source), {})
    for award in given:
        rule_id = award.rule_id or NO_RULE
        work.award_rows[program.program_id, source, rule_id] = {
            "program_id": program.program_id,
            "source": source,
            "rule_id": rule_id,
            "business_id": program.business_id,
            "account_id": account_id,
            "local_day": day,
            "points": award.points,
        }
        days = work.given.setdefault(account_id, {}).setdefault(str(rule_id), {})
        days[day] = days.get(day, 0) + award.points - known.get(rule_id, 0)
        known[rule_id] = award.points


async def save(tx: Tx, work: Work) -> None:
    """Writes what the batch changed, and judges the members' tiers. Emits what happened to points and cards."""
    owned = [
        Owned(book, work.programs[work.owners[account_id][0]], work.owners[account_id][1])
        for account_id, book in work.books.items()
    ]
    also: list[Step] = []
    for query, rows in (
        (_JUDGED, list({(row["program_id"], row["order_id"]): row for row in work.judged_rows}.values())),
        (_AWARDS, [{"tenant_id": tx.tenant_id, **row} for row in work.award_rows.values()]),
    ):
        if rows:
            also.append((query, {"rows": orjson.dumps(rows).decode()}))
    judged = [(work.programs[each], work.ladders[each], _accounts_of(owned, each)) for each in work.programs]
    asked = [tiers_queries.asked_facts(tx, *each, tx.now) for each in judged]
    found = await writing.save(tx, owned, also=[*also, *asked])
    at = {each.book.account.account_id: each.program.business_id for each in owned}
    await cards_actions.save(tx, at, work.changed_cards, work.changed_stamps, work.card_facts)
    for (program, ladder, _), rows in zip(judged, found[len(also) :], strict=True):
        await tiers.judge_by(tx, program, ladder, tiers_queries.facts_in(rows), work.standings)


def _accounts_of(owned: Iterable[Owned], program_id: UUID) -> list[UUID]:
    return sorted(each.book.account.account_id for each in owned if each.program.program_id == program_id)


def reasons(given: Iterable[Award]) -> list[dict[str, Any]]:
    """Awards, as an entry keeps them."""
    return [
        {
            "rule_id": str(award.rule_id or ""),
            "name": award.name,
            "points": award.points,
            "explanation": award.explanation,
        }
        for award in given
    ]
