"""What a profile may hold, and when two contact data are the same."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from libs import formats

# What a member's code looks like; loyalty makes them.
_REFERRAL_CODE = re.compile("R[0-9A-HJKMNP-TV-Z]{9}")


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

    @property
    def is_complete(self) -> bool:
        """True if the person's name, e-mail, phone and birth date are known."""
        return all((self.name, self.email, self.phone, self.born_on))


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


def external_key(business_id: object, source: str, external_id: str) -> str:
    """The form in which external ids are compared: they are unique per business and source."""
    return f"{business_id}\x1f{source}\x1f{external_id}"


def referral_code(given: str) -> str:
    """The code in its one form; "" for what no member's code looks like: it may be anything, and goes nowhere."""
    plain = re.sub(r"[\s-]", "", given).upper()
    return plain if _REFERRAL_CODE.fullmatch(plain) else ""


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
        found.add(("email", formats.email(profile.email)))
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
