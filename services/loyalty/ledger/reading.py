"""Reads books: accounts with their open lots and holds, locked by who changes them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from libs import arrays
from libs.db import Tx
from libs.ids import new_id
from libs.pipeline import Query, Step
from libs.problems import Conflict
from services.loyalty.ledger.rules import Account, Book, Hold, Lot, Terms
from services.loyalty.ledger.tables import accounts
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import expires_at

_a = accounts.c

# Every look-up of a book is by key: a plan made while the tables were small must not scan them later.
BY_KEY = text("""
    select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true)
""")
FIND_BY_KEY = Query(BY_KEY)

_ACCOUNTS = Query(
    text("select a.* from accounts a where a.tenant_id = :tenant and a.account_id = any(:accounts)")
)
_LOCKED = Query(
    text("""
    select a.* from accounts a where a.tenant_id = :tenant and a.account_id = any(:accounts)
    order by a.account_id for update
""")
)
_LOTS = Query(
    text("""
    select l.* from lots l
    where l.tenant_id = :tenant and l.account_id = any(:accounts) and (l.remaining > 0 or l.lot_id = any(:more))
""")
)
_HOLDS = Query(
    text("""
    select h.*, x.lot_id, x.points as held_points
    from holds h join hold_lots x on x.tenant_id = h.tenant_id and x.hold_id = h.hold_id
    where h.tenant_id = :tenant and h.account_id = any(:accounts) and h.state = 1
""")
)
# Of accounts and all that were merged into them.
_STRANGERS = Query(
    text("""
    with recursive mine as (
        select a.account_id, a.account_id as root from accounts a
        where a.tenant_id = :tenant and a.account_id = any(:accounts)
        union
        select a.account_id, m.root from mine m
        join accounts a on a.tenant_id = :tenant and a.merged_into = m.account_id
    )
    select l.*, m.root from mine m join lots l on l.tenant_id = :tenant and l.account_id = m.account_id
    where m.root <> m.account_id and l.lot_id = any(:more)
""")
)


async def books(
    tx: Tx,
    account_ids: Iterable[UUID],
    programs: Mapping[UUID, Program],
    *,
    lock: bool,
    more_lots: Iterable[UUID] = (),
) -> dict[UUID, Book]:
    """The books of these accounts, settled as of now: open lots, open holds, and `more_lots` that are closed.

    `lock`: their rows are locked, in the order of their ids. `programs` has the program of each.
    """
    return (await books_with(tx, account_ids, programs, (), lock=lock, more_lots=more_lots))[0]


async def books_with(
    tx: Tx,
    account_ids: Iterable[UUID],
    programs: Mapping[UUID, Program],
    also: Sequence[Step],
    *,
    lock: bool,
    more_lots: Iterable[UUID] = (),
) -> tuple[dict[UUID, Book], list[list[Any]]]:
    """As `books`, and the rows of other statements that are read once the accounts are locked."""
    wanted, more = sorted(set(account_ids)), list(more_lots)
    if not wanted:
        return {}, [[] for _ in also]
    where = {"tenant": tx.tenant_id, "accounts": arrays.uuids(wanted), "more": arrays.uuids(more)}
    _, rows = await tx.together((FIND_BY_KEY, {}), (_LOCKED if lock else _ACCOUNTS, where))
    if lock and any(row.merged_into for row in rows):
        raise Conflict  # merged since the caller looked who it is: the next attempt finds the survivor
    found = {
        row.account_id: Book(
            account=_account_of(row),
            lots={},
            holds={},
            now=tx.now,
            terms=_terms_of(programs[row.program_id], tx.now),
            new_id=new_id,
        )
        for row in rows
    }
    held = [(_HOLDS, where)] if any(row.held for row in rows) else []
    open_lots, *others = await tx.together((_LOTS, where), *also, *held)
    for row in open_lots:
        found[row.account_id].lots[row.lot_id] = _lot_of(row)
    for row in others.pop() if held else ():
        book = found[row.account_id]
        hold = book.holds.get(row.hold_id) or hold_of(row)
        book.holds[row.hold_id] = hold
        hold.lots[row.lot_id] = row.held_points
    missing = set(more).difference(*(book.lots for book in found.values()))
    if missing:
        where["more"] = arrays.uuids(sorted(missing))
        for row in (await tx.together((_STRANGERS, where)))[0]:
            found[row.root].strangers[row.lot_id] = _lot_of(row)
    for book in found.values():
        book.settle()
    return found, others


async def roots(tx: Tx, account_ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Into which account each of these was merged by now; itself if into none."""
    found = {each: each for each in account_ids}
    asked = set(found)
    while asked:
        wanted = select(_a.account_id, _a.merged_into).where(
            _a.tenant_id == tx.tenant_id, _a.account_id.in_(asked), _a.merged_into.is_not(None)
        )
        step = {row.account_id: row.merged_into for row in await tx.execute(wanted)}
        found = {each: step.get(now, now) for each, now in found.items()}
        asked = set(step.values())
    return found


def _terms_of(program: Program, now: datetime) -> Terms:
    """What a program says about its ledger, at an instant."""
    settings = program.settings
    renewed = expires_at(settings, now, program.zone) if settings.expiry == "INACTIVITY" else None
    return Terms(
        return_policy=settings.return_policy,
        returned_points=timedelta(days=settings.returned_points_days),
        renewed_expiry=renewed,
    )


def _account_of(row: Any) -> Account:
    """An account's row, as the rules know it."""
    return Account(**{name: getattr(row, name) for name in Account.__slots__})


def _lot_of(row: Any) -> Lot:
    """A lot's row, as the rules know it."""
    return Lot(**{name: getattr(row, name) for name in Lot.__slots__})


def hold_of(row: Any) -> Hold:
    """A hold's row, as the rules know it; its lots are still to come."""
    return Hold(lots={}, **{name: getattr(row, name) for name in Hold.__slots__ if name != "lots"})
