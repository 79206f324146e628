"""Writes books back: accounts, entries, lots, allocations, holds and events, all in one round trip."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from libs import arrays
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.outbox import Fact, posting
from libs.pipeline import Query, Step
from regulars.loyalty.v1 import events_pb2 as events
from regulars.loyalty.v1.programs_pb2 import PointReason
from services.loyalty.ledger import reading, rules
from services.loyalty.ledger.rules import Book, Entry
from services.loyalty.ledger.tables import accounts
from services.loyalty.programs.queries import Program

BY_KEY, FIND_BY_KEY = reading.BY_KEY, reading.FIND_BY_KEY

_ACCOUNTS = Query(
    text("""
    update accounts a
    set balance = r.balance, pending = r.pending, held = r.held, debt = r.debt, shortfall = r.shortfall,
        lifetime = r.lifetime, redeemed = r.redeemed, expired = r.expired, entries = r.entries,
        version = r.version, active_at = r.active_at
    from json_populate_recordset(null::accounts, cast(:rows as json)) r
    where a.tenant_id = :tenant and a.account_id = r.account_id
""")
)
_ENTRIES = Query(
    text("""
    insert into entries
    select r.* from json_populate_recordset(null::entries, cast(:rows as json)) r
""")
)
_NEW_LOTS = Query(
    text("insert into lots select r.* from json_populate_recordset(null::lots, cast(:rows as json)) r")
)
_LOTS = Query(
    text("""
    update lots l
    set remaining = r.remaining, held = r.held, pending = r.pending, expires_at = r.expires_at,
        noticed = l.noticed and l.expires_at is not distinct from r.expires_at
    from json_populate_recordset(null::lots, cast(:rows as json)) r
    where l.tenant_id = :tenant and l.lot_id = r.lot_id
""")
)
_ALLOCATIONS = Query(
    text(
        "insert into allocations select r.* from json_populate_recordset(null::allocations, cast(:rows as json)) r"
    )
)
_NEW_HOLDS = Query(
    text("insert into holds select r.* from json_populate_recordset(null::holds, cast(:rows as json)) r")
)
_HOLDS = Query(
    text("""
    update holds h
    set state = r.state, captured = r.captured, closed_at = r.closed_at, order_id = r.order_id,
        entry_id = r.entry_id
    from json_populate_recordset(null::holds, cast(:rows as json)) r
    where h.tenant_id = :tenant and h.hold_id = r.hold_id
""")
)
_HOLD_LOTS = Query(
    text(
        "insert into hold_lots select r.* from json_populate_recordset(null::hold_lots, cast(:rows as json)) r"
    )
)
_OPENED = Query(
    text("""
    select a.account_id, a.program_id, a.customer_id
    from unnest(:programs, :customers) as k (program_id, customer_id)
    cross join lateral (
        select a.account_id, a.program_id, a.customer_id from accounts a
        where a.tenant_id = :tenant and a.program_id = k.program_id and a.customer_id = k.customer_id limit 1
    ) a
