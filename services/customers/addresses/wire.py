"""Address messages to values and back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import Row

from libs.instants import stamp
from libs.problems import Faults, InvalidArgument
from regulars.customers.v1 import addresses_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.customers.addresses import rules
from services.customers.addresses.queries import AddressView
from services.customers.addresses.rules import Decision, Place, Verification

_TEXTS = ("label", "recipient", "city", "state", "postal_code", "country", "time_zone")
_DEGREES = ("latitude", "longitude")
WRITABLE = frozenset((*_TEXTS, *_DEGREES, "street_lines", "type", "default"))


def paths_of(message: pb.Address, mask: FieldMask) -> frozenset[str]:
    """The paths that a mask names: the present ones if it is empty, all for "*". Raises InvalidArgument."""
    if list(mask.paths) == ["*"]:
        return WRITABLE
    if not mask.paths:
        return frozenset(field.name for field, _ in message.ListFields() if field.name in WRITABLE)
    faults = Faults()
    for path in set(mask.paths) - WRITABLE:
        faults.add("update_mask", f"{path} is no field that can be written")
    faults.refuse()
    return frozenset(mask.paths)


def written(message: pb.Address, paths: frozenset[str], before: Place) -> Place:
    """What `before` becomes when the message's fields at `paths` are written.

    Raises InvalidArgument with everything that is wrong.
    """
    values: dict[str, object] = {name: getattr(message, name).strip() for name in _TEXTS if name in paths}
    for name in _DEGREES:
        if name in paths:
            values[name] = getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]
    if "street_lines" in paths:
        values["street_lines"] = tuple(line.strip() for line in message.street_lines)
    after = replace(before, **values)  # type: ignore[arg-type]
    faults = Faults()
    for name, wrong in rules.wrong_parts(after).items():
        faults.add(f"address.{name}", wrong, "REQUIRED" if wrong.startswith("is required") else "INVALID")
    faults.refuse()
    return rules.normal(after)


def decision(message: pb.VerifyAddressRequest | pb.AddressDecision) -> Decision:
    """What a message decides. Raises InvalidArgument for one coordinate without the other."""
    latitude = message.latitude if message.HasField("latitude") else None
    longitude = message.longitude if message.HasField("longitude") else None
    if (latitude is None) != (longitude is None):
        missing = "latitude" if latitude is None else "longitude"
        raise InvalidArgument.of(missing, "latitude and longitude go together", "REQUIRED")
    return Decision(message.decision, message.notes.strip(), latitude, longitude)


def _verification(found: Verification) -> pb.AddressVerification:
    return pb.AddressVerification(
        status=found.status,  # type: ignore[arg-type]  # the number of the enum
        at=stamp(found.at),
        decided_by=ActorRef(subject=found.by, display_name=found.by_name) if found.by else None,
        notes=found.notes,
    )


def stats(rows: Sequence[Row[Any]]) -> pb.AddressVerificationStats:
    """The message of the counts by verification."""
    by_status = {row.verification: row for row in rows}
    counts = {status: row.addresses for status, row in by_status.items()}
    waiting = by_status.get(rules.PENDING)
    return pb.AddressVerificationStats(
        pending=counts.get(rules.PENDING, 0),
        verified=counts.get(rules.VERIFIED, 0),
        rejected=counts.get(rules.REJECTED, 0),
        oldest_pending_at=stamp(waiting.oldest) if waiting else None,
    )


def address(view: AddressView, version: int) -> pb.Address:
    """The message of an address of a customer who has this version."""
    place = view.place
    return pb.Address(
        id=str(view.address_id),
        type=view.type,  # type: ignore[arg-type]  # the number of the enum
        label=place.label or None,
        recipient=place.recipient or None,
        street_lines=place.street_lines,
        city=place.city or None,
        state=place.state or None,
        postal_code=place.postal_code or None,
        country=place.country or None,
        latitude=place.latitude,
        longitude=place.longitude,
        time_zone=place.time_zone or None,
        default=view.is_default,
        formatted=rules.formatted(place),
        created_at=stamp(view.created_at),
        updated_at=stamp(view.updated_at),
        verification=_verification(view.verification),
        etag=str(version),
    )
