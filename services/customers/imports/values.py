"""What people write in cells, read as what it means: dates, amounts, yes and no, statuses, languages."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from uuid import UUID

from libs import formats
from libs.formats import Wrong
from libs.money import MINOR_DIGITS
from services.customers.businesses.rules import (
    BOOLEAN,
    CHOICE,
    DATE,
    NUMBER,
    AttributeDefinition,
    attribute_value,
)
from services.customers.exports.rules import unguarded
from services.customers.imports import places
from services.customers.imports.countries import country as country_code
from services.customers.imports.reading import Number
from services.customers.imports.words import (
    BOOLEANS,
    CUSTOMER_STATUSES,
    CUSTOMER_TYPES,
    LANGUAGES,
    MONTHS,
    ORDER_STATUSES,
)

YMD, DMY, MDY = "YMD", "DMY", "MDY"
MOST_MINOR = 10**15
MOST_TAGS_SHOWN = 20
_SHAPES = {
    YMD: "YYYY-MM-DD",
    DMY: "YYYY-MM-DD or DD.MM.YYYY",
    MDY: "YYYY-MM-DD or MM/DD/YYYY",
    "": "YYYY-MM-DD, or with the month as a word",
}


class CellWrong(Exception):
    """A cell that does not hold what its column does; never holds the cell's text."""

    def __init__(self, reason: str, expected: str) -> None:
        super().__init__(expected)
        self.reason, self.expected = reason, expected


Reader = Callable[[str], object]

# --- text ---


def text(most: int) -> Reader:
    """Reads a line of at most so many characters. An apostrophe that an export put before a formula is taken away."""

    def read(given: str) -> str:
        try:
            found = formats.line(unguarded(given))
        except Wrong as wrong:
            raise CellWrong("FORMAT_LINE", str(wrong)) from None
        if len(found) > most > 0:
            raise CellWrong("STRING_MAX_LEN", f"must have at most {most} characters")
        return found

    return read


def by_rule(rule: Callable[[str], str], reason: str, most: int) -> Reader:
    """Reads by one of the rules of `libs.formats`."""

    def read(given: str) -> str:
        stripped = given.strip()
        if len(stripped) > most > 0:
            raise CellWrong("STRING_MAX_LEN", f"must have at most {most} characters")
        try:
            return rule(stripped)
        except Wrong as wrong:
            raise CellWrong(reason, str(wrong)) from None

    return read


def _email(given: str) -> str:
    formats.email(given)
    return given


def email(most: int) -> Reader:
    """Reads an e-mail, as it was given."""
    return by_rule(_email, "FORMAT_EMAIL", most)


def phone(country: str, most: int) -> Reader:
    """Reads a phone as E.164; national forms are those of the country."""
    return by_rule(lambda given: formats.phone(given, country), "FORMAT_PHONE", most)


def tags(most_each: int, most: int) -> Reader:
    """Reads tags apart by commas, semicolons, bars or line ends; doubles are dropped."""
    split = re.compile(r"[,;|\n]+").split
    one = text(most_each)

    def read(given: str) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for part in split(given):
            if part and not part.isspace():
                tag = str(one(part))
                found.setdefault(tag.casefold(), tag)
        if len(found) > most:
            raise CellWrong("REPEATED_MAX_ITEMS", f"must be at most {most}")
        return tuple(found.values())

    return read


def language(most: int) -> Reader:
    """Reads a language tag or the name of a language, in English or in itself."""

    @lru_cache(4096)
    def rule(given: str) -> str:
        return LANGUAGES.get(given.casefold()) or formats.language(given.replace("_", "-"))

    return by_rule(rule, "FORMAT_LANGUAGE", most)


def time_zone(most: int) -> Reader:
    """Reads an IANA time zone."""
    return by_rule(formats.time_zone, "FORMAT_TIME_ZONE", most)


def country() -> Reader:
    """Reads a country's ISO code or its name as the code."""
    return by_rule(country_code, "FORMAT_COUNTRY", 0)


