"""Messages of tiers to values and back."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from sqlalchemy import Row

from libs import formats
from libs.formats import Wrong
from libs.instants import instant, stamp
from libs.problems import Faults
from regulars.loyalty.v1 import tiers_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.loyalty.programs.queries import Program
from services.loyalty.programs.wire import named_paths
from services.loyalty.tiers import rules
from services.loyalty.tiers.queries import Configuration, Move
from services.loyalty.tiers.rules import Facts, Ladder, Standing

_WRITABLE = frozenset(("period", "rolling", "match", "grace_months", "tiers"))
_OVERRIDE = frozenset(("tier", "reason", "until"))
_OUTPUT = frozenset(("program_id", "updated_at", "etag", "recalculation_job_id"))


def changed(before: Mapping[str, Any], message: pb.TierConfiguration, mask: FieldMask) -> dict[str, Any]:
    """What is to be stored of tiers after a change. Raises InvalidArgument naming each wrong field."""
    named = named_paths(message, mask, _WRITABLE)
    given: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    kept = {name: value for name, value in before.items() if name not in named}
    after = pb.TierConfiguration()
    ParseDict(kept | {name: given[name] for name in named & given.keys()}, after, ignore_unknown_fields=True)
    return definition(after)


def override_changes(message: pb.TierOverride, mask: FieldMask, now: datetime) -> dict[str, Any]:
    """Which of `tier`, `reason`, `until` of an override are to change, and to what. Raises InvalidArgument."""
    paths, wrong = named_paths(message, mask, _OVERRIDE), Faults()
    found: dict[str, Any] = {name: getattr(message, name).strip() for name in paths & {"tier", "reason"}}
    for name, value in found.items():
        if not value:
            wrong.add(f"override.{name}", "must not be blank", "REQUIRED")
    if "until" in paths:
        found["until"] = instant(message.until) if message.HasField("until") else None
        if found["until"] is not None and found["until"] <= now:
            wrong.add("override.until", "must be in the future", "OUT_OF_RANGE")
    wrong.refuse()
    return found


def definition(message: pb.TierConfiguration) -> dict[str, Any]:
    """What is stored of tiers. Raises InvalidArgument naming each wrong field."""
    wrong = Faults()
    kept = pb.TierConfiguration()
    kept.CopyFrom(message)
    for name in _OUTPUT:
        kept.ClearField(name)  # type: ignore[arg-type]  # a name of its own
    if not kept.tiers:
        wrong.add("configuration.tiers", "there is at least one", "REQUIRED")
    wrong.refuse()
    for i, tier in enumerate(kept.tiers):
        field = f"configuration.tiers[{i}]"
        try:
            tier.name = formats.line(tier.name)
        except Wrong as fault:
            wrong.add(f"{field}.name", str(fault))
        if not tier.name:
            wrong.add(f"{field}.name", "must not be blank", "REQUIRED")
        if 0 < tier.earning_percent < 100:
            wrong.add(f"{field}.earning_percent", "must be at least 100", "OUT_OF_RANGE")
    found: dict[str, Any] = MessageToDict(kept, preserving_proto_field_name=True)
    for place, told in rules.faults(rules.ladder_of(_named(found)).tiers):
        wrong.add(f"configuration.{place}", told, "THRESHOLDS")
    wrong.refuse()
    return found


def _named(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {**stored, "tiers": [{"name": "", **tier} for tier in stored["tiers"]]}


def configuration(row: Row[Any] | Configuration, job_id: UUID | None = None) -> pb.TierConfiguration:
    """The message of a version of a program's tiers."""
    message = pb.TierConfiguration()
    ParseDict(dict(row.definition), message, ignore_unknown_fields=True)
    message.program_id, message.etag = str(row.program_id), str(row.version)
    message.updated_at.CopyFrom(stamp(row.changed_at))
    message.recalculation_job_id = str(job_id or "")
    message.period = message.period or pb.TIER_PERIOD_YEARLY
    message.match = message.match or pb.TIER_MATCH_ANY
    if not message.HasField("grace_months"):
        message.grace_months = 3
    for tier in message.tiers:
        tier.earning_percent = tier.earning_percent or 100
    return message


def audit(row: Row[Any], before: Row[Any] | None) -> pb.TierAudit:
    """The message of a change of tiers."""
    return pb.TierAudit(
        previous=configuration(before) if before is not None else None,
        current=configuration(row),
        reason=row.reason,
        actor=ActorRef(subject=row.actor) if row.actor else None,
        changed_at=stamp(row.changed_at),
    )


def standing(
    program: Program,
    of: Ladder,
    customer_id: UUID,
    found: Standing | None,
    facts: Facts,
    by: date | None,
) -> pb.TierStanding:
    """The message of where a member stands."""
    here = found or Standing(tier=of.tiers[0].name)
    tier = of.tier(here.tier)
    far = rules.progress(of, here.tier, facts)
    return pb.TierStanding(
        customer_id=str(customer_id),
        program_id=str(program.program_id),
        tier=tier.name,
        since=stamp(here.since),
        overridden=here.overridden,
        override_until=stamp(here.override_until),
        downgrade_at=stamp(here.grace_until),
        progress=pb.TierProgress(
            next_tier=far.next_tier,
            percent=far.percent,
            missing_spending_minor=far.missing.spending_minor,
            missing_visits=far.missing.visits,
            missing_points=far.missing.points,
            by=by.isoformat() if by else "",
        )
        if far
        else None,
        spending_minor=facts.spending_minor,
        visits=facts.visits,
        points=facts.points,
        earning_percent=tier.earning_percent,
        perks=tier.perks,
    )


def change(row: Row[Any], told: Mapping[str, str]) -> pb.TierChange:
    """The message of a change of a member's tier."""
    return pb.TierChange(
        id=str(row.change_id),
        from_tier=row.from_tier,
        to_tier=row.to_tier,
        why=row.why,
        changed_at=stamp(row.changed_at),
        reason=told.get("reason") or row.bulk_reason or "",
        actor=ActorRef(subject=row.actor, display_name=told.get("actor_name", "")) if row.actor else None,
    )


def moves(rows: Iterable[Move], now: Ladder, then: Ladder) -> pb.PreviewTierConfigurationResponse:
    """The message of a preview."""
    found = []
    for row in rows:
        here = row.tier or now.tiers[0].name
        there = here if row.rank < 0 else then.tiers[row.rank].name
        found.append(
            pb.TierMove(
                from_tier=here,
                to_tier=there,
                members=row.members,
                sample_customer_ids=[str(each) for each in row.sample],
            )
        )
    found.sort(key=lambda move: (now.rank(move.from_tier), then.rank(move.to_tier)))
    return pb.PreviewTierConfigurationResponse(moves=found, members=sum(move.members for move in found))
