"""Customer messages to values and back; everything that is wrong with a message is found in one pass."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from sqlalchemy import Row

from libs import formats
from libs.contracts import category
from libs.formats import Wrong
from libs.instants import stamp
from libs.problems import Faults, InvalidArgument
from regulars.customers.v1 import customers_pb2 as pb
from services.customers.businesses.rules import AttributeDefinition, attribute_value
from services.customers.profiles import rules
from services.customers.profiles.queries import KnownFacts, View
from services.customers.profiles.rules import Profile, Source, Standing

_TEXTS = ("first_name", "last_name", "full_name", "gender", "company")
PERSON = frozenset(
    (*_TEXTS, "email", "phone", "born_on", "language", "time_zone", "handles", "preferred_categories")
)
_STANDING = ("status", "type", "tags", "attributes", "sources")
_FLAGS = ("email_verified", "phone_verified")
WRITABLE = frozenset((*PERSON, *_STANDING, *_FLAGS))
_HANDLES = frozenset(pb.Handles.DESCRIPTOR.fields_by_name)
_ALL_FIELDS = frozenset(pb.Customer.DESCRIPTOR.fields_by_name)
# Fields that need the sealed profile or standing to be opened.
# What is opened to tell facts of a person.
OF_FACTS = frozenset(("first_name", "last_name", "full_name", "email", "phone", "born_on", "time_zone"))
_SEALED = frozenset((*PERSON, "phone_last_digits", "attributes", "sources"))


@dataclass(frozen=True, slots=True)
class Written:
    """A customer as a request wants it: the whole person and standing after the change.

    `referral_code` is who brought a new one, `initial_tier` the tier that they begin with; customers only tells them.
    """

    profile: Profile
    standing: Standing
    email_verified: bool
    phone_verified: bool
    paths: frozenset[str]
    referral_code: str = ""
    initial_tier: str = ""


EMPTY = Written(
    Profile(),
    Standing(status=pb.CUSTOMER_STATUS_ACTIVE, type=pb.CUSTOMER_TYPE_REGISTERED),
    email_verified=False,
    phone_verified=False,
    paths=frozenset(),
)


def present_paths(message: pb.Customer, writable: frozenset[str] = WRITABLE) -> frozenset[str]:
    """The writable paths that the message holds something for; inside messages, one level down."""
    paths: set[str] = set()
    for descriptor, value in message.ListFields():
        if descriptor.name not in writable:
            continue
        if descriptor.name == "attributes":
            paths |= {f"attributes.{name}" for name in value.fields} or {"attributes"}
        elif descriptor.name == "handles":
            paths |= {f"handles.{inner.name}" for inner, _ in value.ListFields()} or {"handles"}
        else:
            paths.add(descriptor.name)
    return frozenset(paths)


def mask_paths(
    message: pb.Customer, mask: FieldMask, faults: Faults, writable: frozenset[str] = WRITABLE
) -> frozenset[str]:
    """The paths that a mask names: the present ones if it is empty, all of them for "*"."""
    if not mask.paths:
        return present_paths(message, writable)
    if list(mask.paths) == ["*"]:
        return writable
    paths = set()
    for path in mask.paths:
        top, _, inner = path.partition(".")
        if top == "referral_code":
            continue  # counts where somebody is new, and is nothing of theirs afterwards
        if top not in writable:
            known = top in _ALL_FIELDS
            faults.add("update_mask", f"{path} cannot be written" if known else f"there is no field {path}")
        elif inner and not (top == "attributes" or (top == "handles" and inner in _HANDLES)):
            faults.add("update_mask", f"there is no field {path}")
        else:
            paths.add(path)
    return frozenset(paths)


def check_read_mask(mask: FieldMask) -> frozenset[str]:
    """The fields to answer; empty for all. Raises InvalidArgument for unknown ones."""
    faults = Faults()
    for path in mask.paths:
        if path != "*" and path not in _ALL_FIELDS:
            faults.add("read_mask", f"there is no field {path}")
    faults.refuse()
    return frozenset() if "*" in mask.paths else frozenset(mask.paths)


def opens_sealed(fields: frozenset[str]) -> bool:
    """True if answering these fields takes opening what is sealed."""
    return not fields or bool(fields & _SEALED)


def written(
    message: pb.Customer,
    paths: frozenset[str],
    before: Written,
    *,
    country: str,
    today: date,
    definitions: Mapping[str, AttributeDefinition],
    faults: Faults,
) -> Written:
    """What `before` becomes when the message's fields at `paths` are written. Notes every wrong field in `faults`."""

    def checked(name: str, rule: Callable[[str], str]) -> str:
        given = str(getattr(message, name))
        if not given.strip():
            return ""
        try:
            return rule(given)
        except Wrong as wrong:
            faults.add(f"customer.{name}", str(wrong))
            return ""

    rule_of: dict[str, Callable[[str], str]] = {
        **dict.fromkeys(_TEXTS, formats.line),
        "email": lambda text: text.strip() if formats.email(text) else "",
        "phone": lambda text: formats.phone(text, country),
        "born_on": lambda text: formats.birth_date(text, today),
        "language": formats.language,
        "time_zone": formats.time_zone,
    }
    person: dict[str, object] = {name: checked(name, rule) for name, rule in rule_of.items() if name in paths}
    handles = _handles(message, paths, before.profile.handles)
    if handles is not None:
        person["handles"] = handles
    if "preferred_categories" in paths:
        person["preferred_categories"] = tuple(message.preferred_categories)
    profile = replace(before.profile, **person)  # type: ignore[arg-type]
    if profile.full_name == " ".join((profile.first_name, profile.last_name)):
        profile = replace(profile, full_name="")  # it says nothing of its own
    return Written(
        profile,
        _standing(message, paths, before.standing, definitions, faults),
        email_verified=_verified(message, paths, "email", before.email_verified, before.profile, profile),
        phone_verified=_verified(message, paths, "phone", before.phone_verified, before.profile, profile),
        paths=paths,
        referral_code=rules.referral_code(message.referral_code),
    )


