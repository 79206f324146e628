"""What is indexed of a name, and that queries ask for it."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.crypto.search_tokens import SearchTokens
from services.customers.profiles.rules import Profile
from services.customers.search import rules
from services.customers.search.folding import fold, is_cjk, words
from services.customers.search.rules import BITS, Level, Person, level_of, plans, query_of

LETTERS = st.sampled_from(string.ascii_lowercase)
WORDS = st.text(LETTERS, min_size=4, max_size=20)
TOKENS = SearchTokens(bytes(32), BITS)
ANY_NAME = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


def known(profile: Profile) -> dict[str, str]:
    return {name: getattr(profile, name) for name in rules.SEARCHED}


def indexed(profile: Profile) -> set[rules.Term]:
    found = {term for word in rules.names_of(known(profile)) for term in rules.word_terms(word)}
    if profile.email:
        found |= set(rules.email_terms(fold(profile.email)))
    if profile.phone:
        found |= set(rules.phone_terms(profile.phone.lstrip("+")))
    return found


def candidate(profile: Profile, query: str, level: Level) -> bool:
    """Whether one of the plans of a level fetches the customer."""
    there = indexed(profile)
    return any(
        plan.all_of <= there and all(one & there for one in plan.any_of)
        for plan in plans(query_of(query), level)
    )


def found_at(profile: Profile, query: str) -> Level | None:
    """The first level that fetches the customer and finds that the query agrees."""
    asked, person = query_of(query), rules.person_of(known(profile))
    for level in list(Level)[1:]:
        if candidate(profile, query, level) and level_of(asked, person, level) is not None:
            return level
    return None


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str]:
    """A word of four letters and more, and what one slip of the fingers makes of it."""
    word = draw(WORDS)
    at = draw(st.integers(0, len(word) - 1))
    letter = draw(LETTERS)
    slip = draw(st.sampled_from(("drop", "add", "change", "swap")))
    if slip == "drop":
        return word, word[:at] + word[at + 1 :]
    if slip == "add":
        return word, word[:at] + letter + word[at:]
    if slip == "change":
        return word, word[:at] + letter + word[at + 1 :]
    return word, word[:at] + word[at : at + 2][::-1] + word[at + 2 :]


@given(edited())
def test_every_single_edit_of_a_word_is_a_candidate_of_the_typo_stage(pair: tuple[str, str]) -> None:
    word, typed = pair
    assert candidate(Profile(last_name=word), typed, Level.ONE_EDIT)


@given(edited(), edited())
def test_an_edit_in_each_word_is_found_in_any_order(one: tuple[str, str], two: tuple[str, str]) -> None:
    profile = Profile(first_name=one[0], last_name=two[0])
    level = found_at(profile, f"{two[1]} {one[1]}")
    assert level is not None
    assert level <= Level.ONE_EDIT


@given(st.lists(ANY_NAME, min_size=1, max_size=3))
def test_a_name_in_any_script_is_found_as_it_is_written(parts: list[str]) -> None:
    name = " ".join(parts)
    profile = Profile(full_name=name)
    wanted = [word for word in words(name) if len(word) > 1 or is_cjk(word)]
    typed = " ".join(wanted[:6])
    asked = query_of(typed)
    if not asked.words or asked.numbers:
        return
    assert found_at(profile, typed) in {Level.WORDS, Level.PREFIX}


@given(WORDS, st.integers(2, 10))
def test_beginnings_are_found(word: str, length: int) -> None:
    level = found_at(Profile(last_name=word), word[:length])
    assert level in {Level.WORDS, Level.PREFIX}


@given(WORDS, st.data())
def test_parts_are_found(word: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(word) - 3))
    end = data.draw(st.integers(start + 3, len(word)))
    level = found_at(Profile(last_name=word), word[start:end])
    assert level is not None
    assert level <= Level.INSIDE


@given(st.text(string.digits, min_size=8, max_size=15), st.data())
def test_any_four_digits_in_a_row_find_a_phone(digits: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(digits) - 4))
    end = data.draw(st.integers(start + 4, len(digits)))
    level = found_at(Profile(phone=f"+{digits}"), digits[start:end])
    assert level is not None
    assert level <= Level.INSIDE


@given(st.text(max_size=60))
def test_folding_is_done_once(text: str) -> None:
    assert words(" ".join(words(text))) == words(text)


@given(ANY_NAME)
def test_anything_can_be_asked_for(text: str) -> None:
    asked = query_of(text)
    for level in Level:
        plans(asked, level)
    level_of(asked, Person(("smith",), "a@b.example", "4155552671"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Müller", "MULLER"),
        ("Straße", "strasse"),
        ("Łukasz", "lukasz"),
        ("Ødegård", "odegard"),
        ("İpek Işık", "ipek isik"),
        ("Γιώργος", "giorgos"),
        ("Пётр Чайковский", "petr chaykovskiy"),
        ("Юрій", "yuriy"),
        ("Nguyễn Văn Đức", "nguyen van duc"),
        ("ｶﾀｶﾅ", "カタカナ"),
        ("カタカナ", "かたかな"),
        ("D'Angelo", "d’angelo"),
        ("أحمد", "احمد"),
        ("Ａｎｎａ", "anna"),
    ],
)
def test_case_accents_and_scripts_make_no_difference(one: str, other: str) -> None:
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("text", "asked_words", "numbers", "emails"),
    [
        ("Ann Example", ("ann", "example"), (), ()),
        ("(415) 555-2671", (), ("4155552671",), ()),
        ("+49 171 23 45", (), ("491712345",), ()),
        ("0171 2345", (), ("1712345",), ()),
        ("0049171", (), ("49171",), ()),
        ("0123", (), ("0123",), ()),
        ("smith 2671", ("smith",), ("2671",), ()),
        ("john85", ("john85",), (), ()),
        ("415", ("415",), (), ()),
        ("Zoë@Example.com", (), (), ("zoe@example.com",)),
        ("ann @example.com", ("ann",), (), ("@example.com",)),
        ("!!", (), (), ()),
    ],
)
def test_a_query_is_taken_apart(
    text: str, asked_words: tuple[str, ...], numbers: tuple[str, ...], emails: tuple[str, ...]
) -> None:
    asked = query_of(text)
    assert (asked.words, asked.numbers, asked.emails) == (asked_words, numbers, emails)


def test_who_may_see_the_last_digits_alone_finds_by_them_and_by_no_others() -> None:
    profile = Profile(last_name="Smith", phone="+14155552671")
    person = rules.person_of(known(profile), frozenset({rules.NAME, rules.LAST_DIGITS}))
    assert level_of(query_of("2671"), person) == Level.WORDS
    assert level_of(query_of("smith 2671"), person) == Level.WORDS
    assert level_of(query_of("5552"), person) is None
    assert level_of(query_of("52671"), person) is None


def test_what_is_masked_agrees_with_nothing() -> None:
    profile = Profile(first_name="Ann", last_name="Lee", email="ann.lee@a.example", phone="+14155552671")
    person = rules.person_of(known(profile), frozenset({rules.EXTERNAL_ID}))
    for query in ("ann", "lee", "ann.lee@a.example", "@a.example", "2671", "anm"):
        assert level_of(query_of(query), person) is None
    names_only = rules.person_of(known(profile), frozenset({rules.NAME}))
    assert level_of(query_of("ann@"), names_only) is None
    assert level_of(query_of("ann"), names_only) == Level.WORDS


def test_tokens_differ_by_key_and_space_and_are_few() -> None:
    other = SearchTokens(bytes(31) + b"\x01", BITS)
    made = {TOKENS.token(rules.GRAM, f"{i:05}") for i in range(40_000)}
    assert len(made) <= 2 ** BITS[rules.GRAM]
    assert not made & {TOKENS.token(rules.TYPO, f"{i:05}") for i in range(1_000)}
    assert len(made & {other.token(rules.GRAM, f"{i:05}") for i in range(40_000)}) <= 2
    assert TOKENS.of(rules.word_terms, "smith") == TOKENS.of(rules.word_terms, "smith")
    assert all(-(2**31) <= token < 2**31 for token in made)
    cities = {TOKENS.token(rules.CITY, f"{i:05}") for i in range(2_000)}
    assert len(cities) == 2_000
