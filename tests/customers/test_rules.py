"""Rules of profiles, attributes and addresses: no database, no clock."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs import formats
from libs.formats import Wrong
from services.customers.addresses.rules import Place, formatted, normal, wrong_parts
from services.customers.businesses.rules import BOOLEAN, CHOICE, DATE, NUMBER, TEXT, AttributeDefinition
from services.customers.businesses.rules import attribute_value as value_of
from services.customers.profiles import rules
from services.customers.profiles.rules import Profile, Source, Standing

TODAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("given_as", "key"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        (" ann@example.com ", "ann@example.com"),
        ("JU\u0308RGEN@mu\u0308ller.de", "jürgen@xn--mller-kva.de"),
        ("a+b@example.com", "a+b@example.com"),
    ],
)
def test_emails_are_compared_in_one_form(given_as: str, key: str) -> None:
    assert formats.email(given_as) == key


@pytest.mark.parametrize(
    "bad", ["", "ann", "ann@", "@example.com", "ann@exa mple.com", "a@b", "ann@@example.com"]
)
def test_an_email_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(Wrong):
        formats.email(bad)


@pytest.mark.parametrize(
    ("given_as", "country", "e164"),
    [
        ("+1 (415) 555-2671", "", "+14155552671"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("0049 30 901820", "", "+4930901820"),
        ("030 901820", "DE", "+4930901820"),
        ("\uff0b81 3 1234 5678", "", "+81312345678"),
    ],
)
def test_phones_are_kept_in_one_form(given_as: str, country: str, e164: str) -> None:
    assert formats.phone(given_as, country) == e164


@pytest.mark.parametrize(("bad", "country"), [("555-2671", ""), ("12", "US"), ("+1 000", ""), ("abc", "DE")])
def test_a_phone_that_is_none_is_refused(bad: str, country: str) -> None:
    with pytest.raises(Wrong):
        formats.phone(bad, country)


@pytest.mark.parametrize(
    "bad", ["2026-11-22", "1899-12-31", "2025-02-29", "20250101", "01.02.2000", "2025-W01-1"]
)
def test_birth_dates_lie_between_1900_and_today(bad: str) -> None:
    with pytest.raises(Wrong):
        formats.birth_date(bad, TODAY)


def test_a_leap_day_is_a_birth_date() -> None:
    assert formats.birth_date("2024-02-29", TODAY) == "2024-02-29"


@pytest.mark.parametrize(
    ("given_as", "tag"),
    [
        ("EN", "en"),
        ("pt-br", "pt-BR"),
        ("ZH-hant-tw", "zh-Hant-TW"),
        ("es-419", "es-419"),
        ("sl-rozaj", "sl-rozaj"),
    ],
)
def test_language_tags_get_their_usual_case(given_as: str, tag: str) -> None:
    assert formats.language(given_as) == tag


@pytest.mark.parametrize("bad", ["english!", "e", "en_US", "x"])
def test_a_language_tag_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(Wrong):
        formats.language(bad)


def test_time_zones_and_countries_must_exist() -> None:
    assert formats.time_zone("Europe/Berlin") == "Europe/Berlin"
    assert formats.country("de") == "DE"
    for rule, bad in (
        (formats.time_zone, "Mars/Olympus"),
        (formats.time_zone, "../etc/passwd"),
        (formats.country, "XX"),
    ):
        with pytest.raises(Wrong):
            rule(bad)


tags = st.lists(st.text("abcABC ßéÉ", min_size=1, max_size=5).filter(str.strip), max_size=8)


@given(tags, tags)
def test_tags_are_each_there_once(old: list[str], new: list[str]) -> None:
    merged = rules.with_tags(old, new)
    keys = [rules.tag_key(tag) for tag in merged]
    assert len(keys) == len(set(keys))
    assert set(keys) == {rules.tag_key(tag) for tag in [*old, *new]}
    assert rules.with_tags(merged, new) == merged


@given(tags, st.text("abcABC", min_size=1, max_size=3))
def test_a_removed_tag_is_gone_in_every_case(had: list[str], gone: str) -> None:
    left = rules.without_tag(had, gone)
    assert rules.tag_key(gone) not in {rules.tag_key(tag) for tag in left}
    assert set(left) <= set(had)


profiles = st.builds(
    Profile,
    first_name=st.text(max_size=8),
    email=st.just("") | st.emails(),
    handles=st.dictionaries(st.sampled_from(["x", "telegram"]), st.text(min_size=1, max_size=5)),
    preferred_categories=st.lists(st.text(min_size=1), max_size=3).map(tuple),
)


@given(profiles)
def test_a_profile_survives_its_sealing(profile: Profile) -> None:
    assert Profile.of(profile.known()) == profile


def test_a_profile_of_a_newer_version_is_read() -> None:
    assert Profile.of({"first_name": "Ann", "shoe_size": 41}) == Profile(first_name="Ann")


def test_identifiers_tell_businesses_and_sources_apart() -> None:
    standing = Standing(1, 1, sources=(Source("shopify", "7"), Source("csv", "7"), Source("manual")))
    profile = Profile(email="Ann@Example.com", phone="+14155552671")
    found = rules.identifiers(profile, {"a": standing, "b": standing})
    assert len(found) == 6
    assert ("email", "ann@example.com") in found


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (TEXT, ["", "blue"], [1.0, True, "x" * 1001, "a\x00b"]),
        (NUMBER, [1, 2.5, -3], ["1", True, float("nan"), float("inf")]),
        (BOOLEAN, [True, False], [0, "true"]),
        (DATE, ["2024-02-29"], ["2023-02-29", 5, "yesterday"]),
        (CHOICE, ["red"], ["Red", 1, ""]),
    ],
)
def test_attributes_have_the_declared_type(type_: int, good: list[object], bad: list[object]) -> None:
    definition = AttributeDefinition("a", type_, choices=("red", "green"))
    for given_as in good:
        assert value_of(definition, given_as) == given_as
    for given_as in bad:
        with pytest.raises(Wrong):
            value_of(definition, given_as)


def test_whole_numbers_stay_whole() -> None:
    assert repr(value_of(AttributeDefinition("a", NUMBER), 3.0)) == "3"


BERLIN = Place(street_lines=("Platz der Republik 1",), city="Berlin", postal_code="11011", country="DE")


def test_an_address_is_written_as_its_country_does() -> None:
    assert wrong_parts(BERLIN) == {}
    assert formatted(normal(BERLIN)) == ["Platz der Republik 1", "11011 BERLIN", "GERMANY"]


def test_states_are_kept_as_codes() -> None:
    place = Place(
        street_lines=("1 Main St",),
        city="Mountain View",
        state="California",
        postal_code="94043",
        country="us",
    )
    assert wrong_parts(place) == {}
    assert (normal(place).state, normal(place).country) == ("CA", "US")


def test_everything_wrong_with_an_address_is_named_at_once() -> None:
    place = Place(postal_code="1", country="DE", latitude=1.0, time_zone="Mars/X")
    assert set(wrong_parts(place)) == {"street_lines", "city", "postal_code", "longitude", "time_zone"}


def test_a_country_is_required_and_must_exist() -> None:
    assert set(wrong_parts(Place(city="X"))) == {"country"}
    assert set(wrong_parts(Place(city="X", country="ZZ"))) == {"country"}