def street(most: int) -> Reader:
    """Reads the lines of a street, each of at most so many characters."""
    one = text(most)

    def read(given: str) -> tuple[str, ...]:
        return tuple(str(one(line)) for line in places.lines(given.strip(), most) if line.strip())

    return read


# --- words ---


def _word(words: Mapping[str, int], expected: str, reason: str) -> Reader:
    @lru_cache(4096)
    def find(given: str) -> int | None:
        return words.get(" ".join(re.sub(r"[\W_]+", " ", given.casefold()).split()))

    def read(given: str) -> int:
        found = find(given) if len(given) <= 100 else None
        if found is None:
            raise CellWrong(reason, expected)
        return found

    return read


def customer_status() -> Reader:
    """Reads a CustomerStatus."""
    return _word(CUSTOMER_STATUSES, "must be active, inactive, vip, blocked or pending", "STATUS")


def customer_type() -> Reader:
    """Reads a CustomerType."""
    return _word(CUSTOMER_TYPES, "must be guest, registered, wholesale or affiliate", "TYPE")


def order_status() -> Reader:
    """Reads an OrderStatus."""
    known = "pending, paid, fulfilled, delivered, cancelled, refunded, partially refunded, returned, partially returned"
    return _word(ORDER_STATUSES, f"must be one of: {known}", "STATUS")


def boolean(given: str) -> bool:
    """Yes or no in many languages, true and false, 1 and 0."""
    found = BOOLEANS.get(given.strip().casefold())
    if found is None:
        raise CellWrong("BOOLEAN", "must be yes or no")
    return found


# --- numbers ---

_GROUPED = {
    ".": re.compile(r"\d{1,3}(?:[,'’ \u00a0\u202f]\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+"),
    ",": re.compile(r"\d{1,3}(?:[.'’ \u00a0\u202f]\d{3})+(?:,\d*)?|\d+(?:,\d*)?|,\d+"),
}
_EDGES = re.compile(r"([^\d.,()+\-−]*)([+\-−(]*)([^\d.,()+\-−]*)(\d.*\d|\d|[.,]\d+)([)\-−]*)([^\d()+\-−]*)")
_SIGNS = {
    "€": {"EUR"},
    "£": {"GBP"},
    "¥": {"JPY", "CNY"},
    "円": {"JPY"},
    "₽": {"RUB"},
    "₹": {"INR"},
    "zł": {"PLN"},
    "kč": {"CZK"},
    "kr": {"SEK", "NOK", "DKK", "ISK"},
    "kr.": {"SEK", "NOK", "DKK", "ISK"},
    "ft": {"HUF"},
    "лв": {"BGN"},
    "fr.": {"CHF"},
    "sfr.": {"CHF"},
    "r$": {"BRL"},
    "us$": {"USD"},
    "руб": {"RUB"},
    "руб.": {"RUB"},
}
_NO_DOLLARS = {"EUR", "GBP", "JPY", "CHF", "PLN", "SEK", "NOK", "DKK", "CZK", "RUB", "INR", "HUF", "CNY"}


def _mark(mark: str, currency: str) -> None:
    """Raises CellWrong if a sign or code beside a number is of another currency, or of none."""
    low = mark.strip().casefold()
    if not low or low == currency.casefold():
        return
    ours = currency in _SIGNS.get(low, ()) or (low == "$" and currency not in _NO_DOLLARS)
    if not ours:
        known = low in _SIGNS or low == "$" or low.upper() in MINOR_DIGITS
        if known and currency:
            raise CellWrong("CURRENCY_MISMATCH", f"must be in {currency}")
        raise CellWrong("AMOUNT", "must be an amount" if currency else "must be a number")


def decimal_of(given: str) -> str:
    """Which sign stands before the decimals: "." or ","; "" if this number does not tell."""
    if type(given) is Number:
        return ""
    number = re.sub(r"[^\d.,]", "", given).strip(".,")
    dot, comma = number.rfind("."), number.rfind(",")
    if dot >= 0 and comma >= 0:
        return "." if dot > comma else ","
    sign = "." if dot >= 0 else "," if comma >= 0 else ""
    if not sign:
        return ""
    if number.count(sign) > 1:
        return "," if sign == "." else "."
    return sign if len(number) - number.rfind(sign) - 1 != 3 else ""


