"""Messages of rewards and redemptions to values and back."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from sqlalchemy import Row

from libs import formats
from libs.formats import Wrong
from libs.instants import instant, stamp
from libs.problems import Faults
from regulars.loyalty.v1 import events_pb2 as events
from regulars.loyalty.v1 import rewards_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.loyalty.programs.queries import Program
from services.loyalty.rewards import rules
from services.loyalty.tiers.rules import Ladder

_OUTPUT = (
    "id",
    "business_id",
    "program_id",
    "stock_left",
    "published_at",
    "created_at",
    "updated_at",
    "etag",
)
WRITABLE = frozenset(field.name for field in pb.Reward.DESCRIPTOR.fields) - frozenset(_OUTPUT)
# What a kind needs of the message, and no other kind has.
_OF_KIND = {
    pb.REWARD_KIND_DISCOUNT_AMOUNT: "amount",
    pb.REWARD_KIND_DISCOUNT_PERCENT: "percent",
    pb.REWARD_KIND_FREE_PRODUCT: "sku",
    pb.REWARD_KIND_GIFT_CARD: "amount",
}


def new_reward(message: pb.Reward, program: Program, ladder: Ladder) -> dict[str, Any]:
    """The columns of a new reward. Raises InvalidArgument."""
    return _values(message, program, ladder)


def changed_reward(
    before: Row[Any], message: pb.Reward, mask: FieldMask, program: Program, ladder: Ladder
) -> dict[str, Any]:
    """The columns of a reward after a change. Raises InvalidArgument."""
    after = pb.Reward()
    ParseDict(before.definition, after, ignore_unknown_fields=True)
    after.active = before.active
    if before.stock is not None:
        after.stock = before.stock
    present = {field.name for field, _ in message.ListFields()}
    new = pb.Reward()
    new.CopyFrom(message)
    for path in _paths(present, mask):
        after.ClearField(path)  # type: ignore[arg-type]  # a name of its own
    for name in [field.name for field, _ in message.ListFields()]:
        if name not in _paths(present, mask):
            new.ClearField(name)  # type: ignore[arg-type]
    after.MergeFrom(new)
    return _values(after, program, ladder)


def reward(row: Row[Any], codes: Row[Any] | None) -> pb.Reward:
    """The message of a reward's row; `codes`: what its pool has, if it has one."""
    message = terms(row.reward_id, row.definition)
    message.business_id, message.program_id = str(row.business_id), str(row.program_id)
    message.active = row.active
    if row.stock is not None:
        message.stock = row.stock
    left = _left(row, codes)
    if left is not None:
        message.stock_left = left
    if row.published_at is not None:
        message.published_at.CopyFrom(stamp(row.published_at))
    message.created_at.CopyFrom(stamp(row.created_at))
    message.updated_at.CopyFrom(stamp(row.updated_at))
    message.etag = str(row.version)
    return message


def shown(row: Row[Any], codes: Row[Any] | None) -> pb.Reward:
    """The same, as members see it."""
    return _public(reward(row, codes))


def terms(reward_id: UUID, definition: dict[str, Any]) -> pb.Reward:
    """The message of what a reward is, or was."""
    message = pb.Reward()
    ParseDict(definition, message, ignore_unknown_fields=True)
    message.id = str(reward_id)
    return message


def reward_rules(row: Row[Any], codes: Row[Any] | None) -> rules.Reward:
    """A reward's row, as the rules know it."""
    return rules.Reward(
        reward_id=row.reward_id,
        cost_points=row.cost_points,
        active=row.active,
        left=_left(row, codes),
        per_member_limit=int(row.definition.get("per_member_limit", 0)),
        tiers=row.definition.get("tiers", ()),
        segments=row.definition.get("segment_ids", ()),
        valid_from=row.valid_from,
        valid_until=row.valid_until,
    )


def pool(row: Row[Any], codes: Row[Any] | None) -> pb.CodePool:
    """The message of a pool."""
    return pb.CodePool(
        id=str(row.pool_id),
        business_id=str(row.business_id),
        name=row.name,
        codes_total=codes.total if codes else 0,
        codes_left=codes.left if codes else 0,
        created_at=stamp(row.created_at),
    )


def redemption_rules(row: Row[Any]) -> rules.Redemption:
    """A redemption's row, as the rules know it."""
    return rules.Redemption(
        state=row.state,
        expires_at=row.expires_at,
        closed_at=row.closed_at,
        place=row.place,
        order_id=row.order_id,
    )


def redemption(row: Row[Any], now: datetime, *, code: str, own: bool = False) -> pb.Redemption:
    """The message of a redemption. `own`: the member reads it, not staff."""
    state = rules.state_now(redemption_rules(row), now)
    closed = row.closed_at or (row.expires_at if state == rules.EXPIRED else None)
    return pb.Redemption(
        id=str(row.redemption_id),
        customer_id=str(row.customer_id),
        program_id=str(row.program_id),
        business_id=str(row.business_id),
        reward=_public(terms(row.reward_id, row.terms)),
        state=state,  # type: ignore[arg-type]  # the same numbers
        code=code,
        points=row.points,
        issued_at=stamp(row.issued_at),
        expires_at=stamp(row.expires_at),
        closed_at=stamp(closed),
        place=row.place,
        order_id=str(row.order_id or ""),
        transaction_id=str(row.entry_id),
        issued_by=None if own or not row.issued_by else ActorRef(subject=row.issued_by),
        closed_by=None if own or not row.closed_by else ActorRef(subject=row.closed_by),
    )


