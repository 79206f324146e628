"""Messages of programs and rules to values and back."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from sqlalchemy import Row

from libs import formats
from libs.formats import Wrong
from libs.instants import instant, stamp
from libs.problems import Faults
from regulars.loyalty.v1 import programs_pb2 as pb
from services.loyalty.cards.rules import Card, here
from services.loyalty.programs import rules
from services.loyalty.programs.rules import Award, Line, Purchase, Skipped

_PROGRAM = frozenset(("name", "is_default", "active", "settings"))
_KINDS = frozenset(rules.KINDS)
_RULE = frozenset(("name", "conditions", "caps", "priority", "exclusive", "active")) | _KINDS


def new_program(message: pb.Program) -> dict[str, Any]:
    """What is to be stored of a new program. Raises InvalidArgument."""
    return _program(message, _PROGRAM)


def program_changes(before: Row[Any], message: pb.Program, mask: FieldMask) -> dict[str, Any]:
    """What is to be changed of a program; of its settings those that the mask names. Raises InvalidArgument."""
    paths = named_paths(message, mask, _PROGRAM)
    after = pb.Program()
    after.CopyFrom(message)
    if "settings" not in paths:
        after.ClearField("settings")
        ParseDict(before.settings, after.settings, ignore_unknown_fields=True)
        _merge(message, after, paths)
    return _program(after, {path.partition(".")[0] for path in paths})


def program(row: Row[Any]) -> pb.Program:
    """The message of a program's row."""
    message = pb.Program(
        id=str(row.program_id),
        business_id=str(row.business_id),
        name=row.name,
        is_default=row.is_default,
        active=row.active,
        currency=row.currency,
        time_zone=row.time_zone,
        created_at=stamp(row.created_at),
        updated_at=stamp(row.updated_at),
        etag=str(row.version),
    )
    ParseDict(row.settings, message.settings, ignore_unknown_fields=True)
    _tell_defaults(message.settings)
    return message


def new_rule(message: pb.EarningRule) -> dict[str, Any]:
    """The definition of a new rule. Raises InvalidArgument."""
    return _definition(message)


def changed_rule(before: Row[Any], message: pb.EarningRule, mask: FieldMask) -> dict[str, Any]:
    """The definition of a rule after a change. Raises InvalidArgument."""
    after = pb.EarningRule()
    ParseDict(before.definition, after, ignore_unknown_fields=True)
    paths = named_paths(message, mask, _RULE)
    _merge(message, after, paths)
    for path in paths:
        if "." in path:
            continue
        if path in _KINDS and not message.HasField(path):  # type: ignore[arg-type]  # a name of its own
            continue
        after.ClearField(path)  # type: ignore[arg-type]
        if path in {"name", "priority", "exclusive"}:
            setattr(after, path, getattr(message, path))
        elif path == "active":
            if message.HasField("active"):
                after.active = message.active
        elif message.HasField(path):  # type: ignore[arg-type]
            getattr(after, path).CopyFrom(getattr(message, path))
    return _definition(after)


def rule(row: Row[Any]) -> pb.EarningRule:
    """The message of a rule's version."""
    message = pb.EarningRule()
    ParseDict(row.definition, message, ignore_unknown_fields=True)
    message.id, message.program_id = str(row.rule_id), str(row.program_id)
    if not message.HasField("active"):
        message.active = True
    message.created_at.CopyFrom(stamp(row.created_at))
    message.updated_at.CopyFrom(stamp(row.holds_from))
    message.etag = str(row.version)
    return message


def purchase(order: pb.SimulatedOrder, currency: str, now: datetime) -> Purchase:
    """What counts of a simulated order. Raises InvalidArgument without lines and total."""
    faults = Faults()
    if not order.items and not order.HasField("total_minor"):
        faults.add("order.total_minor", "is needed where there are no items", "REQUIRED")
    faults.refuse()
    lines = tuple(
        Line(item.sku, item.category, item.brand, item.quantity or 1, item.amount_minor)
        for item in order.items
    )
    subtotal = sum(line.amount_minor for line in lines)
    total = max(subtotal - order.discount_minor, 0) + order.shipping_minor + order.tax_minor
    return Purchase(
        placed_at=instant(order.placed_at) if order.HasField("placed_at") else now,
        currency=currency,
        total_minor=order.total_minor if order.HasField("total_minor") else total,
        subtotal_minor=subtotal,
        discount_minor=order.discount_minor,
        shipping_minor=order.shipping_minor,
        tax_minor=order.tax_minor,
        channel=order.channel,
        store=order.store,
        lines=lines,
    )


def reasons(awards: Iterable[Award]) -> list[pb.PointReason]:
    """The messages of awards."""
    return [
        pb.PointReason(
            rule_id=str(award.rule_id or ""),
            name=award.name,
            points=award.points,
            explanation=award.explanation,
        )
        for award in awards
    ]


def skipped(rules_skipped: Iterable[Skipped]) -> list[pb.SkippedRule]:
    """The messages of rules that give nothing."""
    return [
        pb.SkippedRule(rule_id=str(each.rule_id), name=each.name, reason=each.reason)
        for each in rules_skipped
    ]


def stamps(rule: rules.Rule, before: Card, after: Card) -> pb.SimulatedStamps:
    """The message of a card that an order would put stamps on."""
    return pb.SimulatedStamps(
        rule_id=str(rule.rule_id),
        name=rule.name,
        stamps=after.stamps - before.stamps,
        on_card=here(rule, after),
        needed=int(rule.terms["stamps"]),
        filled=after.filled - before.filled,
        offer=str(rule.terms.get("offer", "")),
    )


