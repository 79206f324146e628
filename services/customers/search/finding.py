"""Searches from end to end: stage after stage by relevance, or page after page by columns."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from libs import formats
from libs.audit import Reading
from libs.crypto import LiveVersions, TenantKeys
from libs.db import Tx
from libs.formats import Wrong
from services.customers.profiles import queries as profiles
from services.customers.search import queries, rules, tokens
from services.customers.search.ordering import Phase
from services.customers.search.queries import Scope, Tokens
from services.customers.search.rules import Level, Plan, Query

# By relevance no answer holds more.
MOST_RELEVANT = 200
# How many candidates one page of a list by columns may open before it ends early.
MOST_OPENED = 3_000
_IN_TEXT, _MISTYPED = "text", "mistyped"
# Below this many found, slips are looked for.
FEW_FOUND = 10
# A query of several parts with so many terms leaves few candidates: one look at the index is then enough.
MANY_TERMS = 5

Found = dict[UUID, tuple[Level, int, int, float, int]]
"""Whom a search found, with what they are ranked by: the least first."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What one search works with. `compared` are the kinds of data that the caller may search by."""

    tx: Tx
    keys: TenantKeys
    live: LiveVersions
    reading: Reading
    scope: Scope
    query: Query
    compared: frozenset[str]
    country: str

    @property
    def can_match(self) -> bool:
        """False if nothing that the caller may read could agree with every part of the query by its text."""
        texts = {rules.NAME, rules.EMAIL} & self.compared
        if self.query.words and not texts:
            return False
        if self.query.emails and rules.EMAIL not in self.compared:
            return False
        return not self.query.empty and bool(texts or {rules.NUMBER, rules.LAST_DIGITS} & self.compared)

    def plans(self, level: Level) -> list[Plan]:
        """The plans of a level, unless nothing could agree at it."""
        if not self.can_match or (level >= Level.ONE_EDIT and rules.NAME not in self.compared):
            return []
        return rules.plans(self.query, level)

    def tokens(self, plan: Plan) -> Tokens:
        """The tokens of a plan."""
        return Tokens.of(plan, tokens.with_version(self.keys, self.scope.key_version))


@dataclass(slots=True)
class Answer:
    """The ids of a page, in order. `position` is where the next page begins, None on the last one."""

    ids: list[UUID] = field(default_factory=list)
    position: list[Any] | None = None
    total: int = 0
    estimated: bool = False
    truncated: bool = False


async def by_relevance(looking: Looking, size: int) -> Answer:
    """The best `size` customers: those of a better stage first, then by similarity, then the newest.

    Of those with a slip, the first of each spelling comes before the second of any, and of those the frequent name.

    Stops as soon as the page is full. Mistyped names are looked for where fewer than ten were found, and names
    with two slips where nobody was.
    """
    found: Found = {}
    answer = Answer()
    contacts = _contacts(looking)
    exact = await _by_contact(looking, contacts)
    by_id = rules.EXTERNAL_ID in looking.compared and rules.looks_like_an_id(looking.query.text)
    if by_id and not (exact and contacts):
        exact += await _by_external_id(looking)
    for customer_id in exact:
        found[customer_id] = (Level.EXACT, 0, 0, 0.0, -customer_id.int)
    if not (found and contacts):
        answer.truncated = await _by_stages(looking, size, found)
    if not found and not by_id and rules.EXTERNAL_ID in looking.compared:
        for customer_id in await _by_external_id(looking):
            found[customer_id] = (Level.EXACT, 0, 0, 0.0, -customer_id.int)
    ranked = sorted(found, key=lambda customer_id: found[customer_id])
    answer.truncated |= len(ranked) > size
    answer.ids, answer.total, answer.estimated = ranked[:size], len(ranked), answer.truncated
    return answer


