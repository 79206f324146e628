"""What a search finds: the terms of a customer, the terms that a query asks for, and how well the two agree."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from services.customers.search.folding import fold, is_cjk, words

# Spaces of terms, and the bits of their tokens: few for what names share, so that counting says little of names.
GRAM, TYPO, PHONE, EXTERNAL, CITY = "g", "d", "p", "x", "c"
BITS: Final = {GRAM: 12, TYPO: 16, PHONE: 12, EXTERNAL: 16, CITY: 32}
Term = tuple[str, str]
# Fields of a profile that have terms.
SEARCHED = ("first_name", "last_name", "full_name", "email", "phone")

LEAST_DIGITS = 4
LEAST_TYPO = 4
MOST_TYPO_LETTERS = 32
_MOST_WORDS = 12
_NUMBER = re.compile(r"(?<![\w@.])[+(]*\d(?:[\s().\-/]*\d){3,}(?![\w@])")
_NOT_DIGITS = re.compile(r"\D+")


class Level(IntEnum):
    """How a query agrees with a customer, best first."""

    EXACT = 0
    WORDS = 1
    PREFIX = 2
    INSIDE = 3
    ONE_EDIT = 4
    TWO_EDITS = 5


# --- what is indexed ---------------------------------------------------------------------------------------


def word_terms(word: str) -> Iterator[Term]:
    """The terms of one folded word of a name: its parts, and what is left of it without one letter."""
    for gram in _grams(f"^{word}$", _size(word)):
        yield GRAM, gram
    for rest in deletes(word):
        yield TYPO, rest


def email_terms(email: str) -> Iterator[Term]:
    """The terms of a folded e-mail."""
    local, at, domain = email.rpartition("@")
    for gram in _grams(f"^{local}{at}", 3):
        yield GRAM, gram
    yield GRAM, f"@{domain}"


def phone_terms(digits: str) -> Iterator[Term]:
    """The terms of a phone's digits: every four in a row, and the last four."""
    for i in range(len(digits) - LEAST_DIGITS + 1):
        yield PHONE, digits[i : i + LEAST_DIGITS]
    yield PHONE, f"{digits[-LEAST_DIGITS:]}$"


def external_terms(key: str) -> Iterator[Term]:
    """The one term of `external_key`."""
    yield EXTERNAL, key


def city_terms(city: str) -> Iterator[Term]:
    """The one term of a city."""
    yield CITY, " ".join(words(city))


def external_key(business_id: object, external_id: str) -> str:
    """What an external id is found by, whatever its source: it is one business's."""
    return f"{business_id}\x1f{external_id.strip().casefold()}"


def looks_like_an_id(text: str) -> bool:
    """True for texts that are rather an id of another system than a name."""
    return " " not in text and any(c.isdigit() or c == "_" for c in text)


def deletes(word: str) -> set[str]:
    """The word, and from four letters on what is left of it without one of them.

    Two words share one of these if one edit makes them equal: a letter added, dropped, changed, or swapped with
    its neighbour. Source: SymSpell.
    """
    found = {word}
    if LEAST_TYPO <= len(word) <= MOST_TYPO_LETTERS:
        found |= {word[:i] + word[i + 1 :] for i in range(len(word))}
    return found


def _size(word: str) -> int:
    return 2 if is_cjk(word) else 3


def _grams(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(len(text) - size + 1)]


# --- what is asked for -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """What a person typed. `words` folded; `numbers` are digits that may be a phone's; `emails` parts with "@"."""

    text: str
    words: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """True if nothing is left to look for."""
        return not (self.words or self.numbers or self.emails)

    @property
    def is_one_word(self) -> bool:
        """True for a word of a name and nothing else."""
        return len(self.words) == 1 and not self.numbers and not self.emails

    @property
    def joined(self) -> str:
        """All of it, for similarity."""
        return " ".join((*self.words, *self.numbers, *self.emails))


def query_of(text: str) -> Query:
    """What a text asks for."""
    emails = tuple(fold(part) for part in text.split() if "@" in part)
    rest = " ".join(part for part in text.split() if "@" not in part)
    numbers: list[str] = []

    def take(found: re.Match[str]) -> str:
        numbers.append(_significant(found[0]))
        return " "

    rest = _NUMBER.sub(take, rest)
    return Query(text.strip(), words(rest)[:_MOST_WORDS], tuple(numbers), emails)


def _significant(number: str) -> str:
    """The digits without the zeros that are dialled before a number, unless that leaves too few."""
    digits = _NOT_DIGITS.sub("", number)
    short = digits.lstrip("0")
    return short if len(digits) > LEAST_DIGITS and len(short) >= LEAST_DIGITS else digits


