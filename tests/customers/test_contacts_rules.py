"""When two customers agree, and what is too little to tell."""

import pytest

from services.customers.addresses.rules import Place
from services.customers.contacts import rules
from services.customers.profiles.rules import Profile, referral_code


def agree(one: Profile, other: Profile, places: tuple[list[Place], list[Place]] = ([], [])) -> list[int]:
    return rules.agreements(
        rules.traces(one, places[0], frozenset()), rules.traces(other, places[1], frozenset())
    )


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (Profile(email="ann.lee+gift@gmail.com"), Profile(email="AnnLee@googlemail.com"), [rules.EMAIL]),
        (Profile(email="ann.lee@example.com"), Profile(email="annlee@example.com"), []),
        (Profile(email="+@example.com"), Profile(email="ann@example.com"), []),
        (Profile(phone="+14155550132"), Profile(handles={"whatsapp": "1 (415) 555-0132"}), [rules.PHONE]),
        (Profile(), Profile(), []),
        (
            Profile(first_name="José", last_name="Núñez", born_on="1990-01-02"),
            Profile(full_name="nunez JOSE", born_on="1990-01-02"),
            [rules.NAME_AND_BIRTH_DATE],
        ),
        (Profile(first_name="Ann"), Profile(first_name="Ann"), []),
        (Profile(born_on="1990-01-02"), Profile(born_on="1990-01-02"), []),
    ],
)
def test_two_profiles(one: Profile, other: Profile, found: list[int]) -> None:
    assert agree(one, other) == agree(other, one) == found


def test_two_addresses() -> None:
    def at(street: str, postal_code: str = "10005", city: str = "New York") -> Place:
        return Place(street_lines=(street,), postal_code=postal_code, city=city, country="US")

    home = at("12 Wall Street")
    for other in (at("12, WALL street."), at("12 Wall Street", city="NYC")):
        assert agree(Profile(), Profile(), ([home], [at("1 Elm St"), other])) == [rules.ADDRESS]
    for other in (at("13 Wall Street"), at("12 Wall Street", "10006"), at("", "10005")):
        assert agree(Profile(), Profile(), ([home, at("")], [other])) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("r27f-y75 pjv", "R27FY75PJV"),
        ("R27FY75PJ", ""),
        ("X27FY75PJV", ""),
        ("R27FY75PJU", ""),
        ("ann@example.com", ""),
        ("+1 415 555 0132", ""),
        ("", ""),
    ],
)
def test_only_what_can_be_a_code_goes_on(given: str, found: str) -> None:
    assert referral_code(given) == found
