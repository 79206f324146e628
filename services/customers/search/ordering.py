"""Orders of lists by several columns, and where a page begins in them, as pieces of SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Ids bear the millisecond of creation, so they are the order of creation. `m` is the membership, `x` its metrics.
_ID = "m.customer_id"
METRICS: Mapping[str, str] = {
    "last_order_at": "x.last_order_at",
    "total_spent": "x.total_spent_minor",
    "order_count": "x.orders_completed",
    "average_order": "x.average_order_minor",
}
COLUMNS = ("created_at", *METRICS)
_TYPES = {"created_at": "uuid", "last_order_at": "timestamptz", "order_count": "integer"}
# Stand for a missing value of a column that is not the first one: last in either direction.
_LAST = {
    ("timestamptz", True): "'-infinity'::timestamptz",
    ("timestamptz", False): "'infinity'::timestamptz",
    ("bigint", True): "-1",
    ("bigint", False): "9223372036854775807",
    ("integer", True): "-1",
    ("integer", False): "2147483647",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an order."""

    name: str
    descending: bool

    @property
    def type(self) -> str:
        """Its type in SQL."""
        return _TYPES.get(self.name, "bigint")


NEWEST = Column("created_at", True)


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a list: those who have a value in the first column, then those who have none.

    The first part can walk an index, and the second one needs to sort by nothing that is missing.
    """

    columns: tuple[Column, ...]
    condition: str = ""
    needs_metrics: bool = False
    optional_metrics: bool = True
    first_is_there: bool = False

    @property
    def expressions(self) -> list[str]:
        """What is sorted by."""
        return [
            _expression(column, sure=self.first_is_there and not i) for i, column in enumerate(self.columns)
        ]

    @property
    def is_indexed(self) -> bool:
        """True if an index has this order, or almost: few have the same value of the first column."""
        if self.needs_metrics and not self.first_is_there:
            return False
        first, last = self.columns[0], self.columns[-1]
        same_way = first.descending == last.descending or first.name != "order_count"
        return same_way and last.name == "created_at" and len(self.columns) == 1 + self.first_is_there

    @property
    def order(self) -> str:
        """The ORDER BY."""
        parts = zip(self.expressions, self.columns, strict=True)
        return ", ".join(
            f"{expression} {'desc' if column.descending else 'asc'}" for expression, column in parts
        )

    def after(self, values: Sequence[Any]) -> tuple[str, dict[str, Any]]:
        """The condition of coming after a row with these values, and its parameters."""
        params = {f"after{i}": value for i, value in enumerate(values)}
        both = list(zip(self.expressions, self.columns, strict=True))
        ways = []
        for i, (expression, column) in enumerate(both):
            same = [f"{e} = %(after{j})s::{c.type}" for j, (e, c) in enumerate(both[:i])]
            further = f"{expression} {'<' if column.descending else '>'} %(after{i})s::{column.type}"
            ways.append("(" + " and ".join([*same, further]) + ")")
        # Says nothing new, and bounds the walk of an index by the first column.
        first = f"{both[0][0]} {'<=' if both[0][1].descending else '>='} %(after0)s::{both[0][1].type}"
        return f"{first} and ({' or '.join(ways)})", params


def phases(columns: Sequence[Column]) -> list[Phase]:
    """The parts of a list in the order of these columns, ties by newest first."""
    whole = tuple(columns)
    if all(column.name != "created_at" for column in whole):
        whole = (*whole, NEWEST)
    uses = any(column.name in METRICS for column in whole)
    if whole[0].name not in METRICS:
        return [Phase(whole, needs_metrics=uses)]
    first = METRICS[whole[0].name]
    return [
        Phase(whole, f"{first} is not null", needs_metrics=True, optional_metrics=False, first_is_there=True),
        Phase(whole[1:], f"{first} is null", needs_metrics=True),
    ]


def _expression(column: Column, *, sure: bool) -> str:
    if column.name == "created_at":
        return _ID
    value = METRICS[column.name]
    return value if sure else f"coalesce({value}, {_LAST[column.type, column.descending]})"
