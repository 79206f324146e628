"""A dry run: what an import would do, and nothing written."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs.crypto import live_versions
from libs.db import Tx
from libs.ids import new_id
from services.customers.imports import rules, writing
from services.customers.imports.rows import RowError
from services.customers.imports.rules import Counts, Known, Taken

KEPT = 8  # bytes of a fingerprint that tell the people of a file from each other


class Seen:
    """The customers of the file so far, by a part of their fingerprints: a hundred bytes for each."""

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}

    async def judge(self, tx: Tx, row: Row[Any], chunk: Any, errors: list[RowError]) -> Counts:
        """What would become of the rows of a chunk; adds to `errors` those that would be refused."""
        counts = Counts()
        if row.kind == rules.ORDERS:
            counts.orders_created = sum(each.order is not None for each in chunk.parsed)
            return counts
        live = await live_versions(tx)
        refused = set()
        held = await writing.holders(tx, live, chunk.people)
        for person, known in zip(chunk.people, held, strict=True):
            mine = {kind: digest[:KEPT] for kind, some in person.current.items() for digest in some}
            holders = {
                kind: UUID(int=self._held[short]) for kind, short in mine.items() if short in self._held
            } | known
            match rules.judged(row.duplicates, row.match_by, person.kinds, holders):
                case Known(customer_id):
                    counter = "customers_updated" if row.duplicates == rules.UPDATE else "customers_skipped"
                    setattr(counts, counter, getattr(counts, counter) + 1)
                    held_by = customer_id.int
                case Taken(kind):
                    counts.rows_refused += 1
                    refused.add(person.row)
                    errors.append(
                        RowError(
                            person.row, 0, "", f"customer.{kind}", rules.TAKEN[kind], rules.EXPECTED[kind]
                        )
                    )
                    continue
                case None if person.unreachable:
                    counts.rows_refused += 1
                    refused.add(person.row)
                    errors.append(
                        RowError(
                            *(person.row, 0, "", "customer.email"),
                            *(rules.TAKEN[rules.NO_CONTACT], rules.EXPECTED[rules.NO_CONTACT]),
                        )
                    )
                    continue
                case None:
                    counts.customers_created += 1
                    held_by = new_id().int
            for short in mine.values():
                self._held.setdefault(short, held_by)
        if row.kind == rules.CUSTOMERS_AND_ORDERS:
            counts.orders_created = sum(
                each.order is not None and each.row not in refused for each in chunk.parsed
            )
        return counts
