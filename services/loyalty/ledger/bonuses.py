"""What occasions besides orders give, worked in once each: sign-up, birthday, complete profile, review, activity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select

from libs.db import Tx
from services.loyalty.ledger import queries, reading, writing
from services.loyalty.ledger.tables import awards
from services.loyalty.ledger.work import (
    NO_RULE,
    Work,
    known_members,
    look,
    note_awards,
    reasons,
    save,
    tier_of,
    tier_said,
)
from services.loyalty.ledger.writing import Member
from services.loyalty.programs import queries as programs_queries
from services.loyalty.programs import rules as earning
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import Award, Context
from services.loyalty.tiers import queries as tiers_queries
from services.loyalty.tiers.rules import Ladder

# Given once in each year, by the rules of the day: one that was made later pays for nothing that was before.
YEARLY = (earning.BIRTHDAY, earning.ANNIVERSARY)

_w = awards.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Something besides orders that a bonus may be given for. `key` tells it from others of its member."""

    business_id: UUID
    customer_id: UUID
    trigger: str
    key: str
    at: datetime
    event: str = ""


async def work_in_occasions(tx: Tx, occasions: Sequence[Occasion]) -> None:
    """Gives the bonuses of occasions, each once. Emits PointsEarned.

    A business that was not heard of yet had no rules for them then. Raises NotYet for an unknown customer.
    """
    await tx.execute(writing.BY_KEY)
    programs = {
        business_id: [
            programs_queries.program_of(row) for row in await programs_queries.of_business(tx, business_id)
        ]
        for business_id in sorted({each.business_id for each in occasions})
    }
    by_id = {program.program_id: program for each in programs.values() for program in each}
    yearly = [each.at for each in occasions if each.trigger in YEARLY]
    since = min([tx.now, *yearly]) if yearly else None
    of_program = {program_id: await programs_queries.rule_book(tx, program_id, since) for program_id in by_id}
    given_by_tier = {
        program_id
        for program_id in by_id
        if any(each.trigger == earning.BIRTHDAY for each in occasions)
        and any(tier.birthday_points for tier in (await tiers_queries.ladder(tx, program_id)).tiers)
    }
    due = [
        (program, each)
        for each in occasions
        for program in programs[each.business_id]
        if any(rule.terms.get("trigger") == each.trigger for rule in of_program[program.program_id].now)
        or (each.trigger == earning.BIRTHDAY and program.program_id in given_by_tier)
    ]
    if not due:
        return
    members = await known_members(tx, {(each.business_id, each.customer_id) for _, each in due})
    wanted = {(program.program_id, each.customer_id) for program, each in due}
    opened = await writing.open_accounts(tx, wanted, by_id)
    books = await reading.books(tx, opened.values(), by_id, lock=True)
    work = Work(by_id, of_program, opened, books, members, {}, {}, {}, {}, {}, {})
    await look(tx, work)
    ladders = await _ladders_of_then(tx, [each for each in due if each[1].trigger == earning.BIRTHDAY])
    done = await _done(tx, opened, due)
    days = [each.at.astimezone(program.zone).date() for program, each in due]
    capped = [rule for each in of_program.values() for rule in each.now]
    for row in await queries.given_before(tx, list(opened.values()), capped, min(days), max(days)):
        days_of = work.given.setdefault(row.account_id, {}).setdefault(str(row.rule_id), {})
        days_of[row.local_day] = int(row.points)
    for program, each in due:
        _celebrate(work, program, each, done, _then(tx.now, program, each), ladders)
    await save(tx, work)


def _then(now: datetime, program: Program, each: Occasion) -> datetime:
    """As of when a yearly occasion is judged, however late: the end of its day, or now while the day lasts."""
    following = each.at.astimezone(program.zone).date() + timedelta(days=1)
    return min(now, earning.beginning(following, program.zone) - timedelta(microseconds=1))


async def _ladders_of_then(
    tx: Tx, birthdays: Sequence[tuple[Program, Occasion]]
) -> dict[tuple[UUID, datetime], Ladder]:
    """The tiers of each program as they were on the days of birthdays."""
    wanted = {(program.program_id, _then(tx.now, program, each)) for program, each in birthdays}
    return {key: await tiers_queries.ladder(tx, key[0], at=key[1]) for key in sorted(wanted)}


async def _done(
    tx: Tx, opened: Mapping[Member, UUID], due: Sequence[tuple[Program, Occasion]]
) -> set[tuple[UUID, str, UUID]]:
    """What was given before: (program, source, rule). What a merge brought along counts as the survivor's own."""
    keys = {each.key for _, each in due}
    sources = {f"{each.key}:{opened[program.program_id, each.customer_id]}" for program, each in due}
    same: ColumnElement[bool] = _w.source.in_(sources)
    yearly = [key for key in keys if key.startswith(("birthday:", "anniversary:"))]
    if yearly:
        brought = or_(*(_w.source.startswith(f"{key}:") for key in yearly))
        same = or_(same, and_(_w.account_id.in_(opened.values()), brought))
    known = select(_w.program_id, _w.source, _w.rule_id, _w.account_id).where(
        _w.tenant_id == tx.tenant_id,
        _w.program_id.in_({program.program_id for program, _ in due}),
        same,
    )
    found = set()
    for row in await tx.execute(known):
        key = row.source.rpartition(":")[0]
        found.add((row.program_id, f"{key}:{row.account_id}", row.rule_id))
    return found


def _celebrate(
    work: Work,
    program: Program,
    each: Occasion,
    done: set[tuple[UUID, str, UUID]],
    then: datetime,
    ladders: Mapping[tuple[UUID, datetime], Ladder],
) -> None:
    account_id = work.accounts[program.program_id, each.customer_id]
    source, day = f"{each.key}:{account_id}", each.at.astimezone(program.zone).date()
    given: list[Award] = []
    rule_book = work.rules[program.program_id]
    for rule in rule_book.at(then) if each.trigger in YEARLY else rule_book.now:
        if (program.program_id, source, rule.rule_id) in done:
            continue
        months = work.given.get(account_id, {}).get(str(rule.rule_id), {})
        context = Context(
            **tier_said(work, program, account_id),
            segment_ids=work.segments.get((each.business_id, each.customer_id), frozenset()),
            given_day={str(rule.rule_id): months.get(day, 0)},
            given_month={
                str(rule.rule_id): sum(
                    points for on, points in months.items() if (on.year, on.month) == (day.year, day.month)
                )
            },
            refused=queries.refusal(work.members[each.business_id, each.customer_id], program),
        )
        award = earning.occasion_award(rule, each.trigger, each.at, context, program.zone, each.event)
        if award is not None:
            given.append(award)
            done.add((program.program_id, source, rule.rule_id))
    refused = queries.refusal(work.members[each.business_id, each.customer_id], program)
    if each.trigger == earning.BIRTHDAY and not refused:
        tier = ladders[program.program_id, then].tier(tier_of(work, program, account_id).name)
        if tier.birthday_points and (program.program_id, source, NO_RULE) not in done:
            done.add((program.program_id, source, NO_RULE))
            given.append(Award(None, tier.name, tier.birthday_points, f"for the birthday, as {tier.name}"))
    if given:
        book = work.books[account_id]
        book.earn(
            sum(award.points for award in given),
            available_at=book.now,
            expires_at=earning.expires_at(program.settings, book.now, program.zone),
            source=each.key,
            reasons=reasons(given),
        )
        note_awards(work, program, account_id, source, day, given)
