"""Writes about opening balances: a batch of rows at once, under the locks of their accounts, and the same way back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Uuid, bindparam, func, insert, select, text

from libs.crypto import DataKey, TenantKeys, live_versions
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.ids import new_id
from libs.outbox import in_bulk
from libs.pipeline import Query
from libs.problems import Conflict
from services.loyalty.balances import queries, rules
from services.loyalty.balances.rules import CREATED, KNOWN, MEMBER_UNKNOWN, REFUSED, Result, Told, Undone
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger import reading, writing
from services.loyalty.ledger.writing import Owned
from services.loyalty.merges import queries as merges
from services.loyalty.people import actions as people
from services.loyalty.problems import ImportUndone, PointsOutOfRange
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.programs.rules import expires_at as expiry_of
from services.loyalty.tiers import actions as tiers
from services.loyalty.tiers import queries as tiers_queries

_k = subject_keys.c

# One batch of an import after another: its rows are numbered by what came before them.
_LOCK = text("select pg_advisory_xact_lock(hashtextextended('balances:' || :tenant || :import, 0))")
_ROWS = Query(
    text("""
    insert into imported_balances
    select r.* from json_populate_recordset(null::imported_balances, cast(:rows as json)) r
""")
)
_UNDONE = Query(
    text("""
    update imported_balances b set taken = r.taken, spent = r.spent, lapsed = r.lapsed, undone_at = r.undone_at
    from json_populate_recordset(null::imported_balances, cast(:rows as json)) r
    where b.tenant_id = :tenant and b.business_id = r.business_id and b.import_id = r.import_id and b.row = r.row
