"""How the columns of a file are guessed: by their names in many languages, and by their values."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz, process

from libs import formats
from libs.formats import Wrong
from services.customers.businesses.rules import DATE, NUMBER, AttributeDefinition
from services.customers.imports import places, targets, values
from services.customers.imports.countries import country as country_code
from services.customers.imports.headers import EXPORTS, NAMES, normal
from services.customers.imports.values import DMY, MDY, YMD

BY_EXPORT, BY_NAME, BY_OTHER_NAME, BY_NEAR_NAME, BY_VALUES = 0.98, 0.97, 0.93, 0.75, 0.7
NEAR = 88  # of 100: how alike a name must be to a known one
SHORTEST_NEAR = 5  # characters; short names are too near to each other
MOST_SAMPLES = 200
ENOUGH = 0.8  # of the values that are there
CONTRADICTED = 0.2
_MONTH_FIRST = frozenset({"US", "PH", "FM", "MH", "PW", "GU", "AS", "MP", "PR", "VI"})

_CUSTOMER = {
    **{
        name: f"customer.{name}"
        for name in ("email", "phone", "first_name", "last_name", "full_name", "born_on")
    },
    **{
        name: f"customer.{name}"
        for name in ("gender", "language", "time_zone", "company", "preferred_categories")
    },
    **{name: f"customer.{name}" for name in ("email_verified", "phone_verified")},
    **{
        f"handles.{n}": f"customer.handles.{n}"
        for n in ("telegram", "whatsapp", "facebook", "instagram", "x")
    },
    "handles.telegram_chat_id": "customer.handles.telegram_chat_id",
    "customer_id": "customer.external_id",
    "customer_status": "customer.status",
    "customer_type": "customer.type",
    "customer_tags": "customer.tags",
}
_ADDRESS = {
    **{name: f"address.{name}" for name in ("city", "state", "postal_code", "country", "recipient")},
    "street": "address.street_lines",
    "street_2": "address.street_line_2",
    "address_label": "address.label",
}
# Beside a city these are a part of the address, elsewhere a status.
_STATES = frozenset({"state", "estado", "stato"})
_BUYER = {
    **{name: f"order.customer.{name}" for name in ("email", "phone", "first_name", "last_name")},
    "customer_id": "order.customer.external_id",
}
_ORDER = {
    **{
        name: f"order.{name}" for name in ("placed_at", "currency", "subtotal", "discount", "shipping", "tax")
    },
    **{
        name: f"order.{name}"
        for name in ("tax_included", "total", "refunded", "channel", "store", "revision")
    },
    **{name: f"item.{name}" for name in ("sku", "category", "brand", "quantity", "unit_price")},
    "order_id": "order.external_id",
    "order_status": "order.status",
    "order_tags": "order.tags",
    "item_name": "item.name",
    "item_discount": "item.discount",
    "line_total": "item.total",
    "date": "order.placed_at",
}
_BALANCE = {
    **{name: f"customer.{name}" for name in ("email", "phone")},
    **{name: f"balance.{name}" for name in ("points", "lifetime_points", "program", "reason", "reference")},
    "customer_id": "customer.external_id",
    "points_expire": "balance.expires_at",
    "points_earned": "balance.earned_at",
    "date": "balance.earned_at",
}
# What a concept is in a file of each kind; what is not here stays without a target.
_CONCEPTS: Mapping[int, Mapping[str, str]] = {
    targets.CUSTOMERS: _CUSTOMER
    | _ADDRESS
    | {"id": "customer.external_id", "status": "customer.status", "tags": "customer.tags"},
    targets.ORDERS: _ORDER
    | _BUYER
    | {"id": "order.external_id", "status": "order.status", "tags": "order.tags"},
    targets.CUSTOMERS_AND_ORDERS: _CUSTOMER
    | _ADDRESS
    | _ORDER
    | {"tags": "customer.tags", "status": "order.status"},
    targets.BALANCES: _BALANCE,
}


def guessed(
    kind: int,
    columns: Sequence[str],
    samples: Sequence[Sequence[str]],
    attributes: Mapping[str, AttributeDefinition],
    country: str,
) -> list[dict[str, Any]]:
    """For each column: target, confidence, why, date_order, decimal."""
    known = targets.targets(kind, attributes)
    cells = [
        [row[i] for row in samples[:MOST_SAMPLES] if i < len(row) and row[i].strip()]
        for i in range(len(columns))
    ]
    found = _by_names(kind, columns, known)
    for i, guess in enumerate(found):
        share = _share(known[guess["target"]], cells[i], country) if guess["target"] else None
        if share is not None and share < CONTRADICTED:
            guess.update(target="", confidence=0.0, why="its name says one thing and its values another")
        elif share is not None and share < ENOUGH:
            guess["confidence"] = round(guess["confidence"] * 0.7, 2)
    _add_state(columns, found, cells)
    _drop_doubles(found)
    _drop_streets(found, samples[:MOST_SAMPLES], known, country)
    _by_values(kind, found, cells, country)
    for i, guess in enumerate(found):
        if guess["target"]:
            _add_shape(known[guess["target"]], guess, cells[i], country)
    return found


def _guess(target: str, confidence: float, why: str) -> dict[str, Any]:
    return {"target": target, "confidence": confidence if target else 0.0, "why": why if target else ""}


def _by_names(kind: int, columns: Sequence[str], known: Mapping[str, targets.Target]) -> list[dict[str, Any]]:
    names = [normal(column) for column in columns]
    concepts = _CONCEPTS[kind]
    there = set(names)
    export, meanings = next(
        ((title, meanings) for title, telling, meanings in EXPORTS if telling <= there),
        ("", dict[str, str]()),
    )
    # Our own template and names of fields ("customer.email"), and the business's attributes.
    own = {normal(target.name): target.name for target in known.values()}
    own |= {normal(target.label): target.name for target in known.values()}
    found = []
    for name in names:
        if name in meanings:
            found.append(
                _guess(concepts.get(meanings[name], ""), BY_EXPORT, f"the file is an export of {export}")
            )
        elif name in own:
            found.append(_guess(own[name], BY_NAME, "its name is that of the field"))
        elif name in NAMES:
            concept, first = NAMES[name]
            found.append(
                _guess(concepts.get(concept, ""), BY_NAME if first else BY_OTHER_NAME, "its name says so")
            )
        else:
            found.append(_near(name, concepts))
    return found


def _near(name: str, concepts: Mapping[str, str]) -> dict[str, Any]:
    """By names that are alike, if all that are as near mean the same."""
    if len(name) < SHORTEST_NEAR:
        return _guess("", 0, "")
    near = process.extract(name, NAMES.keys(), scorer=fuzz.ratio, score_cutoff=NEAR, limit=5)
    near = [each for each in near if len(each[0]) >= SHORTEST_NEAR]
    meant = {concepts.get(NAMES[each][0], "") for each, score, _ in near if score >= near[0][1] - 2}
    return _guess(meant.pop() if len(meant) == 1 else "", BY_NEAR_NAME, "its name is like a known one")


def _share(target: targets.Target, cells: Sequence[str], country: str) -> float | None:
    """Which share of the values fits the field; None where nothing can be said."""
    fits = _FITS.get(target.reads)
    if fits is None or not cells:
        return None
    return sum(fits(cell.strip(), country) for cell in cells) / len(cells)


def _is_email(text: str, _: str) -> bool:
    try:
        return "@" in text and bool(formats.email(text))
    except Wrong:
        return False


def _is_phone(text: str, country: str) -> bool:
    """True for what is plainly a phone: mere digits may be an id or a date."""
    try:
        return text.startswith(("+", "0", "(")) and bool(formats.phone(text, country))
    except Wrong:
        return False


def _may_be_phone(text: str, _: str) -> bool:
    return sum(c.isdigit() for c in text) >= 4


_DATE = re.compile(
    r"\d{1,4}\s*[./\-年 ]\s*\d{1,2}\s*[./\-月 ]\s*\d{1,4}.*|\d{8}|\d{10}|\d{13}|.*[^\W\d]{3,}.*\d.*",
    re.DOTALL,
)
_AMOUNT = re.compile(r"[^\d]{0,6}\d[\d.,'’ \u00a0\u202f]*[^\d]{0,6}")


def _is_date(text: str, _: str) -> bool:
    return len(text) <= 60 and _DATE.fullmatch(text) is not None


def _is_amount(text: str, _: str) -> bool:
    return len(text) <= 40 and _AMOUNT.fullmatch(text) is not None


def _is_country(text: str, _: str) -> bool:
    try:
        return bool(country_code(text))
    except Wrong:
        return False


_FITS: dict[str, Callable[[str, str], bool]] = {
    targets.COUNTRY: _is_country,
    targets.EMAIL: _is_email,
    targets.PHONE: _may_be_phone,
    targets.BIRTH_DATE: _is_date,
    targets.MOMENT: _is_date,
    targets.AMOUNT: _is_amount,
    targets.INTEGER: _is_amount,
    targets.POINTS: _is_amount,
    targets.EXPIRY: _is_date,
}


def _drop_doubles(found: list[dict[str, Any]]) -> None:
    """Of columns for one field the surest stays; if several are as sure, none."""
    of: dict[str, list[dict[str, Any]]] = {}
    for guess in found:
        if guess["target"]:
            of.setdefault(guess["target"], []).append(guess)
    for guesses in of.values():
        best = max(guess["confidence"] for guess in guesses)
        alone = sum(guess["confidence"] == best for guess in guesses) == 1
        for guess in guesses:
            if not (alone and guess["confidence"] == best):
                guess.update(target="", confidence=0.0, why="another column could be the same field")


def _add_state(columns: Sequence[str], found: list[dict[str, Any]], cells: Sequence[Sequence[str]]) -> None:
    """A "State" beside a city or a postal code is where somebody lives, unless its values are statuses."""
    if not {"address.city", "address.postal_code"} & {guess["target"] for guess in found}:
        return
    is_status = values.customer_status()
    for name, guess, some in zip(map(normal, columns), found, cells, strict=True):
        if guess["target"] == "customer.status" and name in _STATES:
            told = sum(_reads(is_status, cell) for cell in some)
            if told < ENOUGH * max(len(some), 1):
                guess.update(_guess("address.state", BY_OTHER_NAME, "its name says so beside a city"))


def _reads(read: values.Reader, cell: str) -> bool:
    try:
        read(cell)
    except values.CellWrong:
        return False
    return True


def _drop_streets(
    found: list[dict[str, Any]],
    samples: Sequence[Sequence[str]],
    known: Mapping[str, targets.Target],
    country: str,
) -> None:
    """Streets stay out where most addresses would not be complete with them: then their rows would be refused."""
    at = {guess["target"]: i for i, guess in enumerate(found) if guess["target"].startswith(places.PREFIX)}
    if "address.street_lines" not in at:
        street = at.get("address.street_line_2")
        if street is not None:
            found[street].update(target="", confidence=0.0, why="there is no first line of a street")
        return
    readers: dict[str, values.Reader] = {
        targets.TEXT: values.text(0),
        targets.COUNTRY: values.country(),
        targets.STREET: values.street(0),
    }
    home = "" if "address.country" in at else country
    whole = right = 0
    for row in samples:
        if len(row) <= at["address.street_lines"] or not row[at["address.street_lines"]].strip():
            continue
        whole += 1
        try:
            given = {
                target: readers[known[target].reads](row[i])
                for target, i in at.items()
                if i < len(row) and row[i].strip()
            }
        except values.CellWrong:
            continue
        right += not places.place_of(given, home)[1]
    complete = {"address.city", "address.postal_code"} & at.keys()
    if right < whole / 2 or not (whole or complete):
        for target in ("address.street_lines", "address.street_line_2"):
            if target in at:
                found[at[target]].update(
                    target="", confidence=0.0, why="with it most addresses would not be complete"
                )


def _by_values(kind: int, found: list[dict[str, Any]], cells: Sequence[Sequence[str]], country: str) -> None:
    """What only the values tell: the one column of e-mails, of phones; of orders the one of dates, of amounts."""
    person = "order.customer." if kind == targets.ORDERS else "customer."
    looked_for: list[tuple[str, Callable[[str, str], bool]]] = [
        (person + "email", _is_email),
        (person + "phone", _is_phone),
    ]
    if kind in targets.OF_ORDERS:
        looked_for += [("order.placed_at", _is_plain_date), ("order.total", _has_decimals)]
    taken = {guess["target"] for guess in found}
    for target, fits in looked_for:
        if target in taken:
            continue
        fitting = [
            i
            for i, guess in enumerate(found)
            if not guess["target"]
            and cells[i]
            and sum(fits(cell.strip(), country) for cell in cells[i]) >= ENOUGH * len(cells[i])
        ]
        if len(fitting) == 1 and not found[fitting[0]]["why"]:
            found[fitting[0]].update(_guess(target, BY_VALUES, "its values look like it"))


def _is_plain_date(text: str, _: str) -> bool:
    return re.match(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}", text) is not None


def _has_decimals(text: str, country: str) -> bool:
    return _is_amount(text, country) and re.search(r"[.,]\d\d\D*$", text) is not None


def _add_shape(target: targets.Target, guess: dict[str, Any], cells: Sequence[str], country: str) -> None:
    """How the column's dates and amounts are written."""
    definition = target.attribute
    if target.reads in (targets.AMOUNT, targets.INTEGER, targets.POINTS) or (
        definition and definition.type == NUMBER
    ):
        signs = {values.decimal_of(cell) for cell in cells} - {""}
        guess["decimal"] = signs.pop() if len(signs) == 1 else ""
    dated = (targets.BIRTH_DATE, targets.MOMENT, targets.REVISION, targets.EXPIRY)
    if target.reads in dated or (definition and definition.type == DATE):
        order, sure = date_order(cells, country)
        guess["date_order"] = order
        if not sure:
            guess["confidence"] = min(guess["confidence"], 0.6)
            guess["why"] += "; whether day or month comes first is not clear"


def date_order(cells: Sequence[str], country: str) -> tuple[str, bool]:
    """How a column's dates are written, by all of its values, and whether they leave no doubt."""
    numbers = [found for cell in cells if (found := values.numbers_of_date(cell))]
    usual = MDY if country in _MONTH_FIRST else DMY
    if not numbers:
        return (YMD if cells else usual), True
    day_first = any(first > 12 for first, _, _ in numbers)
    month_first = any(second > 12 for _, second, _ in numbers)
    if day_first and not month_first:
        return DMY, True
    if month_first and not day_first:
        return MDY, True
    if not day_first and any("." in cell for cell in cells):
        return DMY, True  # dots are for days first everywhere
    return usual, False
