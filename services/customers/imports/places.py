"""The address that a row tells: by the rules of CreateAddress, or where somebody lives if it holds no street."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from services.customers.addresses import rules
from services.customers.addresses.rules import Place

PREFIX = "address."
MAX_LINES = 4  # as the contract says
REQUIRED, INVALID = "REQUIRED", "INVALID"
_PARTS = ("label", "recipient", "city", "state", "postal_code", "country")


def place_of(given: Mapping[str, Any], country: str) -> tuple[Place | None, dict[str, str]]:
    """The place that the values of a row by target tell, and what is wrong with it by field.

    `country` is that of a row that names none. A place without a street need not be complete: None without a country.
    """
    lines = (*given.get("address.street_lines", ()), *given.get("address.street_line_2", ()))
    texts = {part: given.get(PREFIX + part, "") for part in _PARTS}
    texts["country"] = texts["country"] or country
    told = lines or texts["city"] or texts["state"] or texts["postal_code"] or "address.country" in given
    if not told:
        return None, {}  # at most a name for it
    where = (texts["country"], texts["state"], texts["city"], texts["postal_code"])
    faults, state, postal_code = _judged(*where, bool(lines))
    found = dict(faults)
    if len(lines) > MAX_LINES:
        found["street_lines"] = f"must be at most {MAX_LINES} lines"
    if found or not texts["country"]:
        return None, found
    texts |= {"state": state, "postal_code": postal_code}
    return Place(street_lines=lines, **texts), {}


@lru_cache(16384)
def _judged(
    country: str, state: str, city: str, postal_code: str, street: bool
) -> tuple[tuple[tuple[str, str], ...], str, str]:
    """What is wrong, by field; state and postal code as their country writes them.

    Judging by the data of a country is dear, and people live in the same places.
    """
    if not country:
        return ((("country", "is required"),) if street else (), state, postal_code)
    place = Place(
        street_lines=("1",), city=city, state=state, postal_code=postal_code, country=country
    )  # any street: its text is judged by itself
    faults = rules.wrong_parts(place)
    if not street:
        faults = {part: why for part, why in faults.items() if reason(why) != REQUIRED}
        if faults:
            return tuple(faults.items()), state, postal_code
    elif faults:
        return tuple(faults.items()), state, postal_code
    normal = rules.normal(place)
    return (), normal.state, normal.postal_code


def reason(why: str) -> str:
    """The reason that CreateAddress gives with a fault."""
    return REQUIRED if why.startswith("is required") else INVALID


def merged(before: Place | None, told: Place) -> Place | None:
    """What a default address becomes when a row tells another; None if it stays as it is.

    A place without a street says less than an address, and does not replace it.
    """
    if before is None:
        return told
    if before.street_lines and not told.street_lines:
        return None
    after = replace(told, label=told.label or before.label, recipient=told.recipient or before.recipient)
    if ", ".join(after.street_lines) == ", ".join(before.street_lines):
        after = replace(after, street_lines=before.street_lines)  # as an export joins them
    if not rules.moved(before, after):
        after = replace(
            after, latitude=before.latitude, longitude=before.longitude, time_zone=before.time_zone
        )
    return None if after == before else after


def lines(given: str, most: int) -> Iterator[str]:
    """The lines of a street. A cell with more than one line may have them joined as an export does."""
    for line in given.splitlines():
        yield from (line.split(", ") if len(line) > most else (line,))
