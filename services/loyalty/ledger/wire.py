"""Messages of the ledger to values and back."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs.instants import instant, stamp
from libs.problems import Faults, InvalidArgument
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1.programs_pb2 import PointReason
from regulars.type.v1.actor_pb2 import ActorRef
from services.loyalty.ledger import rules
from services.loyalty.ledger.queries import Balance
from services.loyalty.programs.queries import Program


def optional_id(text: str) -> UUID | None:
    """The id of a field that may be empty."""
    return UUID(text) if text else None


def as_of(request: pb.GetBalanceRequest, now: datetime) -> datetime | None:
    """The instant that is asked for. Raises InvalidArgument for the future."""
    if not request.HasField("as_of"):
        return None
    found = instant(request.as_of)
    if found > now:
        raise InvalidArgument.of("as_of", "must not be in the future", "OUT_OF_RANGE")
    return found


def reason_of(request: pb.AdjustPointsRequest) -> str:
    """Why staff adjust. Raises InvalidArgument if it is blank."""
    reason = request.reason.strip()
    if not reason:
        raise InvalidArgument.of("reason", "must not be blank", "REQUIRED")
    return reason


def dates_of(request: pb.AdjustPointsRequest, now: datetime) -> tuple[datetime | None, datetime | None]:
    """From when an adjustment counts and when its points lapse. Raises InvalidArgument."""
    faults = Faults()
    effective = instant(request.effective_at) if request.HasField("effective_at") else None
    expires = instant(request.expires_at) if request.HasField("expires_at") else None
    if effective is not None and effective > now:
        faults.add("effective_at", "must not be in the future", "OUT_OF_RANGE")
    if expires is not None and expires <= now:
        faults.add("expires_at", "must be in the future", "OUT_OF_RANGE")
    if expires is not None and request.points < 0:
        faults.add("expires_at", "only added points lapse", "INVALID")
    faults.refuse()
    return effective, expires


def balance(found: Balance, program: Program) -> pb.Balance:
    """The message of a balance."""
    return pb.Balance(
        customer_id=str(found.customer_id),
        program_id=str(program.program_id),
        business_id=str(program.business_id),
        balance=found.balance,
        pending=found.pending,
        held=found.held,
        spendable=found.spendable,
        lifetime=found.lifetime,
        shortfall=found.shortfall,
        next_expiry_points=found.next_expiry_points,
        next_expiry_at=stamp(found.next_expiry_at),
        as_of=stamp(found.as_of),
    )


def transaction(
    row: Row[Any], *, moved: Iterable[Row[Any]] = (), told: Mapping[str, str] | None = None, own: bool = False
) -> pb.Transaction:
    """The message of an entry. `told` is what was sealed of it; `own`: the member reads it, not staff."""
    told = told or {}
    staff = bool(row.actor) and not own
    return pb.Transaction(
        id=str(row.entry_id),
        customer_id=str(row.customer_id),
        program_id=str(row.program_id),
        business_id=str(row.business_id),
        type=row.kind,
        points=row.points,
        pending=row.kind != rules.AVAILABLE and row.pending_points > 0,
        opening_balance=row.opening_balance,
        closing_balance=row.opening_balance + row.balance_points,
        opening_pending=row.opening_pending,
        closing_pending=row.opening_pending + row.pending_points,
        booked_at=stamp(row.booked_at),
        effective_at=stamp(row.effective_at),
        order_id=_id(row.order_id),
        source=row.source,
        reverses_id=_id(row.reverses_id),
        hold_id=_id(row.hold_id),
        counterpart_id=_id(row.counterpart_id),
        available_at=stamp(row.available_at),
        expires_at=stamp(row.expires_at),
        shortfall=row.shortfall,
        lifetime_points=row.lifetime_points,
        reasons=[PointReason(**reason) for reason in row.reasons],
        lots=[
            pb.LotShare(lot_id=str(each.lot_id), points=each.points, expires_at=stamp(each.expires_at))
            for each in moved
        ],
        reason="" if own else told.get("reason", ""),
        actor=ActorRef(subject=row.actor, display_name=told.get("actor_name", "")) if staff else None,
    )


def hold(row: Row[Any], now: datetime) -> pb.Hold:
    """The message of a hold; one that is past its time has lapsed, booked or not."""
    lapsed = row.state == rules.OPEN and row.expires_at <= now
    return pb.Hold(
        id=str(row.hold_id),
        customer_id=str(row.customer_id),
        program_id=str(row.program_id),
        business_id=str(row.business_id),
        points=row.points,
        captured_points=row.captured,
        state=pb.HOLD_STATE_LAPSED if lapsed else row.state,
        created_at=stamp(row.created_at),
        expires_at=stamp(row.expires_at),
        order_id=_id(row.order_id),
        transaction_id=_id(row.entry_id),
    )


def _id(value: UUID | None) -> str:
    return str(value) if value else ""
