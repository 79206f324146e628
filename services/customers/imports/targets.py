"""What a column of a file can become: the fields of customers, orders and items."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor

from regulars.customers.v1 import addresses_pb2, customers_pb2, orders_pb2
from services.customers.businesses.rules import AttributeDefinition

# ImportKind. Points belong to another service; rows that are others' come after it.
CUSTOMERS, ORDERS, CUSTOMERS_AND_ORDERS, BALANCES = 1, 2, 3, 4
KINDS = (CUSTOMERS, ORDERS, CUSTOMERS_AND_ORDERS, BALANCES)
OF_ORDERS = (ORDERS, CUSTOMERS_AND_ORDERS)

# What the text of a cell is read as.
TEXT, EMAIL, PHONE, BIRTH_DATE, LANGUAGE, TIME_ZONE, COUNTRY = (
    *("text", "email", "phone", "birth_date", "language", "time_zone"),
    "country",
)
BOOLEAN, TAGS, AMOUNT, INTEGER, MOMENT, CURRENCY = (
    "boolean",
    "tags",
    "amount",
    "integer",
    "moment",
    "currency",
)
CUSTOMER_STATUS, CUSTOMER_TYPE, ORDER_STATUS = "customer_status", "customer_type", "order_status"
SOURCE_ID, ATTRIBUTE, REVISION, STREET = "source_id", "attribute", "revision", "street"
POINTS, EXPIRY, CUSTOMER_UUID = "points", "expiry", "customer_uuid"

ATTRIBUTE_PREFIX = "attribute."


@dataclass(frozen=True, slots=True)
class Target:
    """A field that a column may become. `reads` is how its cells are read; `most` the characters (tags: of each).

    `field` is the path that a wrong value is reported at, as the RPCs do.
    """

    name: str
    field: str
    reads: str
    label: str
    help: str
    example: str = ""
    most: int = 0
    attribute: AttributeDefinition | None = None


def _most(descriptor: Descriptor, name: str) -> int:
    """The most characters that the contract allows a text field (of a list: each item)."""
    rules = descriptor.fields_by_name[name].GetOptions().Extensions[validate_pb2.field]
    return int(rules.string.max_len or rules.repeated.items.string.max_len)


_CUSTOMER, _ORDER = customers_pb2.Customer.DESCRIPTOR, orders_pb2.Order.DESCRIPTOR
_BUYER, _ITEM = orders_pb2.OrderCustomer.DESCRIPTOR, orders_pb2.OrderItem.DESCRIPTOR
_ADDRESS = addresses_pb2.Address.DESCRIPTOR


def _of(
    descriptor: Descriptor,
    prefix: str,
    path: str,
    reads: str,
    name: str,
    label: str,
    text: str,
    example: str = "",
) -> Target:
    most = _most(descriptor, name) if name in descriptor.fields_by_name else 0
    return Target(f"{prefix}.{name}", f"{path}.{name}", reads, label, text, example, most)


def _customer() -> list[Target]:
    def one(name: str, reads: str, label: str, text: str, example: str = "") -> Target:
        return _of(_CUSTOMER, "customer", "customer", reads, name, label, text, example)

    handles = customers_pb2.Handles.DESCRIPTOR
    return [
        Target(
            *("customer.external_id", "customer.sources[0].external_id", SOURCE_ID, "Customer ID"),
            *("The customer's id in the system that the file comes from.", "C-1001", 200),
        ),
        one("email", EMAIL, "Email", "An e-mail address.", "ann.lee@example.com"),
        one("phone", PHONE, "Phone", "A phone, national or international.", "+442079460018"),
        one("first_name", TEXT, "First name", "The first name.", "Ann"),
        one("last_name", TEXT, "Last name", "The last name.", "Lee"),
        one("full_name", TEXT, "Full name", "The whole name, where first and last name are not apart.", ""),
        one("born_on", BIRTH_DATE, "Date of birth", "A date from 1900 to today.", "1985-04-23"),
        one("gender", TEXT, "Gender", "In the customer's own words.", "female"),
        one("language", LANGUAGE, "Language", "A language tag (en, pt-BR) or its English name.", "en"),
        one("time_zone", TIME_ZONE, "Time zone", "An IANA time zone.", "Europe/London"),
        one("company", TEXT, "Company", "The company.", "Lee Ltd"),
        one("status", CUSTOMER_STATUS, "Status", "active, inactive, vip, blocked or pending.", "active"),
        one(
            "type", CUSTOMER_TYPE, "Customer type", "guest, registered, wholesale or affiliate.", "registered"
        ),
        one("tags", TAGS, "Tags", "Tags, apart by commas, semicolons or bars.", "newsletter, tea"),
        one(
            *("preferred_categories", TAGS, "Preferred categories"),
            *("Product categories that the customer likes, apart as tags are.", "tea"),
        ),
        one(
            "email_verified",
            BOOLEAN,
            "Email verified",
            "Yes if the customer has shown it to be theirs.",
            "yes",
        ),
        one(
            "phone_verified",
            BOOLEAN,
            "Phone verified",
            "Yes if the customer has shown it to be theirs.",
            "no",
        ),
        *(
            _of(
                handles,
                "customer.handles",
                "customer.handles",
                TEXT,
                name,
                label,
                f"{label} of the customer.",
            )
            for name, label in (
                ("telegram", "Telegram"),
                ("telegram_chat_id", "Telegram chat ID"),
                ("whatsapp", "WhatsApp"),
                ("facebook", "Facebook"),
                ("instagram", "Instagram"),
                ("x", "X (Twitter)"),
            )
        ),
    ]


def _address() -> list[Target]:
    """The customer's default address."""

    def one(name: str, reads: str, label: str, text: str, example: str = "") -> Target:
        return _of(_ADDRESS, "address", "address", reads, name, label, text, example)

    most = _most(_ADDRESS, "street_lines")
    return [
        one("label", TEXT, "Address label", "The customer's word for the address.", ""),
        one("recipient", TEXT, "Recipient", "Who receives there, if it is not the customer.", ""),
        one("street_lines", STREET, "Street", "Street and number.", "1 High Street"),
        Target(
            *("address.street_line_2", "address.street_lines[1]", STREET, "Street, second line"),
            *("What comes below the street: floor, flat, building.", "", most),
        ),
        one("city", TEXT, "City", "City or town.", "London"),
        one("state", TEXT, "State or province", "State, province or prefecture: code or name.", ""),
        one("postal_code", TEXT, "Postal code", "The postal code.", "SW1A 1AA"),
        one("country", COUNTRY, "Country", "A country's code (GB) or name.", "GB"),
    ]