async def _by_stages(looking: Looking, size: int, found: Found) -> bool:
    """Fills `found` stage by stage; True if there may be more than it holds."""
    more = False
    if not await _at_once(looking, found):
        for level in (Level.WORDS, Level.PREFIX, Level.INSIDE):
            more |= await _stage(looking, size, found, level, (queries.FIRST_CANDIDATES, queries.CANDIDATES))
            if len(found) >= size:
                return True
    if len(found) < min(size, FEW_FOUND):
        limit = queries.EACH_SPELLING if looking.query.is_one_word else queries.CANDIDATES
        more |= await _stage(looking, size, found, Level.ONE_EDIT, (limit,))
    if not found:
        more |= await _stage(looking, size, found, Level.TWO_EDITS, (queries.LAST_CANDIDATES,))
    return more


async def _at_once(looking: Looking, found: Found) -> bool:
    """Does the first three levels in one, whose candidates are among those of the third; False if they are many."""
    query, plans = looking.query, looking.plans(Level.INSIDE)
    parts = len(query.words) + len(query.numbers) + len(query.emails)
    if parts < 2 or min((len(plan.all_of) for plan in plans), default=0) < MANY_TERMS:
        return False
    wanted = [looking.tokens(plan) for plan in plans]
    rows = await queries.candidates(looking.tx, looking.scope, wanted, queries.FIRST_CANDIDATES)
    if len(rows) >= queries.FIRST_CANDIDATES:
        return False
    _judge(looking, rows, Level.INSIDE, found, len(rows))
    return True


async def _stage(looking: Looking, size: int, found: Found, level: Level, limits: Iterable[int]) -> bool:
    """Adds those who agree at one level; asks for more candidates while the page has room and there may be some."""
    wanted = [looking.tokens(plan) for plan in looking.plans(level)]
    more = False
    for limit in limits if wanted else ():
        rows = await queries.candidates(looking.tx, looking.scope, wanted, limit)
        # Slips are all judged: which names there are, and which is frequent, is seen by all of them alone.
        most = len(rows) if level >= Level.ONE_EDIT else min(MOST_RELEVANT, max(5 * size, 50))
        enough = _judge(looking, rows, level, found, most)
        more = enough or len(rows) >= limit
        if not more or len(found) >= size:
            break
    return more


def _judge(looking: Looking, rows: Iterable[Any], level: Level, found: Found, enough: int) -> bool:
    """Opens candidates and keeps those that agree; True if it stopped with `enough` of them."""
    query, compared, keys, reading = looking.query, looking.compared, looking.keys, looking.reading
    most = len(found) + enough
    bearers: Counter[tuple[str, ...]] = Counter()
    meant: dict[UUID, tuple[str, ...]] = {}
    for row in rows:
        if row[0] in found:
            continue
        if len(found) >= most:
            return True
        person = rules.person_of(queries.opened(row, keys, reading), compared)
        agrees = rules.level_of(query, person, level)
        if agrees is not None:
            nth = 0
            if agrees >= Level.ONE_EDIT:
                # Which name was meant is not known: the first of each comes before the second of any.
                name = meant[row[0]] = rules.meant(query, person)
                nth, bearers[name] = bearers[name], bearers[name] + 1
            found[row[0]] = (agrees, nth, 0, -rules.similarity(query, person), -row[0].int)
    for customer_id, name in meant.items():
        agrees, nth, _, similarity, newest = found[customer_id]
        found[customer_id] = (agrees, nth, -bearers[name], similarity, newest)
    return False


async def _by_contact(looking: Looking, contacts: Iterable[tuple[str, str]]) -> list[UUID]:
    """Those at the business whom the query as a whole names by e-mail or phone."""
    named = [await profiles.holder(looking.tx, looking.keys, looking.live, *contact) for contact in contacts]
    ids = [each for each in named if each]
    return await queries.among(looking.tx, looking.scope, ids) if ids else []


def _contacts(looking: Looking) -> list[tuple[str, str]]:
    """The query as a whole e-mail or phone, where the caller may search by it."""
    query = looking.query
    try:
        if rules.EMAIL in looking.compared and len(query.emails) == 1 and not (query.words or query.numbers):
            return [("email", formats.email(query.text))]
        if rules.NUMBER in looking.compared and query.numbers and not (query.words or query.emails):
            return [("phone", formats.phone(query.text, looking.country))]
    except Wrong:
        pass
    return []