def _handles(message: pb.Customer, paths: frozenset[str], before: Mapping[str, str]) -> dict[str, str] | None:
    inner = {path.partition(".")[2] for path in paths if path.startswith("handles.")}
    if "handles" not in paths and not inner:
        return None
    after = {} if "handles" in paths else dict(before)
    for name in _HANDLES if "handles" in paths else inner:
        after[name] = str(getattr(message.handles, name)).strip().removeprefix("@")
    return {name: value for name, value in after.items() if value}


def _verified(
    message: pb.Customer, paths: frozenset[str], of: str, before: bool, old: Profile, new: Profile
) -> bool:
    """The flag that goes with `of`: as set by this call, else cleared when the contact changed."""
    flag = f"{of}_verified"
    if flag in paths:
        return bool(getattr(message, flag)) and bool(getattr(new, of))
    return before and getattr(old, of) == getattr(new, of)


def _standing(
    message: pb.Customer,
    paths: frozenset[str],
    before: Standing,
    definitions: Mapping[str, AttributeDefinition],
    faults: Faults,
) -> Standing:
    after = before
    if "status" in paths and message.status:
        after = replace(after, status=int(message.status))
    if "type" in paths and message.type:
        after = replace(after, type=int(message.type))
    if "tags" in paths:
        for i, tag in enumerate(message.tags):
            if not tag.strip():
                faults.add(f"customer.tags[{i}]", "must not be blank")
        after = replace(after, tags=rules.with_tags((), message.tags))
    if "sources" in paths:
        after = replace(after, sources=_sources(message.sources, before.sources, faults))
    named = {path.partition(".")[2] for path in paths if path.startswith("attributes.")}
    if "attributes" in paths or named:
        values = {} if "attributes" in paths else {**before.attributes, **before.personal}
        for name in named - set(message.attributes.fields):
            values.pop(name, None)
        for name in (
            message.attributes.fields if "attributes" in paths else named & set(message.attributes.fields)
        ):
            values[name] = _attribute(name, message.attributes.fields[name], definitions, values, faults)
        kept = {name: value for name, value in values.items() if value is not None}
        clear = {n for n in kept if n in definitions and definitions[n].not_personal}
        after = replace(
            after,
            attributes={n: v for n, v in kept.items() if n in clear},
            personal={n: v for n, v in kept.items() if n not in clear},
        )
    return after


