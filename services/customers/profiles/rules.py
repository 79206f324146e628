"""What a profile may hold, and when two contact data are the same."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from services.customers.rules import Wrong, iso_date

EARLIEST_BIRTH = date(1900, 1, 1)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record came from. `synced_at` is an ISO instant, or "" if the source was never heard of."""

    name: str
    external_id: str = ""
    synced_at: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of the person. Empty text is unknown. `handles` by network name."""

    first_name: str = ""
    last_name: str = ""
    full_name: str = ""
    email: str = ""
    phone: str = ""
    born_on: str = ""
    gender: str = ""
    language: str = ""
    time_zone: str = ""
    company: str = ""
    handles: Mapping[str, str] = field(default_factory=dict)
    preferred_categories: tuple[str, ...] = ()

    def known(self) -> dict[str, object]:
        """The fields that hold something, for sealing."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name))}

    @classmethod
    def of(cls, known: Mapping[str, object]) -> "Profile":
        """The profile that `known` gave. Fields that this version does not know are left out."""
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in known.items() if name in names}
        if "preferred_categories" in values:
            values["preferred_categories"] = tuple(values["preferred_categories"])  # type: ignore[arg-type]
        return cls(**values)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """A name to show, or ""."""
        return self.full_name or " ".join(part for part in (self.first_name, self.last_name) if part)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one business sees the customer. `status` and `type` are numbers of their enums.

    `attributes` are declared as not personal and kept in clear; `personal` ones are sealed, as are `sources`.
    """

    status: int
    type: int
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)
    personal: Mapping[str, object] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()


def email_key(email: str) -> str:
    """The form in which e-mails are compared: NFC, lower case, domain in IDNA ASCII. Raises Wrong."""
    try:
        parts = validate_email(unicodedata.normalize("NFC", email.strip()), check_deliverability=False)
    except EmailNotValidError:
        raise Wrong("must be an e-mail address (name@example.com)") from None
    return f"{parts.local_part.lower()}@{(parts.ascii_domain or parts.domain).lower()}"


def phone_e164(phone: str, country: str) -> str:
    """The phone as E.164. `country` (ISO 3166-1 alpha-2, or "") gives national forms their meaning. Raises Wrong."""
    international = phone.strip().startswith(("+", "\uff0b", "00"))
    text = "+" + phone.strip()[2:] if phone.strip().startswith("00") else phone
    try:
        number = phonenumbers.parse(text, country or None)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_valid_number(number):
        if country and not international:
            raise Wrong(f"must be a phone number, valid in {country} or international (+14155550123)")
        raise Wrong("must be an international phone number (+14155550123)")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def external_key(business_id: object, source: str, external_id: str) -> str:
    """The form in which external ids are compared: they are unique per business and source."""
    return f"{business_id}\x1f{source}\x1f{external_id}"


def birth_date(text: str, today: date) -> str:
    """The date as it came. Raises Wrong unless it is a date from 1900 to today."""
    born = iso_date(text)
    if not EARLIEST_BIRTH <= born <= today:
        raise Wrong("must be a date from 1900-01-01 to today")
    return text


def tag_key(tag: str) -> str:
    """The form in which tags are compared."""
    return tag.strip().casefold()


def with_tags(tags: Iterable[str], added: Iterable[str]) -> tuple[str, ...]:
    """`tags` and after them those of `added` that are new, each once, compared without regard to case."""
    merged: dict[str, str] = {}
    for tag in (*tags, *added):
        merged.setdefault(tag_key(tag), tag.strip())
    return tuple(merged.values())


def without_tag(tags: Iterable[str], removed: str) -> tuple[str, ...]:
    """`tags` less the one that is the same as `removed`."""
    return tuple(tag for tag in tags if tag_key(tag) != tag_key(removed))


def identifiers(profile: Profile, standings: Mapping[object, Standing]) -> set[tuple[str, str]]:
    """Everything unique that finds this customer, as (kind, value to compare).

    `standings` by business id. Raises Wrong only for values that were never checked.
    """
    found = set()
    if profile.email:
        found.add(("email", email_key(profile.email)))
    if profile.phone:
        found.add(("phone", profile.phone))
    for business_id, standing in standings.items():
        found |= source_identifiers(business_id, standing.sources)
    return found


def source_identifiers(business_id: object, sources: Iterable[Source]) -> set[tuple[str, str]]:
    """The external ids of one business's sources, as (kind, value to compare)."""
    return {
        ("external_id", external_key(business_id, source.name, source.external_id))
        for source in sources
        if source.external_id
    }
