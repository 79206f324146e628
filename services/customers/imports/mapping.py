"""Which column of a file becomes which field."""

from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from libs.problems import Faults
from services.customers.businesses.rules import AttributeDefinition
from services.customers.imports import targets
from services.customers.imports.guessing import guessed

YMD, DMY, MDY = "YMD", "DMY", "MDY"
DATE_ORDERS = (YMD, DMY, MDY)
DECIMALS = (".", ",")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the file. `target` is a name in `targets`, or "" if the column is left out.

    `confidence` (0 to 1) and `why` tell how a guess came about; a person's choice has 1. `date_order` (one of
    DATE_ORDERS) and `decimal` (one of DECIMALS) tell how the column's dates and amounts are written.
    """

    index: int
    name: str
    target: str = ""
    confidence: float = 1.0
    why: str = ""
    date_order: str = ""
    decimal: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """What becomes of the columns of a file of one ImportKind (`kind`).

    `constants` give targets without a column one value for all rows ({"order.status": "paid"}).
    """

    kind: int
    columns: tuple[Column, ...]
    constants: Map[str, str]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for storing."""
        return {
            "kind": self.kind,
            "columns": [asdict(column) for column in self.columns],
            "constants": dict(self.constants),
        }

    @classmethod
    def of(cls, stored: Map[str, Any]) -> "Mapping":
        """The mapping that `to_json` gave. Fields that this version does not know are left out."""
        names = {f.name for f in fields(Column)}
        columns = [Column(**{n: v for n, v in each.items() if n in names}) for each in stored["columns"]]
        return cls(int(stored["kind"]), tuple(columns), dict(stored.get("constants", {})))

    def check(self, attributes: Map[str, AttributeDefinition], width: int, path: str = "mapping") -> None:
        """Raises InvalidArgument with everything that is wrong, for a file of `width` columns."""
        known = targets.targets(self.kind, attributes)
        faults = Faults()
        seen: dict[str, int] = {}
        places: set[int] = set()
        for i, column in enumerate(self.columns):
            place = f"{path}.columns[{i}]"
            if not 0 <= column.index < width:
                faults.add(f"{place}.index", f"must be from 0 to {width - 1}", "NO_SUCH_COLUMN")
            elif column.index in places:
                faults.add(f"{place}.index", "is named twice", "DUPLICATE")
            places.add(column.index)
            if column.date_order not in ("", *DATE_ORDERS):
                faults.add(f"{place}.date_order", "must be YMD, DMY or MDY", "INVALID")
            if column.decimal not in ("", *DECIMALS):
                faults.add(f"{place}.decimal", 'must be "." or ","', "INVALID")
            if not column.target:
                continue
            if column.target not in known:
                faults.add(f"{place}.target", "is no field of this kind of import", "UNKNOWN_TARGET")
            elif column.target in seen:
                other = seen[column.target]
                faults.add(f"{place}.target", f"is the target of columns[{other}] already", "DUPLICATE")
            seen.setdefault(column.target, i)
        for name in self.constants:
            if name not in known:
                faults.add(f"{path}.constants.{name}", "is no field of this kind of import", "UNKNOWN_TARGET")
            elif name in seen:
                faults.add(f"{path}.constants.{name}", "has a column already", "DUPLICATE")
        given = seen.keys() | self.constants.keys()
        for wanted in missing(self.kind, given):
            faults.add(f"{path}.columns", f"one must be {wanted}", "REQUIRED")
        faults.refuse()


_FINDING = ("email", "phone", "external_id")


def missing(kind: int, given: Any) -> list[str]:
    """What a file of this kind needs and no column gives, in words."""
    prefix = "order.customer." if kind == targets.ORDERS else "customer."
    found = []
    if not any(prefix + name in given for name in _FINDING):
        found.append(" or ".join(prefix + name for name in _FINDING))
    if kind == targets.BALANCES:
        if "customer.id" in given:
            found.clear()
        if not {"balance.points", "balance.lifetime_points"} & set(given):
            found.append("balance.points")
    if kind in targets.OF_ORDERS:
        found += [name for name in ("order.external_id", "order.placed_at") if name not in given]
        if not {"order.total", "order.subtotal", "item.unit_price", "item.total"} & set(given):
            found.append("order.total or item.unit_price")
    return found


def guess(
    kind: int,
    columns: Sequence[str],
    samples: Sequence[Sequence[str]],
    attributes: Map[str, AttributeDefinition],
    *,
    country: str = "",
) -> Mapping:
    """The mapping that names and values of the columns tell; what is not clear stays without a target.

    `samples` are the cells of the first rows. `country` is the business's (how its dates and phones are written).
    """
    found = guessed(kind, columns, samples, attributes, country)
    return Mapping(kind, tuple(Column(i, columns[i], **found[i]) for i in range(len(columns))), {})