def _order() -> list[Target]:
    def one(name: str, reads: str, label: str, text: str, example: str = "") -> Target:
        return _of(_ORDER, "order", "order", reads, name, label, text, example)

    return [
        one(
            "external_id",
            TEXT,
            "Order ID",
            "The order's id; required. Rows that follow each other are one.",
            "1001",
        ),
        one("placed_at", MOMENT, "Order date", "When it was placed; required.", "2026-03-14 15:09:26"),
        one(
            "status",
            ORDER_STATUS,
            "Order status",
            "pending, paid, fulfilled, delivered, cancelled, …",
            "paid",
        ),
        one("currency", CURRENCY, "Currency", "The business's currency.", ""),
        one("subtotal", AMOUNT, "Subtotal", "All items together.", ""),
        one("discount", AMOUNT, "Order discount", "The discount on the whole order.", "5.00"),
        one("shipping", AMOUNT, "Shipping", "The shipping costs.", "4.90"),
        one("tax", AMOUNT, "Tax", "The tax.", "0.00"),
        one("tax_included", BOOLEAN, "Tax included", "Yes if the prices include the tax.", "yes"),
        one("total", AMOUNT, "Total", "What is paid. Required without items.", "24.90"),
        one("refunded", AMOUNT, "Refunded", "How much was refunded so far.", "0.00"),
        one("channel", TEXT, "Channel", "How it was placed: web, app, pos.", "web"),
        one("store", TEXT, "Store", "Name or number of the store.", "London"),
        one("tags", TAGS, "Order tags", "Tags of the order.", "gift"),
        one(
            "revision", REVISION, "Order revision", "A number or an instant that grows with each change.", ""
        ),
    ]