""")
)


class _Ready:
    """A row that nothing stands against: whose it is, where, and until when."""

    __slots__ = ("content", "expires_at", "member_id", "place", "program", "told")

    def __init__(
        self, told: Told, program: Program, member_id: UUID, expires_at: Any, content: bytes
    ) -> None:
        self.told, self.program, self.member_id = told, program, member_id
        self.expires_at, self.content, self.place = expires_at, content, 0

    @property
    def member(self) -> tuple[UUID, UUID]:
        """(program, customer)."""
        return self.program.program_id, self.member_id


async def import_balances(
    tx: Tx, keys: TenantKeys, business_id: UUID, import_id: UUID, source: str, told: Sequence[Told]
) -> list[Result]:
    """Gives members what rows say, each once. Emits PointsAdjusted, TierUpgraded. Raises ImportUndone."""
    await tx.execute(_LOCK, {"tenant": str(tx.tenant_id), "import": str(import_id)})
    if await queries.is_undone(tx, business_id, import_id):
        raise ImportUndone
    found, ready = await _judged(tx, business_id, import_id, source, told)
    if not ready:
        return found
    by_id = {each.program.program_id: each.program for each in ready}
    await tx.execute(writing.BY_KEY)
    opened = await writing.open_accounts(tx, [each.member for each in ready], by_id)
    books = await reading.books(tx, opened.values(), by_id, lock=True)
    # Only now does nobody else write to the same members.
    new, known = await _sorted(tx, business_id, import_id, ready)
    rows = [_row(tx, business_id, import_id, each, opened[each.member], KNOWN) for each in known]
    found += [Result(each.told.row, KNOWN) for each in known]
    reasons: dict[UUID, tuple[UUID, str]] = {}
    for each in new:
        entry_id, account_id = new_id(), opened[each.member]
        try:
            lot = rules.bring(
                books[account_id],
                each.told,
                expires_at=each.expires_at,
                entry_id=entry_id,
                source=f"import:{import_id}",
            )
        except PointsOutOfRange as problem:
            found.append(Result(each.told.row, REFUSED, "points", problem.reason, problem.message))
            continue
        kept = {"entry_id": entry_id, "lot_id": lot.lot_id if lot else None}
        rows.append(_row(tx, business_id, import_id, each, account_id, CREATED) | kept)
        found.append(Result(each.told.row, CREATED, entry_id=entry_id))
        if each.told.reason:
            reasons[entry_id] = each.member_id, each.told.reason
    owned = [Owned(books[opened[member]], by_id[member[0]], member[1]) for member in sorted(opened)]
    sealed = await _sealed(tx, keys, reasons)
    noted = (_ROWS, {"rows": orjson.dumps(rows).decode()})
    with in_bulk():
        await writing.save(tx, owned, actor=_actor(tx), sealed=sealed, also=[noted] if rows else [])
        earned = {each.member for each in new if each.told.lifetime_points}
        for program in by_id.values():
            here = (opened[member] for member in earned if member[0] == program.program_id)
            await _judge(tx, program, here)
    return found


async def look(tx: Tx, business_id: UUID, import_id: UUID, source: str, told: Sequence[Told]) -> list[Result]:
    """What would become of rows; writes nothing."""
    found, ready = await _judged(tx, business_id, import_id, source, told)
    new, known = await _sorted(tx, business_id, import_id, ready)
    return [
        *found,
        *(Result(each.told.row, KNOWN) for each in known),
        *(Result(each.told.row, CREATED) for each in new),
    ]


async def undo_balances(
    tx: Tx, business_id: UUID, import_id: UUID, before_row: int, limit: int
) -> list[Undone]:
    """Takes back what is left of the last rows of an import. Emits PointsReversed, TierDowngraded."""
    await tx.execute(_LOCK, {"tenant": str(tx.tenant_id), "import": str(import_id)})
    rows = await queries.last_rows(tx, business_id, import_id, before_row, limit)
    roots = await reading.roots(tx, {row.account_id for row in rows})
    whose = {row.account_id: row for row in await ledger.owners(tx, set(roots.values()))}
    again = [row for row in rows if row.undone_at is None]
    found = {
        row.row: Undone(row.row, whose[roots[row.account_id]].customer_id, row.taken, row.spent, row.lapsed)
        for row in rows
        if row.undone_at is not None
    }
    if again:
        for each in await _take_back(tx, again, roots, whose):
            found[each.row] = each
    return [found[row.row] for row in rows]


# ------------------------------------------------------------------ inside


async def _judged(
    tx: Tx, business_id: UUID, import_id: UUID, source: str, told: Sequence[Told]
) -> tuple[list[Result], list[_Ready]]:
    """What is clear of rows before anybody's account is seen, and the others."""
    of_business = [programs.program_of(row) for row in await programs.of_business(tx, business_id)]
    names = {row.program_id: row.name for row in await programs.of_business(tx, business_id)}
    done = await queries.done(tx, business_id, import_id, [each.row for each in told])
    survivors = await merges.survivors(tx, {each.customer_id for each in told})
    members = await queries.members(tx, business_id, set(survivors.values()))
    found: list[Result] = []
    ready: list[_Ready] = []
    for each in told:
        if each.row in done:
            before = done[each.row]
            found.append(Result(each.row, before.outcome, entry_id=before.entry_id))
            continue
        member = members.get(survivors[each.customer_id])
        program = _program(of_business, names, each.program)
        if member is None or not of_business:
            found.append(Result(each.row, MEMBER_UNKNOWN))
        elif program is None:
            why = "must be the id or the name of one program of the business"
            found.append(Result(each.row, REFUSED, "program", "PROGRAM_NOT_FOUND", why))
        elif not program.active:
            found.append(
                Result(each.row, REFUSED, "program", "PROGRAM_INACTIVE", "the program is not active")
            )
        elif member.blocked or member.deleted:
            why = "the member is blocked or deleted: the points are frozen"
            found.append(Result(each.row, REFUSED, "", "MEMBERSHIP_FROZEN", why))
        else:
            expires_at = each.expires_at or expiry_of(
                program.settings, each.earned_at or tx.now, program.zone
            )
            refused = rules.refusal(each, expires_at, tx.now)
            if refused is not None:
                found.append(refused)
                continue
            content = rules.content(each, program.program_id, member.customer_id, source)
            ready.append(_Ready(each, program, member.customer_id, expires_at, content))
    return found, ready


def _program(of_business: Sequence[Program], names: Mapping[UUID, str], wanted: str) -> Program | None:
    """The program of an id or a name, the default one for neither; None if that is not exactly one."""
    low = wanted.casefold()
    found = [
        each
        for each in of_business
        if (
            each.is_default
            if not wanted
            else low in (str(each.program_id), names[each.program_id].casefold())
        )
    ]
    return found[0] if len(found) == 1 else None


async def _sorted(
    tx: Tx, business_id: UUID, import_id: UUID, ready: Sequence[_Ready]
) -> tuple[list[_Ready], list[_Ready]]:
    """Rows that say something new, and those that an earlier import said; each gets its place among its likes."""
    before = await queries.said(tx, business_id, import_id, {each.content for each in ready})
    taken = {(bytes(row.content), row.place) for row in before if row.holds and row.import_id != import_id}
    mine: dict[bytes, int] = {}
    for row in before:
        if row.import_id == import_id:
            mine[bytes(row.content)] = max(mine.get(bytes(row.content), 0), row.place + 1)
    new: list[_Ready] = []
    known: list[_Ready] = []
    for each in ready:
        each.place = mine.get(each.content, 0)
        mine[each.content] = each.place + 1
        again = (
            each.told.reference and each.place > 0
        )  # a reference means one thing, however often it is told
        (known if again or (each.content, each.place) in taken else new).append(each)
    return new, known