async def _by_external_id(looking: Looking) -> list[UUID]:
    here = looking.scope.business_id
    wanted = rules.external_key(here, looking.query.text)
    plan = Plan(frozenset(rules.external_terms(wanted)))
    rows = await queries.candidates(looking.tx, looking.scope, [looking.tokens(plan)], queries.CANDIDATES)
    if not rows:
        return []
    ids = [row[0] for row in rows]
    views = await profiles.many(looking.tx, looking.keys, looking.reading, ids, here)
    return [
        customer_id
        for customer_id, view in views.items()
        if any(rules.external_key(here, source.external_id) == wanted for source in view.standing.sources)
    ]


async def by_columns(
    looking: Looking, phases: Sequence[Phase], size: int, position: Sequence[Any] | None
) -> Answer:
    """A page of customers in the order of `phases`, after `position`."""
    if not looking.query.text:
        return await _filtered(looking, phases, size, position)
    how = position[0] if position else _IN_TEXT
    answer = await _matching(looking, phases, size, how, position[1:] if position else None)
    if position is None and not answer.ids and answer.position is None:
        answer = await _matching(looking, phases, size, _MISTYPED, None)
    return answer


async def _filtered(
    looking: Looking, phases: Sequence[Phase], size: int, position: Sequence[Any] | None
) -> Answer:
    rows: list[tuple[UUID, list[Any]]] = []
    at, after = (position[0], position[1:]) if position else (0, None)
    for i in range(at, len(phases)):
        wanted = size + 1 - len(rows)
        found = await queries.listed(looking.tx, looking.scope, phases[i], after, wanted)
        rows += [(customer_id, [i, *values]) for customer_id, values in found]
        if len(found) == wanted:
            break
        after = None
    answer = Answer([customer_id for customer_id, _ in rows[:size]])
    if len(rows) > size:
        answer.position = rows[size - 1][1]
    if position is None:
        answer.total, answer.estimated = await queries.total(looking.tx, looking.scope)
    return answer


async def _matching(
    looking: Looking, phases: Sequence[Phase], size: int, how: str, position: Sequence[Any] | None
) -> Answer:
    """A page of those whose text agrees. Opens more candidates than it shows, and ends early beyond 3,000."""
    level = Level.INSIDE if how == _IN_TEXT else Level.ONE_EDIT
    wanted = [looking.tokens(plan) for plan in looking.plans(level)]
    if how == _IN_TEXT and rules.EXTERNAL_ID in looking.compared:
        key = rules.external_key(looking.scope.business_id, looking.query.text)
        wanted.append(looking.tokens(Plan(frozenset(rules.external_terms(key)))))
    answer = Answer()
    if not wanted:
        return answer
    named = set[UUID]()
    if how == _IN_TEXT and rules.EXTERNAL_ID in looking.compared:
        named.update(await _by_external_id(looking))
    rows: list[tuple[UUID, list[Any]]] = []
    opened, candidates, full = 0, 0, False
    at, after = (int(position[0]), position[1:]) if position else (0, None)
    examined: list[Any] = []
    for i in range(at, len(phases)):
        more = True
        while more and not full:
            asked = min(MOST_OPENED, max(2 * size, 4 * opened))
            found = await queries.matching(looking.tx, looking.scope, wanted, phases[i], after, asked)
            more = len(found) == asked
            for row in found:
                candidates, after = row[5], row[6:]
                opened, examined = opened + 1, [how, i, *after]
                if row[0] in named or _agrees(looking, row, level):
                    rows.append((row[0], examined))
                if len(rows) > size or opened >= MOST_OPENED:
                    full = True
                    break
        if full:
            break
        after = None
    answer.ids = [customer_id for customer_id, _ in rows[:size]]
    answer.truncated = candidates >= queries.MOST_LISTED
    if len(rows) > size:
        answer.position = rows[size - 1][1]
    elif full:
        answer.position = examined
    if position is None:
        answer.estimated = full
        answer.total = round(candidates * len(rows) / max(opened, 1)) if full else len(rows)
    return answer


def _agrees(looking: Looking, row: Any, level: Level) -> bool:
    person = rules.person_of(queries.opened(row, looking.keys, looking.reading), looking.compared)
    return looking.can_match and rules.level_of(looking.query, person, level) is not None