def _buyer() -> list[Target]:
    def one(name: str, reads: str, label: str, text: str, example: str = "") -> Target:
        return _of(_BUYER, "order.customer", "order.customer", reads, name, label, text, example)

    return [
        one("external_id", TEXT, "Customer ID", "The customer's id where the file comes from.", "C-1001"),
        one("email", EMAIL, "Email", "The customer's e-mail.", "ann.lee@example.com"),
        one("phone", PHONE, "Phone", "The customer's phone.", "+442079460018"),
        one("first_name", TEXT, "First name", "First name of a new guest.", "Ann"),
        one("last_name", TEXT, "Last name", "Last name of a new guest.", "Lee"),
    ]


def _items() -> list[Target]:
    def one(name: str, reads: str, label: str, text: str, example: str = "") -> Target:
        return _of(_ITEM, "item", "order.items[]", reads, name, label, text, example)

    return [
        one("sku", TEXT, "SKU", "The article's number.", "TEA-01"),
        one("name", TEXT, "Item name", "The article's name.", "Green tea"),
        one("category", TEXT, "Category", "The article's category.", "Tea"),
        one("brand", TEXT, "Brand", "The article's brand.", "Leaf"),
        one("quantity", INTEGER, "Quantity", "How many; 1 if left out.", "2"),
        one("unit_price", AMOUNT, "Unit price", "The price of one.", "12.50"),
        one("discount", AMOUNT, "Item discount", "The discount on the line.", "0.00"),
        one("total", AMOUNT, "Line total", "The line's price in all, where there is no unit price.", ""),
    ]


def _balance() -> list[Target]:
    """Points of a customer, and what finds them."""
    known = {target.name: target for target in _customer()}
    keys = [known[f"customer.{name}"] for name in ("external_id", "email", "phone")]
    keys.insert(
        1,
        Target(
            *("customer.id", "customer.id", CUSTOMER_UUID, "Regulars ID"),
            *("The customer's id in this platform, as exports have it.", ""),
        ),
    )

    def one(name: str, reads: str, label: str, text: str, example: str = "", most: int = 0) -> Target:
        return Target(f"balance.{name}", f"balance.{name}", reads, label, text, example, most)

    return [
        *keys,
        one("points", POINTS, "Points", "Points that the customer has; required.", "250"),
        one(
            *("expires_at", EXPIRY, "Points expire on"),
            *("The last day on which they can be spent, or an instant. Empty: by the program.", "2030-12-31"),
        ),
        one("earned_at", MOMENT, "Points earned on", "When they were earned; empty: now.", "2026-03-14"),
        one(
            *("lifetime_points", POINTS, "Lifetime points"),
            *("Points that were ever earned there: they count for tiers, and cannot be spent.", ""),
        ),
        one("program", TEXT, "Program", "Name or id of a program; empty: the default one.", "", 100),
        one("reason", TEXT, "Reason", "Why the customer has them; staff see it.", "", 500),
        one(
            *("reference", TEXT, "Reference"),
            *("Number of the booking there: a row with it is taken once for a customer.", "", 200),
        ),
    ]


@cache
def of_kind(kind: int) -> Mapping[str, Target]:
    """The targets of an ImportKind by name, without attributes."""
    found = {
        CUSTOMERS: [*_customer(), *_address()],
        ORDERS: [*_order(), *_buyer(), *_items()],
        CUSTOMERS_AND_ORDERS: [*_customer(), *_address(), *_order(), *_items()],
        BALANCES: _balance(),
    }[kind]
    return {target.name: target for target in found}


TARGETS: Mapping[int, Mapping[str, Target]] = {kind: of_kind(kind) for kind in KINDS}


def targets(kind: int, attributes: Mapping[str, AttributeDefinition]) -> dict[str, Target]:
    """The targets of an ImportKind by name, with those of a business's attributes where customers are written."""
    found = dict(of_kind(kind))
    if kind in (CUSTOMERS, CUSTOMERS_AND_ORDERS):
        for name, definition in attributes.items():
            if not definition.archived:
                found[f"{ATTRIBUTE_PREFIX}{name}"] = Target(
                    *(f"{ATTRIBUTE_PREFIX}{name}", f"customer.attributes.{name}", ATTRIBUTE, name),
                    f"The attribute {name} of the business.",
                    attribute=definition,
                )
    return found