def rule_order(row: Row[Any]) -> tuple[int, int, UUID]:
    """By what rules are sorted into the order of their evaluation."""
    found = rules.rule_of(row.rule_id, row.definition)
    return rules.KINDS.index(found.kind), found.priority, found.rule_id


def _program(message: pb.Program, paths: Iterable[str]) -> dict[str, Any]:
    faults = Faults()
    values: dict[str, Any] = {}
    for path in paths:
        if path == "name":
            values["name"] = _line(message.name, "program.name", faults)
        elif path == "settings":
            values["settings"] = _stored(message.settings)
        elif message.HasField(path):  # type: ignore[arg-type]  # is_default, active
            values[path] = getattr(message, path)
    if values.get("is_default") is False:
        faults.add("program.is_default", "cannot be set to false; make another one the default", "INVALID")
    if values.get("is_default") and values.get("active") is False:
        faults.add("program.active", "a program that becomes the default one is active", "INVALID")
    faults.refuse()
    return values


def _definition(message: pb.EarningRule) -> dict[str, Any]:
    faults = Faults()
    kept = pb.EarningRule()
    kept.CopyFrom(message)
    for name in ("id", "program_id", "created_at", "updated_at", "etag"):
        kept.ClearField(name)
    kept.name = _line(kept.name, "rule.name", faults)
    kind = kept.WhichOneof("kind")
    if kind is None:
        faults.add("rule.kind", f"one of {', '.join(rules.KINDS)} is needed", "REQUIRED")
    if kind == "bonus":
        bonus = kept.bonus
        if bonus.trigger == pb.BONUS_TRIGGER_NTH_ORDER and bonus.every < 2:
            faults.add("rule.bonus.every", "must be at least 2", "OUT_OF_RANGE")
        if bonus.trigger == pb.BONUS_TRIGGER_CUSTOM_EVENT and not bonus.event.strip():
            faults.add("rule.bonus.event", "names the activity", "REQUIRED")
    if kind == "stamp_card" and not (kept.stamp_card.points or kept.stamp_card.offer.strip()):
        faults.add("rule.stamp_card.points", "a full card gives points or an offer", "REQUIRED")
    since, until = kept.conditions.valid_from, kept.conditions.valid_until
    both = kept.conditions.HasField("valid_from") and kept.conditions.HasField("valid_until")
    if both and instant(since) >= instant(until):
        faults.add("rule.conditions.valid_until", "must be after valid_from", "OUT_OF_RANGE")
    faults.refuse()
    return _stored(kept)


def _line(text: str, field: str, faults: Faults) -> str:
    try:
        found = formats.line(text)
    except Wrong as wrong:
        faults.add(field, str(wrong))
        return ""
    if not found:
        faults.add(field, "must not be blank", "REQUIRED")
    return found


def named_paths(message: Message, mask: FieldMask, writable: frozenset[str]) -> frozenset[str]:
    """The paths that a mask names: the present ones if it is empty, all for "*". Raises InvalidArgument."""
    if list(mask.paths) == ["*"]:
        return writable
    if not mask.paths:
        return frozenset(field.name for field, _ in message.ListFields() if field.name in writable)
    faults = Faults()
    for path in set(mask.paths):
        known = FieldMask(paths=[path]).IsValidForDescriptor(message.DESCRIPTOR)  # type: ignore[arg-type]
        if not known or path.partition(".")[0] not in writable:
            faults.add("update_mask", f"{path} is no field that can be written")
    faults.refuse()
    return frozenset(mask.paths)


def _merge(message: Message, after: Message, paths: Iterable[str]) -> None:
    """Writes what a mask names inside of a message's own messages."""
    inner = FieldMask(paths=[path for path in paths if "." in path])
    inner.MergeMessage(message, after, replace_message_field=True, replace_repeated_field=True)


def _stored(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found


def _tell_defaults(settings: pb.ProgramSettings) -> None:
    """What holds where nothing was said."""
    defaults: Mapping[str, int] = {
        "expiry": pb.EXPIRY_KIND_ROLLING,
        "expiry_months": 12,
        "expiring_notice_days": 30,
        "return_policy": pb.RETURN_POLICY_WITHIN_BALANCE,
        "hold_seconds": 900,
        "leap_day": pb.LEAP_DAY_FEBRUARY_28,
        "hundred_points_minor": 100,
        "largest_household": 6,
    }
    in_months = settings.expiry_months
    _fill(settings, defaults)
    if pb.ExpiryKind.Name(settings.expiry).removeprefix("EXPIRY_KIND_") in rules.ENDS_OF_PERIODS:
        settings.expiry_months = in_months
    if settings.HasField("referrals"):
        referrals: Mapping[str, int] = {
            "qualify_days": 90,
            "invitation_days": 30,
            "limit_days": 30,
            "same_contact": pb.REFERRAL_VERDICT_REFUSE,
            "same_address": pb.REFERRAL_VERDICT_REVIEW,
            "circular": pb.REFERRAL_VERDICT_REFUSE,
        }
        _fill(settings.referrals, referrals)


def _fill(message: Message, defaults: Mapping[str, int]) -> None:
    for name, value in defaults.items():
        if not getattr(message, name):
            setattr(message, name, value)
