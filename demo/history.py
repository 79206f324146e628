"""The purchase history itself, and what must be in Regulars once it is told: everything is checked against this."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from demo.people import Someone, people

SAMPLE = Path(__file__).parent / "cdnow" / "sample.txt"
CUSTOMERS = 2357


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line of the sample. `line` counts from 1."""

    line: int
    customer: int
    day: date
    discs: int
    dollars: Decimal


@dataclass(frozen=True)
class Till:
    """An order that the demonstration records by itself."""

    external_id: str
    discs: int
    minor: int

    @property
    def dollars(self) -> Decimal:
        """What it comes to."""
        return Decimal(self.discs * self.minor) / 100

    def order(self, customer_id: str, today: date) -> dict[str, Any]:
        """The order as it is recorded today: on another day a newer revision, and never a second order."""
        return {
            "source": "till",
            "externalId": self.external_id,
            "revision": today.toordinal(),
            "status": "PAID",
            "placedAt": datetime.combine(today, time(), UTC).isoformat().replace("+00:00", "Z"),
            "customerId": customer_id,
            "channel": "pos",
            "items": [{"sku": "CD-7", "name": "Kind of Blue", "category": "Music", "brand": "Columbia",
                       "quantity": self.discs, "unitPrice": {"amountMinor": self.minor}}],
        }  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """Members of a tier, what they spent, and the points that they have."""

    members: int = 0
    dollars: Decimal = Decimal(0)
    points: int = 0


FOUND = Till("demo-1", 2, 1299)  # of who is found by a misspelt name
RISING = Till("demo-2", 1, 1499)  # of who rises by it


@dataclass(frozen=True)
class History:
    """What the first customers of the sample bought. Two orders at the till are not in it."""

    customers: int = CUSTOMERS

    @cached_property
    def purchases(self) -> list[Purchase]:
        """In the order of the sample's lines."""
        found = []
        for line, text in enumerate(SAMPLE.read_text().splitlines(), 1):
            _, customer, day, discs, dollars = text.split()
            when = date(int(day[:4]), int(day[4:6]), int(day[6:]))
            found.append(Purchase(line, int(customer), when, int(discs), Decimal(dollars)))
        return [purchase for purchase in found if purchase.customer <= self.customers]

    @cached_property
    def people(self) -> list[Someone]:
        """Who bought, in the order of their numbers."""
        return list(people(self.customers))

    @cached_property
    def dollars(self) -> Decimal:
        """What all purchases come to."""
        return sum((purchase.dollars for purchase in self.purchases), Decimal(0))

    @cached_property
    def found(self) -> Someone:
        """The best customer of those with a long name that they share with nobody."""
        names = Counter((one.first, one.last) for one in self.people)
        orders = Counter(purchase.customer for purchase in self.purchases)
        alone = [one for one in self.people if names[one.first, one.last] == 1 and len(one.last) > 6]
        return max(alone, key=lambda one: (orders[one.number], -one.number))

    def rising(self, threshold: Decimal) -> Someone:
        """Who lacks least of a tier's threshold."""
        spent = self._spent({})
        below = [one for one in self.people if spent[one.number] < threshold and one != self.found]
        return max(below, key=lambda one: (spent[one.number], -one.number))

    def points(self, *till: Till) -> int:
        """What all orders give by the rule: a point for each whole dollar of an order."""
        amounts = [*(purchase.dollars for purchase in self.purchases), *(order.dollars for order in till)]
        return sum(int(dollars) for dollars in amounts)

    def standings(self, thresholds: dict[str, Decimal], till: dict[int, Till]) -> dict[str, Standing]:
        """Who stands where by what they spent in all, by tier from the lowest; `till` by number of the customer."""
        spent, points = self._spent(till), Counter({one.number: 0 for one in self.people})
        for purchase in self.purchases:
            points[purchase.customer] += int(purchase.dollars)
        for number, order in till.items():
            points[number] += int(order.dollars)
        found = dict.fromkeys(thresholds, Standing())
        for one in self.people:
            tier = [name for name, least in thresholds.items() if spent[one.number] >= least][-1]
            so_far = found[tier]
            found[tier] = Standing(
                so_far.members + 1, so_far.dollars + spent[one.number], so_far.points + points[one.number]
            )
        return found

    def weeks_until(self, today: date) -> int:
        """By how many whole weeks the purchases move so that the last one was within the last seven days."""
        last = max(purchase.day for purchase in self.purchases)
        return ((today - last).days - 1) // 7

    def _spent(self, till: dict[int, Till]) -> dict[int, Decimal]:
        found = {one.number: Decimal(0) for one in self.people}
        for purchase in self.purchases:
            found[purchase.customer] += purchase.dollars
        for number, order in till.items():
            found[number] += order.dollars
        return found