def _row(
    tx: Tx, business_id: UUID, import_id: UUID, each: _Ready, account_id: UUID, outcome: int
) -> dict[str, Any]:
    return {
        "tenant_id": tx.tenant_id,
        "business_id": business_id,
        "import_id": import_id,
        "row": each.told.row,
        "outcome": outcome,
        "account_id": account_id,
        "content": f"\\x{each.content.hex()}",
        "place": each.place,
        "points": each.told.points,
        "lifetime_points": each.told.lifetime_points,
        "taken": 0,
        "spent": 0,
        "lapsed": 0,
    }


async def _take_back(
    tx: Tx, rows: Sequence[Row[Any]], roots: Mapping[UUID, UUID], whose: Mapping[UUID, Row[Any]]
) -> list[Undone]:
    by_id = {
        program_id: programs.program_of(await programs.row(tx, program_id))
        for program_id in {row.program_id for row in whose.values()}
    }
    await tx.execute(writing.BY_KEY)
    books = await reading.books(tx, {roots[row.account_id] for row in rows}, by_id, lock=True)
    lots: dict[UUID, list[UUID]] = {}
    before: dict[UUID, int] = {}
    for became in await queries.became(tx, [row.lot_id for row in rows if row.lot_id]):
        lots.setdefault(became.origin, []).append(became.lot_id)
        before[became.lot_id] = int(became.lapsed)
    found: list[Undone] = []
    kept: list[dict[str, Any]] = []
    for row in rows:
        root = roots[row.account_id]
        book, mine = books[root], lots.get(row.lot_id, [])
        taken = rules.take_back(
            book,
            mine,
            # What a merged account had earned stayed with it.
            row.lifetime_points if root == row.account_id else 0,
            reverses_id=row.entry_id,
            entry_id=new_id(),
            source=f"import:{row.import_id}",
            effective_at=row.effective_at,
        )
        lapsed = rules.lapsed(book, before, mine)
        spent = max(row.points - taken - lapsed, 0)
        found.append(Undone(row.row, whose[root].customer_id, taken, spent, lapsed))
        kept.append(
            {
                "business_id": row.business_id,
                "import_id": row.import_id,
                "row": row.row,
                "taken": taken,
                "spent": spent,
                "lapsed": lapsed,
                "undone_at": tx.now,
            }
        )
    owned = [
        Owned(book, by_id[whose[root].program_id], whose[root].customer_id) for root, book in books.items()
    ]
    noted = (_UNDONE, {"tenant": tx.tenant_id, "rows": orjson.dumps(kept).decode()})
    earned = {row.account_id for row in rows if row.lifetime_points and row.account_id in books}
    with in_bulk():
        await writing.save(tx, owned, actor=_actor(tx), also=[noted])
        for program_id, program in by_id.items():
            await _judge(tx, program, (each for each in earned if whose[each].program_id == program_id))
    return found


async def _judge(tx: Tx, program: Program, account_ids: Iterable[UUID]) -> None:
    """Judges the tiers of those whose lifetime points changed."""
    found = sorted(set(account_ids))
    if found:
        await tiers.judge(tx, program, await tiers_queries.ladder(tx, program.program_id), found)


async def _sealed(
    tx: Tx, keys: TenantKeys, reasons: Mapping[UUID, tuple[UUID, str]]
) -> dict[UUID, tuple[UUID, bytes]]:
    """The reasons of entries, sealed under the keys of their members."""
    if not reasons:
        return {}
    by_member = await _text_keys(tx, keys, {member_id for member_id, _ in reasons.values()})
    name = tx.caller.display_name or ""
    found = {}
    for entry_id, (member_id, reason) in reasons.items():
        key, written = by_member[member_id], {"reason": reason, "actor_name": name}
        found[entry_id] = key.key_id, keys.seal(key, ledger.SEALED, entry_id, orjson.dumps(written))
    return found


async def _text_keys(tx: Tx, keys: TenantKeys, customer_ids: set[UUID]) -> dict[UUID, DataKey]:
    """The keys under which this service keeps customers' texts; the first text makes one.

    Raises Conflict if one of them was erased meanwhile.
    """
    if await people.erased(tx, customer_ids):
        raise Conflict
    live = await live_versions(tx)
    wanted = select(subject_keys).where(
        _k.tenant_id == tx.tenant_id,
        _k.subject_id == func.any(bindparam("subjects", sorted(customer_ids), ARRAY(Uuid))),
        _k.wrapped.is_not(None),
    )
    found: dict[UUID, DataKey] = {}
    for row in await tx.execute(wanted.order_by(_k.key_id.desc())):
        found[row.subject_id] = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    fresh = []
    for customer_id in sorted(customer_ids - found.keys()):
        made, found[customer_id] = keys.new_subject_key(live, customer_id, tx.now)
        fresh.append(made._asdict())
    if fresh:
        await tx.execute(insert(subject_keys), fresh)
    return found


def _actor(tx: Tx) -> str:
    return tx.caller.on_behalf_of or tx.caller.subject