@dataclass(frozen=True, slots=True)
class Plan:
    """Which candidates to fetch: those with all terms of `all_of`, and of each of `any_of` at least one."""

    all_of: frozenset[Term]
    any_of: tuple[frozenset[Term], ...] = ()


def plans(query: Query, level: Level) -> list[Plan]:
    """The plans whose candidates hold every customer that agrees with the query at this level.

    At the last level most of them. Empty if the query has nothing to be found by at this level.
    """
    if level in {Level.WORDS, Level.PREFIX, Level.INSIDE}:
        found = [_plain(query, level, as_text=False)]
        if level == Level.INSIDE and query.numbers:
            found.append(_plain(query, level, as_text=True))
    elif level == Level.ONE_EDIT:
        found = _one_edit(query)
    else:
        found = _two_edits(query) if level == Level.TWO_EDITS else []
    return list(dict.fromkeys(plan for plan in found if plan.all_of or plan.any_of))


def _plain(query: Query, level: Level, *, as_text: bool) -> Plan:
    terms: set[Term] = set()
    for word in query.words:
        terms |= _part_of_word(word, level)
    for email in query.emails:
        terms |= _part_of_email(email, level)
    for digits in query.numbers:
        if as_text:
            terms |= {(GRAM, gram) for gram in _grams(digits, 3)}
        elif level == Level.INSIDE:
            terms |= {(PHONE, digits[i : i + LEAST_DIGITS]) for i in range(len(digits) - LEAST_DIGITS + 1)}
        else:
            terms |= set(phone_terms(digits))
    return Plan(frozenset(terms))


def _part_of_word(word: str, level: Level) -> set[Term]:
    size = _size(word)
    if level == Level.WORDS:
        text = f"^{word}$"
    elif level == Level.PREFIX or len(word) < size:
        text = f"^{word}"
    else:
        text = word
    return {(GRAM, gram) for gram in _grams(text, size)}


def _part_of_email(email: str, level: Level) -> set[Term]:
    local, _, domain = email.rpartition("@")
    text = f"{local}@" if level == Level.INSIDE else f"^{local}@"
    found = {(GRAM, gram) for gram in _grams(text, 3)} if local else set()
    if domain and (level == Level.WORDS or not local):
        found.add((GRAM, f"@{domain}"))
    return found


def _one_edit(query: Query) -> list[Plan]:
    """All words mistyped; or one of them the beginning of a word, and the others mistyped.

    For a word alone a plan for each letter that it or the name may lack: candidates are few of very many, and so the
    bearers of a frequent name do not crowd out all others.
    """
    tolerant = [
        word for word in query.words if len(word) >= LEAST_TYPO - 1 and len(word) <= MOST_TYPO_LETTERS
    ]
    if not tolerant:
        return []
    if query.is_one_word:
        return [Plan(frozenset({(TYPO, rest)})) for rest in sorted(deletes(tolerant[0]))]
    others = Query(
        query.text, tuple(w for w in query.words if w not in tolerant), query.numbers, query.emails
    )
    sure = _plain(others, Level.PREFIX, as_text=False).all_of
    found = [Plan(sure, _mistyped(tolerant))]
    if len(query.words) > 1:
        for i, begun in enumerate(tolerant[:3]):
            rest = [word for at, word in enumerate(tolerant) if at != i]
            found.append(Plan(sure | _part_of_word(begun, Level.PREFIX), _mistyped(rest)))
    return [plan for plan in found if plan.any_of]


def _mistyped(tolerant: Iterable[str]) -> tuple[frozenset[Term], ...]:
    longest = sorted(set(tolerant), key=lambda word: (-len(word), word))[:3]
    return tuple(frozenset((TYPO, rest) for rest in deletes(word)) for word in longest)


def _two_edits(query: Query) -> list[Plan]:
    """Some part of a word, beside another with one edit at most; a single word with two letters less."""
    slipped = sorted(
        {w for w in query.words if LEAST_TYPO < len(w) <= MOST_TYPO_LETTERS}, key=lambda w: (-len(w), w)
    )
    if len(query.words) == 1 and slipped:
        word = slipped[0]
        twice = {rest for once in deletes(word) for rest in deletes(once)}
        return [Plan(frozenset(), (frozenset((TYPO, rest) for rest in twice),))]
    found = []
    for word in slipped[:2]:
        for other in sorted({w for w in query.words if w != word}, key=lambda w: (-len(w), w))[:1]:
            near = frozenset((TYPO, rest) for rest in deletes(other))
            found.append(Plan(frozenset(), (near, _parts(word))))
    return found