def facts(row: Row[Any]) -> events.RedemptionFacts:
    """A redemption after a change, as events tell it."""
    return events.RedemptionFacts(
        redemption_id=str(row.redemption_id),
        customer_id=str(row.customer_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        reward_id=str(row.reward_id),
        points=row.points,
        state=row.state,
        issued_at=stamp(row.issued_at),
        expires_at=stamp(row.expires_at),
        closed_at=stamp(row.closed_at),
        order_id=str(row.order_id or ""),
    )


def published(row: Row[Any]) -> events.RewardPublished:
    """The event that members can redeem a reward."""
    return events.RewardPublished(
        reward_id=str(row.reward_id),
        business_id=str(row.business_id),
        program_id=str(row.program_id),
        kind=row.kind,
        cost_points=row.cost_points,
        valid_until=stamp(row.valid_until),
    )


def _public(message: pb.Reward) -> pb.Reward:
    message.ClearField("segment_ids")
    message.ClearField("code_pool_id")
    return message


def _left(row: Row[Any], codes: Row[Any] | None) -> int | None:
    left = [] if row.stock is None else [row.stock - row.taken]
    if row.pool_id is not None:
        left.append(codes.left if codes else 0)
    return min(left, default=None)


def _values(message: pb.Reward, program: Program, ladder: Ladder) -> dict[str, Any]:
    faults = Faults()
    kept = pb.Reward()
    kept.CopyFrom(message)
    for name in _OUTPUT:
        kept.ClearField(name)  # type: ignore[arg-type]
    _judge(kept, faults)
    for tier in kept.tiers:
        if not ladder.has(tier):
            faults.add("reward.tiers", f"the program has no tier {tier}", "UNKNOWN_TIER")
    for name in ("amount", "cost_money"):
        if kept.HasField(name):  # type: ignore[arg-type]
            money = getattr(kept, name)
            if money.currency not in {"", program.currency}:
                wrong = f"the program counts in {program.currency}"
                faults.add(f"reward.{name}.currency", wrong, "CURRENCY_MISMATCH")
            if money.amount_minor <= 0:
                faults.add(f"reward.{name}.amount_minor", "must be above 0", "OUT_OF_RANGE")
            money.currency = program.currency
    since = instant(kept.valid_from) if kept.HasField("valid_from") else None
    until = instant(kept.valid_until) if kept.HasField("valid_until") else None
    if since is not None and until is not None and since >= until:
        faults.add("reward.valid_until", "must be after valid_from", "OUT_OF_RANGE")
    faults.refuse()
    stored = pb.Reward()
    stored.CopyFrom(kept)
    for name in ("active", "stock"):
        stored.ClearField(name)  # type: ignore[arg-type]
    return {
        "definition": MessageToDict(stored, preserving_proto_field_name=True),
        "kind": int(kept.kind),
        "active": kept.active if kept.HasField("active") else True,
        "cost_points": kept.cost_points,
        "stock": kept.stock if kept.HasField("stock") else None,
        "pool_id": UUID(kept.code_pool_id) if kept.code_pool_id else None,
        "valid_from": since,
        "valid_until": until,
    }


def _judge(kept: pb.Reward, faults: Faults) -> None:
    """Whether a reward has what its kind needs, and a price."""
    try:
        kept.name = formats.line(kept.name)
    except Wrong as wrong:
        faults.add("reward.name", str(wrong))
    if not kept.name.strip():
        faults.add("reward.name", "must not be blank", "REQUIRED")
    if kept.kind == pb.REWARD_KIND_UNSPECIFIED:
        faults.add("reward.kind", "says what the reward is", "REQUIRED")
    if kept.cost_points < 1:
        faults.add("reward.cost_points", "must be at least 1", "OUT_OF_RANGE")
    needed = _OF_KIND.get(kept.kind)
    for name in ("amount", "percent", "sku"):
        there = name in {field.name for field, _ in kept.ListFields()}
        if name == needed and not there:
            faults.add(f"reward.{name}", "is needed for this kind", "REQUIRED")
        if name != needed and there and kept.kind != pb.REWARD_KIND_CUSTOM:
            faults.add(f"reward.{name}", "does not belong to this kind", "INVALID")


def _paths(present: Iterable[str], mask: FieldMask) -> frozenset[str]:
    """The paths that a mask names: the present ones if it is empty, all for "*". Raises InvalidArgument."""
    if list(mask.paths) == ["*"]:
        return WRITABLE
    if not mask.paths:
        return frozenset(present) & WRITABLE
    faults = Faults()
    for path in sorted(set(mask.paths) - WRITABLE):
        faults.add("update_mask", f"{path} is no field that can be written")
    faults.refuse()
    return frozenset(mask.paths)