def _attribute(
    name: str,
    value: Value,
    definitions: Mapping[str, AttributeDefinition],
    before: Mapping[str, object],
    faults: Faults,
) -> object:
    """The attribute's value as its definition wants it, or None to remove it."""
    given = None if value.WhichOneof("kind") == "null_value" else _plain(value)
    definition = definitions.get(name)
    if definition is None:
        faults.add(f"customer.attributes.{name}", "is not declared by the business", "UNKNOWN_ATTRIBUTE")
        return None
    if given is None:
        return None
    if definition.archived and before.get(name) != given:
        faults.add(f"customer.attributes.{name}", "is archived and takes no new values", "ATTRIBUTE_ARCHIVED")
        return None
    try:
        return attribute_value(definition, given)
    except Wrong as wrong:
        faults.add(f"customer.attributes.{name}", str(wrong))
        return None


def _plain(value: Value) -> object:
    kind = value.WhichOneof("kind")
    if kind in {"number_value", "string_value", "bool_value"}:
        return getattr(value, kind)
    return MessageToDict(value) if isinstance(value, Message) else None


def _sources(given: Iterable[pb.Source], before: Iterable[Source], faults: Faults) -> tuple[Source, ...]:
    synced = {(source.name, source.external_id): source.synced_at for source in before}
    found: dict[tuple[str, str], Source] = {}
    for i, source in enumerate(given):
        name, external_id = source.name or "manual", source.external_id.strip()
        if (name, external_id) in found:
            faults.add(f"customer.sources[{i}]", "names the same source and id as another", "DUPLICATE")
        found[name, external_id] = Source(name, external_id, synced.get((name, external_id), ""))
    return tuple(found.values())


def as_written(view: View | None) -> Written:
    """A customer as it is, for a change to start from; None is the start of a new one."""
    if view is None:
        return EMPTY
    return Written(view.profile, view.standing, view.email_verified, view.phone_verified, frozenset())


def lookup_key(request: pb.LookupCustomerRequest, business_id: UUID, country: str) -> tuple[str, str]:
    """The (kind, normalised value) that a look-up names. Raises InvalidArgument."""
    kind = str(request.WhichOneof("key"))
    try:
        if kind == "email":
            return kind, formats.email(request.email)
        if kind == "phone":
            return kind, formats.phone(request.phone, country)
    except Wrong as wrong:
        raise InvalidArgument.of(kind, str(wrong)) from None
    return kind, rules.external_key(business_id, request.source or "manual", request.external_id)


def upsert_key(request: pb.UpsertCustomerRequest, business_id: UUID, country: str) -> tuple[str, str] | None:
    """The (kind, normalised value) that an upsert finds its customer by, or None if none is given.

    A value that is wrong finds nobody: the fields' own rules refuse it. Raises InvalidArgument if `match_by`
    names a value that is not given.
    """
    message = request.customer
    external = next((source for source in message.sources if source.external_id), None)
    given = {
        pb.MATCH_BY_EXTERNAL_ID: external is not None,
        pb.MATCH_BY_EMAIL: bool(message.email),
        pb.MATCH_BY_PHONE: bool(message.phone),
    }
    by = request.match_by or next((by for by, there in given.items() if there), pb.MATCH_BY_UNSPECIFIED)
    if by == pb.MATCH_BY_UNSPECIFIED:
        return None
    if not given[by]:
        raise InvalidArgument.of("match_by", "names a value that the customer does not give")
    try:
        if by == pb.MATCH_BY_EMAIL:
            return "email", formats.email(message.email)
        if by == pb.MATCH_BY_PHONE:
            return "phone", formats.phone(message.phone, country)
    except Wrong:
        return None
    assert external is not None
    name = external.name or "manual"
    return "external_id", rules.external_key(business_id, name, external.external_id.strip())


def source_name(message: pb.Customer) -> str:
    """The name of the first source, "" if there is none."""
    return message.sources[0].name if message.sources else ""


