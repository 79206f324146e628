"""Phones in usual forms, told quickly, with the same answers as the phonenumbers library."""

import re
from collections.abc import Callable
from functools import cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

_PLAIN = re.compile(r"\+?[0-9(][0-9 ().-]*[0-9]", re.ASCII)
_DROPPED = str.maketrans("", "", " ().-")
_TYPES = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "voip", "personal_number")
_OTHER_TYPES = ("pager", "uan", "voicemail")
_REGION = re.compile(r"[A-Z]{2}", re.ASCII)

Judge = Callable[[str], bool]


def quick(text: str, country: str) -> str | None:
    """The E.164 form of a valid phone in a usual form; None where the library must tell (also if it is wrong)."""
    if not _PLAIN.fullmatch(text):
        return None
    digits = text.translate(_DROPPED)
    if digits.startswith("+"):
        return digits if _is_valid(digits[1:]) else None
    if not _REGION.fullmatch(country):
        return None
    national = _national(country)
    return national(digits) if national else None


def _is_valid(digits: str) -> bool:
    """True if country code and number are valid as they stand, so that nothing is to be taken off or added."""
    if digits[:1] in ("", "0"):
        return False
    for length in (1, 2, 3):
        code = int(digits[:length])
        if code in COUNTRY_CODE_TO_REGION_CODE:
            judge = _of_code(code)
            return judge is not None and judge(digits[length:])
    return False


@cache
def _of_code(code: int) -> Judge | None:
    regions = COUNTRY_CODE_TO_REGION_CODE[code]
    if "001" in regions:
        return None
    found = [PhoneMetadata.metadata_for_region(region, None) for region in regions]
    main = found[0]
    if main is None or None in found:
        return None
    prefix = re.compile(main.national_prefix_for_parsing or r"(?!)")
    judges = [
        (re.compile(each.leading_digits) if each.leading_digits else None, _judge(each))
        for each in found
        if each
    ]
    alone = len(judges) == 1

    def judge(number: str) -> bool:
        if number[:1] in ("", "0") or prefix.match(number):
            return False
        for leading, valid in judges:
            if alone or leading is None:
                if valid(number):
                    return True
            elif leading.match(number):
                return valid(number)
        return False

    return judge


def _judge(region: PhoneMetadata) -> Judge:
    """True for the national numbers that some type of line of the region has."""
    general = _of_description(region.general_desc)
    types = [_of_description(getattr(region, name)) for name in (*_TYPES, *_OTHER_TYPES)]

    def judge(number: str) -> bool:
        return general(number) and any(each(number) for each in types)

    return judge


def _of_description(description: object) -> Judge:
    pattern = getattr(description, "national_number_pattern", None)
    lengths = frozenset(getattr(description, "possible_length", ()))
    if not pattern:
        return lambda _: False
    match = re.compile(pattern).fullmatch

    def judge(number: str) -> bool:
        return (not lengths or len(number) in lengths) and match(number) is not None

    return judge


@cache
def _national(country: str) -> Callable[[str], str | None] | None:
    """What tells the E.164 form of national digits, or None where the country's numbers have rules of their own."""
    region = PhoneMetadata.metadata_for_region(country, None)
    if region is None or not region.country_code or region.general_desc is None:
        return None
    prefix = region.national_prefix_for_parsing or ""
    if prefix and (not prefix.isdigit() or region.national_prefix_transform_rule):
        return None
    code = str(region.country_code)
    valid = _of_code(region.country_code)
    here, general = _judge(region), _of_description(region.general_desc)
    idd = re.compile(region.international_prefix or r"(?!)")
    if valid is None:
        return None

    def national(digits: str) -> str | None:
        if digits.startswith(code) or idd.match(digits):
            return None
        number = digits
        if prefix and digits.startswith(prefix):
            number = digits[len(prefix) :]
            if general(digits):
                return None
        if number[:1] in ("", "0") or (prefix and number.startswith(prefix)):
            return None
        return f"+{code}{number}" if here(number) and valid(number) else None

    return national