def _plain(given: str, decimal: str, currency: str) -> tuple[bool, str, str]:
    """A number's parts: whether it is negative, its whole digits, its decimals. Raises CellWrong."""
    what = "an amount" if currency else "a number"
    if type(given) is Number:
        sign, decimal, number = given.startswith("-"), ".", given.lstrip("-")
    else:
        match = _EDGES.fullmatch(given.strip()) if len(given) <= 60 else None
        if match is None:
            raise CellWrong("AMOUNT" if currency else "NUMBER", f"must be {what}")
        for mark in (match[1], match[3], match[6]):
            if mark:
                _mark(mark, currency)
        sign, number = bool((match[2] + match[5]).strip("+")), match[4]
        if not decimal:
            decimal = decimal_of(number)
            if not decimal:
                if "." in number or "," in number:
                    raise CellWrong("AMOUNT_AMBIGUOUS", f"must be {what}; say what stands before decimals")
                decimal = "."
    if _GROUPED[decimal].fullmatch(number) is None:
        written = '"." before decimals' if decimal == "." else '"," before decimals'
        raise CellWrong("AMOUNT" if currency else "NUMBER", f"must be {what} with {written}")
    whole, _, decimals = number.partition(decimal)
    return sign, re.sub(r"\D", "", whole), decimals


def amount(currency: str, decimal: str) -> Reader:
    """Reads an amount that is not negative as minor units of the currency."""
    digits = MINOR_DIGITS[currency]
    point = "," if decimal == "," else "."
    simple = re.compile(rf"(\d{{1,12}})(?:[{point}](\d{{{max(digits, 1)}}}))?")
    scale: int = 10**digits

    def read(given: str) -> int:
        quick = simple.fullmatch(given) if decimal or type(given) is Number else None
        if quick and digits and (type(given) is not Number or point == "."):
            return int(quick[1]) * scale + int(quick[2] or 0)
        negative, whole, decimals = _plain(given, decimal, currency)
        decimals = decimals.rstrip("0")
        if len(decimals) > digits:
            raise CellWrong("AMOUNT_DECIMALS", f"must be an amount with at most {digits} decimals")
        if len(whole.lstrip("0")) > 16:
            raise CellWrong("SUM_RANGE", f"must be at most {MOST_MINOR // scale:,}")
        minor = int(whole or 0) * scale + int(decimals.ljust(digits, "0") or 0)
        if negative and minor:
            raise CellWrong("NEGATIVE", "must not be negative")
        if minor > MOST_MINOR:
            raise CellWrong("SUM_RANGE", f"must be at most {MOST_MINOR // scale:,}")
        return minor

    return read


def number(decimal: str) -> Callable[[str], int | float]:
    """Reads a number."""

    def read(given: str) -> int | float:
        negative, whole, decimals = _plain(given, decimal, "")
        if len(whole) > 30 or len(decimals) > 30:
            raise CellWrong("NUMBER", "must be a number of at most 30 digits")
        decimals = decimals.rstrip("0")
        found = float(f"{whole or 0}.{decimals}") if decimals else int(whole or 0)
        return -found if negative else found

    return read


def integer(decimal: str, least: int, most: int) -> Reader:
    """Reads a whole number in a range."""
    any_number = number(decimal)

    def read(given: str) -> int:
        plain = given.isascii() and given.isdigit() and len(given) < 16
        found: int | float = int(given) if plain else any_number(given)
        if found != int(found) or not least <= found <= most:
            raise CellWrong("INT64_RANGE", f"must be a whole number from {least:,} to {most:,}")
        return int(found)

    return read


def identifier(given: str) -> str:
    """Reads the id of a customer of this platform."""
    try:
        return str(UUID(given.strip()))
    except ValueError:
        raise CellWrong("STRING_UUID", "must be the id of a customer in this platform") from None


