"""Members of a household spend each other's points, and what comes back goes to whom it came from.

All accounts that take part are locked at once, in the order of their ids; before them the household is shared, so that
nobody leaves meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, text

from libs.db import Tx
from libs.pipeline import Query
from libs.problems import Conflict
from services.loyalty.households import queries, rules
from services.loyalty.households.rules import Origin, Pair
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger import reading, writing
from services.loyalty.ledger.writing import Owned
from services.loyalty.programs.queries import Program

# Pooled lots of an account, and those among some lots, with the lot of another member that each came from: over merges,
# which give a pooled lot a twin.
_ORIGINS = Query(
    text("""
    with recursive pooled as (
        select l.lot_id as pooled_id, l.origin_lot_id, l.entry_id from lots l
        where l.tenant_id = :tenant and l.pooled and l.remaining > 0
          and l.account_id = (select a.account_id from accounts a where a.tenant_id = :tenant
                              and a.program_id = :program and a.customer_id = :customer)
        union
        select l.lot_id, l.origin_lot_id, l.entry_id from lots l
        where l.tenant_id = :tenant and l.lot_id = any(:lots) and l.pooled
    ), way as (
        select p.pooled_id, p.origin_lot_id, p.entry_id from pooled p
        union all
        select w.pooled_id, l.origin_lot_id, l.entry_id from way w
        join lots l on l.tenant_id = :tenant and l.lot_id = w.origin_lot_id and l.pooled
    )
    select w.pooled_id, l.lot_id, l.account_id, e.source from way w
    join lots l on l.tenant_id = :tenant and l.lot_id = w.origin_lot_id and not l.pooled
    join entries e on e.tenant_id = :tenant and e.entry_id = w.entry_id
""").bindparams(bindparam("lots", type_=ARRAY(Uuid)))
)


@dataclass(frozen=True, slots=True)
class Together:
    """A member's book with those of others, all locked and settled."""

    mine: Owned
    others: Mapping[UUID, Owned]
    origins: Mapping[UUID, Origin] = field(default_factory=dict)
    source: str = ""

    @property
    def all(self) -> list[Owned]:
        """What is to be written."""
        return [self.mine, *self.others.values()]

    def draw(self, points: int) -> None:
        """Gives the member what they lack of so many points. Raises InsufficientPoints."""
        givers = [each.book for each in self.others.values()]
        self._name(rules.draw(self.mine.book, givers, points, self.source))

    def give_back(self) -> None:
        """Returns what the member does not spend after all."""
        givers = {account_id: each.book for account_id, each in self.others.items()}
        self._name(rules.give_back(self.mine.book, givers, self.origins))

    def _name(self, pairs: Iterable[Pair]) -> None:
        """Says of each entry who is on its other side."""
        owned = {each.book.account.account_id: each for each in self.all}
        for pair in pairs:
            giver, taker = owned[pair.giver], owned[pair.taker]
            giver.others[pair.given_id] = taker.customer_id
            taker.others[pair.taken_id] = giver.customer_id


async def with_household(tx: Tx, program: Program, customer_id: UUID) -> Together:
    """A member's book with those of the household on whom they may draw."""
    household_id = None
    if program.settings.pooling_allowed:
        household_id = await queries.shared(tx, program.program_id, customer_id)
    others: dict[UUID, UUID] = {}
    if household_id is not None:
        rows = await queries.standings(tx, program, household_id)
        if any(row.customer_id == customer_id for row in rows):  # if not, they have left just now
            others = {
                row.account_id: row.customer_id
                for row in rows
                if row.account_id is not None and not row.frozen and row.customer_id != customer_id
            }
    return await _locked(tx, program, customer_id, others, source=f"household:{household_id}")


async def with_givers(
    tx: Tx, program: Program, customer_id: UUID, more_lots: Collection[UUID] = ()
) -> Together:
    """A member's book, also with `more_lots` that are closed, and those of whom pooled points came from."""
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "program": program.program_id,
        "customer": customer_id,
        "lots": list(more_lots),
    }
    _, rows = await tx.together((reading.FIND_BY_KEY, {}), (_ORIGINS, where))
    if not rows:
        return await _locked(tx, program, customer_id, {}, more_lots)
    now = await reading.roots(tx, {row.account_id for row in rows})
    origins = {
        row.pooled_id: Origin(account_id=now[row.account_id], lot_id=row.lot_id, source=row.source)
        for row in rows
    }
    whose = {each.account_id: each.customer_id for each in await ledger.owners(tx, set(now.values()))}
    others = {account_id: customer for account_id, customer in whose.items() if customer != customer_id}
    lots = {*more_lots, *(each.lot_id for each in origins.values())}
    found = await _locked(tx, program, customer_id, others, lots, origins)
    if await reading.roots(tx, now) != now:
        raise Conflict  # merged, or undone, since it was asked whose points these are
    return found


async def spendable(tx: Tx, program: Program, customer_id: UUID) -> tuple[UUID | None, int]:
    """The household in which a member pools, None if in none, and what they can spend with its help."""
    household_id = None
    if program.settings.pooling_allowed:
        household_id = await queries.household_id(tx, program.program_id, customer_id)
    if household_id is None:
        return None, (await ledger.balance(tx, program, customer_id, None)).spendable
    rows = [row for row in await queries.standings(tx, program, household_id) if not row.frozen]
    by_customer = {row.customer_id: row.account_id for row in rows}
    ids = [account_id for account_id in by_customer.values() if account_id is not None]
    books = await reading.books(tx, ids, {program.program_id: program}, lock=False)
    if customer_id not in by_customer:
        return household_id, (await ledger.balance(tx, program, customer_id, None)).spendable
    mine = by_customer[customer_id]
    givers = [book for account_id, book in books.items() if account_id != mine]
    if mine is None:
        return household_id, sum(points for _, _, points in rules.offered(givers))
    return household_id, rules.spendable(books[mine], givers)


async def _locked(
    tx: Tx,
    program: Program,
    customer_id: UUID,
    others: Mapping[UUID, UUID],
    more_lots: Iterable[UUID] = (),
    origins: Mapping[UUID, Origin] | None = None,
    source: str = "",
) -> Together:
    """The member's book and those of `others` (account → customer)."""
    by_id = {program.program_id: program}
    member = program.program_id, customer_id
    mine = (await writing.open_accounts(tx, [member], by_id))[member]
    books = await reading.books(tx, {mine, *others}, by_id, lock=True, more_lots=more_lots)
    return Together(
        Owned(books[mine], program, customer_id),
        {account_id: Owned(books[account_id], program, others[account_id]) for account_id in sorted(others)},
        origins or {},
        source,
    )