""")
)

_ACCOUNT = (
    "account_id",
    "balance",
    "pending",
    "held",
    "debt",
    "shortfall",
    "lifetime",
    "redeemed",
    "expired",
)
_LOT: tuple[str, ...] = (
    "lot_id",
    "points",
    "remaining",
    "held",
    "pending",
    "earned_at",
    "available_at",
    "expires_at",
)
_LOT += ("order_id", "entry_id", "origin_lot_id", "pooled")
_HOLD = (
    "hold_id",
    "points",
    "captured",
    "state",
    "created_at",
    "expires_at",
    "closed_at",
    "order_id",
    "entry_id",
)

Member = tuple[UUID, UUID]  # program, customer


@dataclass(frozen=True, slots=True)
class Owned:
    """A book, whose it is, and in which program.

    `other_customer_id` is the other side of its transfers; `others` that of those which have one of their own.
    """

    book: Book
    program: Program
    customer_id: UUID
    other_customer_id: UUID | None = None
    others: dict[UUID, UUID] = field(default_factory=dict)


async def open_accounts(
    tx: Tx, members: Iterable[Member], programs: Mapping[UUID, Program]
) -> dict[Member, UUID]:
    """The account of each (program, customer); new ones are made in the order of their keys.

    Before any account is locked.
    """
    wanted = sorted(set(members))
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "programs": arrays.uuids([program_id for program_id, _ in wanted]),
        "customers": arrays.uuids([customer_id for _, customer_id in wanted]),
    }
    _, known = await tx.together((FIND_BY_KEY, {}), (_OPENED, where))
    found = {(row.program_id, row.customer_id): row.account_id for row in known}
    missing = [member for member in wanted if member not in found]
    if missing:
        rows = [
            {
                "tenant_id": tx.tenant_id,
                "account_id": new_id(),
                "business_id": programs[program_id].business_id,
                "program_id": program_id,
                "customer_id": customer_id,
                "opened_at": tx.now,
            }
            for program_id, customer_id in missing
        ]
        await tx.execute(insert(accounts).values(rows).on_conflict_do_nothing())
        (known,) = await tx.together((_OPENED, where))
        found = {(row.program_id, row.customer_id): row.account_id for row in known}
    return found


async def save(
    tx: Tx,
    owned: Sequence[Owned],
    *,
    actor: str = "",
    sealed: Mapping[UUID, tuple[UUID, bytes]] | None = None,
    also: Sequence[Step] = (),
) -> list[list[Any]]:
    """Writes what changed in these books, and emits its events.

    `actor` is who did the entries that do not happen by themselves; `sealed` are (key, text) of entries; `also`
    are statements that travel after them, and whose rows are given.
    """
    changed = [each for each in owned if each.book.changed]
    steps: list[Step] = []

    def write(query: Query, rows: list[dict[str, Any]]) -> None:
        if rows:
            steps.append((query, {"tenant": tx.tenant_id, "rows": orjson.dumps(rows).decode()}))

    write(_ACCOUNTS, [_account(each) for each in changed])
    write(_ENTRIES, [row for each in changed for row in _entries(tx, each, actor, sealed or {})])
    write(_NEW_LOTS, [_lot(tx, each, lot_id) for each in changed for lot_id in each.book.new_lots])
    write(
        _LOTS,
        [
            _lot(tx, each, lot_id)
            for each in changed
            for lot_id in sorted(each.book.touched_lots - each.book.new_lots)
        ],
    )
    write(_ALLOCATIONS, [row for each in changed for row in _allocations(tx, each)])
    write(_NEW_HOLDS, [_hold(tx, each, hold_id) for each in changed for hold_id in each.book.new_holds])
    write(
        _HOLDS,
        [
            _hold(tx, each, hold_id)
            for each in changed
            for hold_id in sorted(each.book.touched_holds - each.book.new_holds)
        ],
    )
    write(_HOLD_LOTS, [row for each in changed for row in _hold_lots(tx, each)])
    facts = [fact for each in changed for fact in _facts(each)]
    if facts:
        steps.append(posting(tx, facts)[1])
    steps += also
    return (await tx.together(*steps))[len(steps) - len(also) :] if steps else []


def _plain(values: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(values, name) for name in names}


def _account(owned: Owned) -> dict[str, Any]:
    account = owned.book.account
    return _plain(account, (*_ACCOUNT, "entries", "version", "active_at"))


def _of(tx: Tx, owned: Owned) -> dict[str, Any]:
    return {"tenant_id": tx.tenant_id, "business_id": owned.program.business_id}


def _entries(
    tx: Tx, owned: Owned, actor: str, sealed: Mapping[UUID, tuple[UUID, bytes]]
) -> Iterable[dict[str, Any]]:
    for entry in owned.book.entries:
        key_id, text_sealed = sealed.get(entry.entry_id, (None, None))
        itself = entry.kind in {rules.EXPIRE, rules.AVAILABLE}
        yield {
            **_of(tx, owned),
            "account_id": owned.book.account.account_id,
            **_plain(entry, Entry.__slots__),
            "actor": "" if itself else actor,
            "key_id": key_id,
            "sealed": None if text_sealed is None else f"\\x{text_sealed.hex()}",
        }


def _lot(tx: Tx, owned: Owned, lot_id: UUID) -> dict[str, Any]:
    lot = owned.book.lots[lot_id]
    return {
        **_of(tx, owned),
        "account_id": owned.book.account.account_id,
        **_plain(lot, _LOT),
        "noticed": lot.pooled,  # that others' points will lapse is told to them
    }


def _allocations(tx: Tx, owned: Owned) -> Iterable[dict[str, Any]]:
    for (entry_id, lot_id), points in owned.book.drawn.items():
        if points:
            yield {**_of(tx, owned), "entry_id": entry_id, "lot_id": lot_id, "points": points}


def _hold(tx: Tx, owned: Owned, hold_id: UUID) -> dict[str, Any]:
    hold = owned.book.holds[hold_id]
    return {**_of(tx, owned), "account_id": owned.book.account.account_id, **_plain(hold, _HOLD)}


def _hold_lots(tx: Tx, owned: Owned) -> Iterable[dict[str, Any]]:
    for hold_id in owned.book.new_holds:
        for lot_id, points in owned.book.holds[hold_id].lots.items():
            yield {**_of(tx, owned), "hold_id": hold_id, "lot_id": lot_id, "points": points}


def state(owned: Owned) -> events.AccountState:
    """The account after the change, as events tell it."""
    account, program = owned.book.account, owned.program
    return events.AccountState(
        customer_id=str(owned.customer_id),
        business_id=str(program.business_id),
        program_id=str(program.program_id),
        default_program=program.is_default,
        balance=account.balance,
        pending=account.pending,
        held=account.held,
        lifetime=account.lifetime,
    )


def _facts(owned: Owned) -> Iterable[Fact]:
    after, account = state(owned), owned.book.account
    for entry in owned.book.entries:
        message = _message(entry, after, owned)
        yield Fact(message, account.account_id, account.version, owned.program.business_id)


def _message(entry: Entry, after: events.AccountState, owned: Owned) -> Any:
    told: dict[str, Any] = {
        "account": after,
        "transaction_id": str(entry.entry_id),
        "points": entry.points,
    }
    order_id = str(entry.order_id or "")
    if entry.kind == rules.EARN:
        return events.PointsEarned(
            **told,
            order_id=order_id,
            pending=entry.pending_points > 0,
            available_at=stamp(entry.available_at or entry.booked_at),
            expires_at=stamp(entry.expires_at),
            reasons=[PointReason(**reason) for reason in entry.reasons],
            source=entry.source,
        )
    if entry.kind == rules.AVAILABLE:
        return events.PointsAvailable(**told)
    if entry.kind == rules.REDEEM:
        return events.PointsRedeemed(**told, order_id=order_id, hold_id=str(entry.hold_id or ""))
    if entry.kind == rules.EXPIRE:
        return events.PointsExpired(**told, expired_at=stamp(entry.effective_at))
    if entry.kind == rules.ADJUST:
        return events.PointsAdjusted(**told, effective_at=stamp(entry.effective_at), source=entry.source)
    if entry.kind == rules.REVERSE:
        return events.PointsReversed(
            **told,
            order_id=order_id,
            shortfall=entry.shortfall,
            reverses_id=str(entry.reverses_id or ""),
        )
    other = owned.others.get(entry.entry_id, owned.other_customer_id)
    return events.PointsTransferred(**told, other_customer_id=str(other or ""), source=entry.source)