def expiry(zone: tzinfo, order: str, now: datetime) -> Callable[[str], datetime]:
    """Reads until when something holds, in the future; of a date alone it is the end of that day in `zone`."""
    instant = moment(zone, order)

    def read(given: str) -> datetime:
        found = instant(given)
        local = found.astimezone(zone)
        if ":" not in given and local.time() == time():
            found = datetime.combine(local.date() + timedelta(days=1), time(), zone).astimezone(UTC)
        if found <= now:
            raise CellWrong("ALREADY_EXPIRED", "must be in the future; what has lapsed is not taken")
        return found

    return read


def revision(zone: tzinfo, order: str) -> Reader:
    """Reads a number from 1 to 2^53, or an instant as its milliseconds."""
    whole, instant = integer(".", 1, 2**53), moment(zone, order)

    def read(given: str) -> int:
        if given.strip().isdigit():
            return int(str(whole(given)))
        found = instant(given)
        millis = (found - _EPOCH) // timedelta(milliseconds=1)
        if millis < 1:
            raise CellWrong("TIME_RANGE", "must be from 1970 on")
        return millis

    return read


# --- dates ---

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_NUMERIC = re.compile(r"(\d{1,4})\s*[./\-年 ]\s*(\d{1,2})\s*[./\-月 ]\s*(\d{1,4})\s*[.日]?", re.ASCII)
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)", re.ASCII)
_WORDED = re.compile(
    r"(?:[^\W\d_]+[.,]?\s+)?(\d{1,2})[.,]?(?:st|nd|rd|th)?[\s.\-/]+(?:de\s+)?([^\W\d_]+)\.?,?[\s.\-/]+(?:de\s+)?(\d{4}|\d\d)"
)
_WORDED_US = re.compile(
    r"(?:[^\W\d_]+[.,]?\s+)?([^\W\d_]+)\.?[\s\-]+(\d{1,2})(?:st|nd|rd|th)?,?[\s\-]+(\d{4})"
)
_TIME = re.compile(
    r"(?P<date>.+?)(?:[T\s,]+|\s+(?:at|um|à|kl\.?)\s+)(?P<hour>\d{1,2})[:.h](?P<minute>\d\d)(?:[:.](?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|GMT|[+-]\d\d:?(?:\d\d)?)?"
)


def numbers_of_date(given: str) -> tuple[int, int, int] | None:
    """The three numbers of a date that is all numbers, as they stand; None for other shapes and for ISO."""
    day = given.strip().split("T")[0].split(" ")[0] if len(given) <= 40 else ""
    match = _NUMERIC.fullmatch(day)
    return (int(match[1]), int(match[2]), int(match[3])) if match and len(match[1]) <= 2 else None


def _year(digits: str, this_year: int) -> int:
    year = int(digits)
    if len(digits) > 2:
        return year
    century = this_year // 100 * 100
    return century + year if century + year <= this_year else century - 100 + year


def _date(given: str, order: str, this_year: int) -> date | None:
    """The date of a text in one of the known shapes; two digits are the latest such year that is not to come."""
    try:
        if match := _NUMERIC.fullmatch(given):
            first, second, third = match.groups()
            if len(first) == 4:
                return date(int(first), int(second), int(third))
            if len(first) > 2 or len(third) == 3 or len(third) == 1:
                return None
            if order == YMD:
                return date(_year(first, this_year), int(second), int(third)) if len(third) <= 2 else None
            if order == MDY:
                return date(_year(third, this_year), int(first), int(second))
            if order == DMY or (first == second):
                return date(_year(third, this_year), int(second), int(first))
            return None
        if match := _COMPACT.fullmatch(given):
            return date(int(match[1]), int(match[2]), int(match[3]))
        if match := _WORDED.fullmatch(given):
            month = MONTHS.get(match[2].casefold())
            return date(_year(match[3], this_year), month, int(match[1])) if month else None
        if match := _WORDED_US.fullmatch(given):
            month = MONTHS.get(match[1].casefold())
            return date(int(match[3]), month, int(match[2])) if month else None
    except ValueError:
        return None
    return None


