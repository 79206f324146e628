"""The quick way to phones answers as the library does, or not at all."""

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs import phones

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
FORMS = (
    phonenumbers.PhoneNumberFormat.E164,
    phonenumbers.PhoneNumberFormat.INTERNATIONAL,
    phonenumbers.PhoneNumberFormat.NATIONAL,
)


def by_library(text: str, country: str) -> str | None:
    try:
        number = phonenumbers.parse(text, country or None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str]:
    """A phone near to valid ones of some country, and the country that it is read in."""
    region = draw(st.sampled_from(REGIONS))
    kind = draw(st.sampled_from((0, 1, 2, 3, 4, 6)))
    example = phonenumbers.example_number_for_type(region, kind) or phonenumbers.example_number(region)
    if example is None:
        return "", region
    text = list(phonenumbers.format_number(example, draw(st.sampled_from(FORMS))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text) - 1))
        if text[at].isdigit():
            text[at] = draw(st.sampled_from("0123456789"))
    added = draw(st.sampled_from(("", "", "0", "1", "00")))
    return added + "".join(text) + draw(st.sampled_from(("", "", "7"))), draw(
        st.sampled_from((region, "DE", "US", ""))
    )


@settings(max_examples=500, deadline=None)
@given(written())
def test_what_is_told_quickly_is_what_the_library_tells(phone: tuple[str, str]) -> None:
    told = phones.quick(*phone)
    assert told is None or told == by_library(*phone)


@pytest.mark.parametrize(
    ("text", "country", "told"),
    [
        ("+49 30 12345678", "", "+493012345678"),
        ("030 12345678", "DE", "+493012345678"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("+4930123456789012345", "", None),
        ("030 12345678", "", None),
        ("030/12345678", "DE", None),
    ],
)
def test_usual_forms_are_told_quickly(text: str, country: str, told: str | None) -> None:
    assert phones.quick(text, country) == told
