"""When two customers agree in what may tell that they are one person, or one household."""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from libs import formats
from libs.formats import Wrong
from services.customers.addresses.rules import Place
from services.customers.profiles.rules import Profile
from services.customers.search.folding import words

# ContactAgreement
EMAIL, PHONE, ADDRESS, NAME_AND_BIRTH_DATE, DEVICE = 1, 2, 3, 4, 5
_GMAIL = ("gmail.com", "googlemail.com")


@dataclass(frozen=True, slots=True)
class Traces:
    """What is known of a customer, each in the form in which it is compared."""

    mailboxes: AbstractSet[str] = frozenset()
    phones: AbstractSet[str] = frozenset()
    places: AbstractSet[tuple[str, ...]] = frozenset()
    names: AbstractSet[tuple[str, ...]] = frozenset()
    devices: AbstractSet[tuple[str, str]] = frozenset()


def traces(profile: Profile, places: list[Place], devices: AbstractSet[tuple[str, str]]) -> Traces:
    """A customer's traces; `devices` are pairs of IP address and browser."""
    number = re.sub(r"\D", "", profile.handles.get("whatsapp", ""))
    whatsapp = f"+{number.removeprefix('00')}" if len(number) >= 8 else ""
    name = tuple(sorted(words(profile.name)))
    return Traces(
        mailboxes={mailbox(profile.email)} - {""},
        phones={profile.phone, whatsapp} - {""},
        places={where(place) for place in places} - {()},
        names={(profile.born_on, *name)} if profile.born_on and name else frozenset(),
        devices=devices,
    )


def agreements(one: Traces, other: Traces) -> list[int]:
    """In what two customers agree."""
    pairs = {
        EMAIL: (one.mailboxes, other.mailboxes),
        PHONE: (one.phones, other.phones),
        ADDRESS: (one.places, other.places),
        NAME_AND_BIRTH_DATE: (one.names, other.names),
        DEVICE: (one.devices, other.devices),
    }
    return [kind for kind, (mine, theirs) in pairs.items() if mine & theirs]


def mailbox(email: str) -> str:
    """Where mail to this address arrives: without the tag that most providers let one add, and Gmail's dots."""
    try:
        local, _, domain = formats.email(email).rpartition("@")
    except Wrong:
        return ""
    local = local.partition("+")[0] or local
    if domain in _GMAIL:
        local, domain = local.replace(".", ""), _GMAIL[0]
    return f"{local}@{domain}"


def where(place: Place) -> tuple[str, ...]:
    """Where a place is: country, postal code or city, and the words of its street; empty if that is not known."""
    street = words(" ".join(place.street_lines))
    at = "".join(words(place.postal_code)) or " ".join(words(place.city))
    return (place.country.upper(), at, *street) if street and at else ()