def any_date(order: str, today: date) -> Callable[[str], date]:
    """Reads a date; a time of day behind it is left out."""
    expected = f"must be a date as {_SHAPES[order]}"

    def read(given: str) -> date:
        stripped = given.strip()
        if len(stripped) <= 60:
            iso = _ISO.match(stripped)
            if iso and (len(stripped) == 10 or stripped[10] in "T "):
                try:
                    return date(int(iso[1]), int(iso[2]), int(iso[3]))
                except ValueError:
                    raise CellWrong("DATE", expected) from None
            found = _date(stripped, order, today.year)
            if found is None and (timed := _TIME.fullmatch(stripped)):
                found = _date(timed["date"].strip(), order, today.year)
            if found is not None:
                return found
        raise CellWrong("DATE", expected)

    return read


def birth_date(order: str, today: date) -> Reader:
    """Reads a date of birth as YYYY-MM-DD."""
    read_date = any_date(order, today)

    def read(given: str) -> str:
        found = read_date(given).isoformat()
        try:
            return formats.birth_date(found, today)
        except Wrong as wrong:
            raise CellWrong("FORMAT_BIRTH_DATE", str(wrong)) from None

    return read


def moment(zone: tzinfo, order: str, today: date = date(2100, 1, 1)) -> Callable[[str], datetime]:
    """Reads an instant; without a zone of its own it is in `zone`. A date alone is its midnight."""
    expected = f"must be a date, or a date and a time, as {_SHAPES[order]} [HH:MM[:SS]]"

    def read(given: str) -> datetime:
        stripped = given.strip()
        found: datetime | None = None
        try:
            if len(stripped) > 60:
                pass
            elif len(stripped) >= 8 and stripped[4:5] == "-":
                try:
                    found = datetime.fromisoformat(stripped.replace(" UTC", "Z"))
                except ValueError:
                    found = _timed(stripped, order, today)
            elif stripped.isascii() and stripped.isdigit() and len(stripped) in (10, 13):
                found = _EPOCH + timedelta(milliseconds=int(stripped) * (1 if len(stripped) == 13 else 1000))
            else:
                found = _timed(stripped, order, today)
            if found is not None:
                return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise CellWrong("TIME", expected)

    return read


def _timed(given: str, order: str, today: date) -> datetime | None:
    timed = _TIME.fullmatch(given)
    if timed is None:
        day = _date(given, order, today.year)
        return datetime(day.year, day.month, day.day) if day else None
    day = _date(timed["date"].strip(" ,"), order, today.year)
    if day is None:
        return None
    hour = int(timed["hour"])
    if timed["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if timed["half"][0] in "Pp" else 0)
    micros = int((timed["part"] or "0").ljust(6, "0")[:6])
    found = datetime(
        day.year, day.month, day.day, hour, int(timed["minute"]), int(timed["second"] or 0), micros
    )
    zone = timed["zone"]
    if not zone:
        return found
    if zone[0] in "+-" and len(zone) == 3:
        zone += "00"
    return datetime.fromisoformat(found.isoformat() + ("Z" if zone[0] not in "+-" else zone))


# --- attributes ---


def attribute(definition: AttributeDefinition, decimal: str, order: str, today: date) -> Reader:
    """Reads a value of the attribute's declared kind."""
    choices = {choice.casefold(): choice for choice in definition.choices}
    a_number, a_date = number(decimal), any_date(order, today)

    def read(given: str) -> object:
        value: object = given.strip()
        if definition.type == NUMBER:
            value = a_number(given)
        elif definition.type == BOOLEAN:
            value = boolean(given)
        elif definition.type == DATE:
            value = a_date(given).isoformat()
        elif definition.type == CHOICE:
            value = choices.get(str(value).casefold(), value)
        try:
            return attribute_value(definition, value)
        except Wrong as wrong:
            raise CellWrong("ATTRIBUTE", str(wrong)) from None

    return read