def check_rename(request: pb.RenameTagRequest) -> None:
    """Raises InvalidArgument if the tags are blank or the same."""
    faults = Faults()
    for name in ("tag", "new_tag"):
        if not getattr(request, name).strip():
            faults.add(name, "must not be blank")
    if rules.tag_key(request.tag) == rules.tag_key(request.new_tag):
        faults.add("new_tag", "must differ from the tag in more than case")
    faults.refuse()


@cache
def categories(fields: frozenset[str]) -> frozenset[str]:
    """The data categories that answering these fields opens; of all fields if it is empty."""
    named = fields & _SEALED if fields else _SEALED
    found = {category(pb.Customer.DESCRIPTOR.fields_by_name[name]) for name in named}
    return frozenset(each for each in found if each)


def facts(known: KnownFacts) -> pb.CustomerFacts:
    """The message of what other services may keep of a person."""
    _, month, day = (known.profile.born_on or "0-0-0").split("-")
    return pb.CustomerFacts(
        customer_id=str(known.customer_id),
        version=known.version,
        birth_month=int(month),
        birth_day=int(day),
        time_zone=known.profile.time_zone,
        profile_complete=known.profile.is_complete and known.has_address,
    )


def stats(rows: Iterable[Row[Any]]) -> pb.CustomerStats:
    """The counts of `queries.stats`."""
    message = pb.CustomerStats()
    for row in rows:
        if row.deleted:
            message.deleted += row.customers
            continue
        status = pb.CustomerStatus.Name(row.status).removeprefix("CUSTOMER_STATUS_")
        kind = pb.CustomerType.Name(row.type).removeprefix("CUSTOMER_TYPE_")
        message.total += row.customers
        message.by_status[status] += row.customers
        message.by_type[kind] += row.customers
        message.new_last_30_days += row.customers if row.fresh else 0
    return message


def customer(view: View, fields: frozenset[str] = frozenset(), asked_for: str = "") -> pb.Customer:
    """The message of what a query found. `fields` empty: all; `asked_for`: the id that led here by a merge."""
    profile, standing = view.profile, view.standing
    message = pb.Customer(
        id=str(view.customer_id),
        business_id=str(view.business_id),
        first_name=profile.first_name or None,
        last_name=profile.last_name or None,
        full_name=profile.name or None,
        email=profile.email or None,
        email_verified=view.email_verified,
        phone=profile.phone or None,
        phone_verified=view.phone_verified,
        phone_last_digits=profile.phone[-4:],
        born_on=profile.born_on or None,
        gender=profile.gender or None,
        language=profile.language or None,
        time_zone=profile.time_zone or None,
        company=profile.company or None,
        preferred_categories=profile.preferred_categories,
        status=view.standing.status,  # type: ignore[arg-type]  # the row holds the enum's number
        type=view.standing.type,  # type: ignore[arg-type]
        lifecycle_stage=view.lifecycle_stage,  # type: ignore[arg-type]
        tags=standing.tags,
        business_ids=sorted(map(str, view.business_ids)),
        merged_from=asked_for if asked_for and asked_for != str(view.customer_id) else "",
        etag=etag(view.version),
        joined_at=stamp(view.joined_at),
        created_at=stamp(view.created_at),
        updated_at=stamp(view.updated_at),
        last_active_at=stamp(view.last_active_at),
        deleted_at=stamp(view.deleted_at),
        erase_due_at=stamp(view.erase_due_at),
    )
    if profile.handles:
        message.handles.CopyFrom(pb.Handles(**profile.handles))
    if standing.attributes or standing.personal:
        for name, value in {**standing.attributes, **standing.personal}.items():
            message.attributes[name] = value  # type: ignore[assignment]  # text, number or truth, as declared
    for source in standing.sources:
        entry = message.sources.add(name=source.name, external_id=source.external_id)
        if source.synced_at:
            entry.synced_at.FromJsonString(source.synced_at)
    if fields:
        for descriptor, _ in message.ListFields():
            if descriptor.name not in fields and descriptor.name != "id":
                message.ClearField(descriptor.name)  # type: ignore[arg-type]  # a name of its own
    return message


def etag(version: int) -> str:
    """The etag of a version."""
    return str(version)
