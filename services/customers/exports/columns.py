"""The columns that an export may have: where each comes from, and what it is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from operator import attrgetter
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor

from libs import masking
from libs.contracts import category
from libs.money import MINOR_DIGITS
from libs.problems import Faults
from regulars.customers.v1 import addresses_pb2, customers_pb2, orders_pb2
from services.customers.businesses import rules as attributes
from services.customers.businesses.rules import AttributeDefinition

GROUPS = ("profile", "membership", "address", "metrics", "attributes")
ATTRIBUTE = "attributes."


class Kind(Enum):
    """What the values of a column are. Money is in minor units, dates are ISO text."""

    TEXT = "text"
    LIST = "list"
    NUMBER = "number"
    MONEY = "money"
    BOOLEAN = "boolean"
    DATE = "date"
    INSTANT = "instant"


class Needs(Enum):
    """What must be read, or opened, for a column."""

    ROW = "row"
    PROFILE = "profile"
    STANDING = "standing"
    PLACE = "place"
    METRICS = "metrics"


@dataclass(slots=True)
class Person:
    """What is known of one customer, as far as the columns need it."""

    customer_id: UUID
    row: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    standing: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)


Value = str | int | float | bool | datetime | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `label` is its header, which an import understands; `fields` are what it shows of the contract.

    `digits` of money: those of the minor unit.
    """

    name: str
    label: str
    group: str
    kind: Kind
    needs: Needs
    of: Callable[[Any], Value]  # of a Person
    fields: tuple[FieldDescriptor, ...] = ()
    digits: int = 0

    def masked(self, masks: frozenset[str]) -> bool:
        """True if somebody with these masks may not see it."""
        return any(masking.is_masked(each, masks) for each in self.fields)

    @property
    def categories(self) -> set[str]:
        """The data categories that it opens."""
        return {found for each in self.fields if (found := category(each))}


_CUSTOMER = customers_pb2.Customer.DESCRIPTOR.fields_by_name
_HANDLES = customers_pb2.Handles.DESCRIPTOR.fields_by_name
_SOURCE = customers_pb2.Source.DESCRIPTOR.fields_by_name
_ADDRESS = addresses_pb2.Address.DESCRIPTOR.fields_by_name
_METRICS = orders_pb2.CustomerMetrics.DESCRIPTOR.fields_by_name
_T = Kind.TEXT


def _profile() -> list[Column]:
    def one(name: str, label: str, kind: Kind = _T, of: Callable[[Person], Value] | None = None) -> Column:
        get = of or (lambda person: person.profile.get(name))
        return Column(name, label, "profile", kind, Needs.PROFILE, get, (_CUSTOMER[name],))

    def flag(name: str, label: str) -> Column:
        return Column(
            *(name, label, "profile", Kind.BOOLEAN, Needs.ROW, lambda person: person.row[name]),
            (_CUSTOMER[name],),
        )

    def handle(name: str, label: str) -> Column:
        return Column(
            *(f"handles.{name}", label, "profile", _T, Needs.PROFILE),
            lambda person: person.profile.get("handles", {}).get(name),
            (_CUSTOMER["handles"], _HANDLES[name]),
        )

    return [
        Column(
            *("id", "Regulars ID", "profile", _T, Needs.ROW, lambda person: str(person.customer_id)),
            (_CUSTOMER["id"],),
        ),
        one("first_name", "First name"),
        one("last_name", "Last name"),
        one("full_name", "Full name"),
        one("email", "Email"),
        flag("email_verified", "Email verified"),
        one("phone", "Phone"),
        flag("phone_verified", "Phone verified"),
        one(
            "phone_last_digits", "Phone, last digits", of=lambda person: person.profile.get("phone", "")[-4:]
        ),
        one("born_on", "Date of birth", Kind.DATE),
        one("gender", "Gender"),
        one("language", "Language"),
        one("time_zone", "Time zone"),
        one("company", "Company"),
        one("preferred_categories", "Preferred categories", Kind.LIST),
        handle("telegram", "Telegram"),
        handle("telegram_chat_id", "Telegram chat ID"),
        handle("whatsapp", "WhatsApp"),
        handle("facebook", "Facebook"),
        handle("instagram", "Instagram"),
        handle("x", "X (Twitter)"),
    ]


def _names(enum: Any, prefix: str) -> dict[int, str]:
    return {value.number: value.name.removeprefix(prefix) for value in enum.DESCRIPTOR.values if value.number}


_STATUS = _names(customers_pb2.CustomerStatus, "CUSTOMER_STATUS_")
_TYPE = _names(customers_pb2.CustomerType, "CUSTOMER_TYPE_")
_STAGE = _names(customers_pb2.LifecycleStage, "LIFECYCLE_STAGE_")


def _first_source(person: Person) -> Sequence[str]:
    """(name, external id, …) of the first source that knows the customer by an id."""
    found: Sequence[Sequence[str]] = person.standing.get("sources", ())
    return next((source for source in found if len(source) > 1 and source[1]), ("", ""))