def _parts(word: str) -> frozenset[Term]:
    return frozenset((GRAM, gram) for gram in _grams(f"^{word}$", _size(word)))


# --- how well they agree -----------------------------------------------------------------------------------

NAME, EMAIL, NUMBER, LAST_DIGITS, EXTERNAL_ID = "name", "email", "phone", "phone_last_digits", "sources"
EVERYTHING = frozenset((NAME, EMAIL, NUMBER, LAST_DIGITS, EXTERNAL_ID))


@dataclass(frozen=True, slots=True)
class Person:
    """A customer as a query sees them: what is compared, folded."""

    names: tuple[str, ...] = ()
    email: str = ""
    digits: str = ""
    last_digits: str = ""


def person_of(known: Mapping[str, str], compared: frozenset[str] = EVERYTHING) -> Person:
    """The parts of a profile that may be compared. `known` by the names of its fields; unknown ones are left out."""
    digits = known.get("phone", "").lstrip("+")
    return Person(
        names_of(known) if NAME in compared else (),
        fold(known.get("email", "")) if EMAIL in compared else "",
        digits if NUMBER in compared else "",
        digits[-LEAST_DIGITS:] if LAST_DIGITS in compared else "",
    )


def names_of(known: Mapping[str, str]) -> tuple[str, ...]:
    """The words of all names, each once."""
    first, last = known.get("first_name", ""), known.get("last_name", "")
    found = words(f"{first} {last} {known.get('full_name', '')}")
    if is_cjk(first[:1]) and is_cjk(last[:1]):
        found = (*found, *words(f"{last}{first}"))  # as it is written: 王小明
    return tuple(dict.fromkeys(found))


def level_of(query: Query, person: Person, worst: Level = Level.TWO_EDITS) -> Level | None:
    """How the query agrees with a customer: as its worst part does. None if it does not, or worse than `worst`."""
    level: int = Level.WORDS
    for email in query.emails:
        level = max(level, _email_level(email, person.email))
    for digits in query.numbers:
        level = max(level, _number_level(digits, person))
    for word in query.words:
        if level > worst:
            return None
        level = max(level, _word_level(word, person, worst))
    return Level(level) if level <= worst else None


_NOT_AT_ALL = Level.TWO_EDITS + 1


def _email_level(email: str, theirs: str) -> int:
    if not theirs or email not in theirs:
        return _NOT_AT_ALL
    if email == theirs:
        return Level.WORDS
    if theirs.startswith(email) or (email.startswith("@") and theirs.endswith(email)):
        return Level.PREFIX
    return Level.INSIDE


def _number_level(digits: str, person: Person) -> int:
    theirs = person.digits or person.last_digits
    if theirs and (theirs == digits or (person.digits and theirs.endswith(digits))):
        return Level.WORDS
    if person.digits and digits in person.digits:
        return Level.INSIDE
    return Level.INSIDE if digits in person.email or any(digits in n for n in person.names) else _NOT_AT_ALL


def _word_level(word: str, person: Person, worst: int) -> int:
    names = person.names
    if word in names:
        return Level.WORDS
    local = person.email.rpartition("@")[0]
    if any(name.startswith(word) for name in names) or local.startswith(word):
        return Level.WORDS if word == local else Level.PREFIX
    if len(word) >= _size(word) and (word in local or any(word in name for name in names)):
        return Level.INSIDE
    if worst < Level.ONE_EDIT or len(word) < LEAST_TYPO - 1:
        return _NOT_AT_ALL
    long_enough = [name for name in names if max(len(name), len(word)) >= LEAST_TYPO]
    edits = min((OSA.distance(word, name, score_cutoff=2) for name in long_enough), default=3)
    if edits <= 1:
        return Level.ONE_EDIT
    return Level.TWO_EDITS if edits == 2 and len(word) > LEAST_TYPO else _NOT_AT_ALL


def meant(query: Query, person: Person) -> tuple[str, ...]:
    """The words of the name that the words of a query are nearest to."""
    return tuple(
        min(person.names, key=lambda name: OSA.distance(word, name), default="") for word in query.words
    )


def similarity(query: Query, person: Person) -> float:
    """How much of the customer the query says, 0 to 100: words in any order, the whole name best."""
    best: float = fuzz.token_sort_ratio(query.joined, " ".join(person.names)) if person.names else 0.0
    if person.email and (query.emails or not best):
        best = max(best, fuzz.ratio(query.joined, person.email))
    return best