def _membership() -> list[Column]:
    def one(
        name: str, label: str, kind: Kind, of: Callable[[Person], Value], needs: Needs = Needs.ROW
    ) -> Column:
        return Column(name, label, "membership", kind, needs, of, (_CUSTOMER[name],))

    def at(name: str, label: str) -> Column:
        return one(name, label, Kind.INSTANT, lambda person: person.row[name])

    return [
        one("status", "Status", _T, lambda person: _STATUS.get(person.row["status"])),
        one("type", "Customer type", _T, lambda person: _TYPE.get(person.row["type"])),
        one(
            *("lifecycle_stage", "Lifecycle stage", _T),
            lambda person: _STAGE.get(person.row["lifecycle_stage"]),
            Needs.METRICS,
        ),
        one("tags", "Tags", Kind.LIST, lambda person: person.row["tags"]),
        Column(
            *("source", "Source", "membership", _T, Needs.ROW, lambda person: person.row["source"]),
            (_SOURCE["name"],),
        ),
        Column(
            *("external_id", "Customer ID", "membership", _T, Needs.STANDING),
            lambda person: _first_source(person)[1],
            (_CUSTOMER["sources"], _SOURCE["external_id"]),
        ),
        at("joined_at", "Joined at"),
        at("last_active_at", "Last active at"),
        at("created_at", "Created at"),
        at("updated_at", "Updated at"),
    ]


def _address() -> list[Column]:
    def one(name: str, label: str, kind: Kind = _T) -> Column:
        return Column(
            *(f"address.{name}", label, "address", kind, Needs.PLACE, lambda person: person.place.get(name)),
            (_ADDRESS[name],),
        )

    return [
        one("label", "Address label"),
        one("recipient", "Recipient"),
        one("street_lines", "Street", Kind.LIST),
        one("city", "City"),
        one("state", "State or province"),
        one("postal_code", "Postal code"),
        one("country", "Country"),
    ]


def _metrics(currency: str) -> list[Column]:
    digits = MINOR_DIGITS.get(currency, 2)

    def one(name: str, label: str, kind: Kind, key: str, shows: str, no: Value = None) -> Column:
        return Column(
            *(name, label, "metrics", kind, Needs.METRICS),
            lambda person: no if (found := person.row[key]) is None else found,
            (_METRICS[shows],),
            digits,
        )

    def money(name: str, label: str) -> Column:
        return one(name, label, Kind.MONEY, f"{name}_minor", name, 0)

    def count(name: str, label: str, key: str) -> Column:
        return one(name, label, Kind.NUMBER, key, key, 0)

    return [
        count("order_count", "Completed orders", "orders_completed"),
        money("total_spent", "Total spent"),
        money("refunded", "Refunded"),
        money("net", "Net spent"),
        money("average_order", "Average order"),
        Column("currency", "Currency", "metrics", _T, Needs.ROW, lambda _: currency),
        one("first_order_at", "First order at", Kind.INSTANT, "first_order_at", "first_order_at"),
        one("last_order_at", "Last order at", Kind.INSTANT, "last_order_at", "last_order_at"),
        count("items", "Items bought", "items"),
        count("visits", "Visits", "visits"),
        one("favourite_category", "Most bought category", _T, "favourite_category", "favourite_category"),
        one("favourite_brand", "Most bought brand", _T, "favourite_brand", "favourite_brand"),
    ]


_ATTRIBUTE_KINDS = {
    attributes.NUMBER: Kind.NUMBER,
    attributes.BOOLEAN: Kind.BOOLEAN,
    attributes.DATE: Kind.DATE,
}


def _attribute(definition: AttributeDefinition, taken: set[str]) -> Column:
    name = definition.name

    def clear(person: Person) -> Value:
        found: Value = person.row["attributes"].get(name)
        return found

    def sealed(person: Person) -> Value:
        found: Value = person.standing.get("attributes", {}).get(name)
        return clear(person) if found is None else found

    return Column(
        f"{ATTRIBUTE}{name}",
        name if name.casefold() not in taken else f"attribute.{name}",
        "attributes",
        _ATTRIBUTE_KINDS.get(definition.type, _T),
        Needs.ROW if definition.not_personal else Needs.STANDING,
        clear if definition.not_personal else sealed,
        (_CUSTOMER["attributes"],),
    )


def known(currency: str, definitions: Mapping[str, AttributeDefinition]) -> dict[str, Column]:
    """Every column of a business's exports by name, in their order."""
    found = [*_profile(), *_membership(), *_address(), *_metrics(currency)]
    taken = {column.label.casefold() for column in found}
    found += [_attribute(definition, taken) for definition in definitions.values()]
    return {column.name: column for column in found}


def chosen(
    asked: Sequence[str], currency: str, definitions: Mapping[str, AttributeDefinition], faults: Faults
) -> tuple[Column, ...]:
    """The columns that were asked for; all of them for none. Notes in `faults` what is no column, or there twice."""
    every = known(currency, definitions)
    found: dict[str, Column] = {}
    for i, name in enumerate(asked or GROUPS):
        if name in GROUPS:
            for column in every.values():
                if column.group == name:
                    found.setdefault(column.name, column)
        elif name not in every:
            faults.add(f"columns[{i}]", "is no column of this business", "UNKNOWN_COLUMN")
        elif name in found and name in asked[:i]:
            faults.add(f"columns[{i}]", "is there twice", "DUPLICATE")
        else:
            found.setdefault(name, every[name])
    return tuple(found.values())


def names(columns: Sequence[Column]) -> list[str]:
    """Their names."""
    return list(map(attrgetter("name"), columns))
