"""Writes about businesses, programs and rules."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, update
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.db import Tx
from libs.ids import new_id
from libs.money import MINOR_DIGITS
from libs.problems import EtagMismatch
from services.loyalty.problems import ProgramNotFound, TooManyPrograms, TooManyRules
from services.loyalty.programs import queries
from services.loyalty.programs.tables import earning_rules, programs
from services.loyalty.tables import businesses
from services.loyalty.tiers.tables import tier_configurations

MAX_PROGRAMS = 20
MAX_RULES = 200
DEFAULT_RULE = {"name": "A point for each unit spent", "per_amount": {"points": 1}}
# Names and yearly spending in whole units of the currency.
DEFAULT_TIERS = (("BRONZE", 0), ("SILVER", 500), ("GOLD", 1_500), ("PLATINUM", 5_000))

_b, _p, _r = businesses.c, programs.c, earning_rules.c


async def know_business(
    tx: Tx, business_id: UUID, *, version: int, currency: str, time_zone: str, archived: bool
) -> None:
    """Keeps what is newer about a business; a new one gets its default program."""
    fresh = upsert(businesses).values(
        tenant_id=tx.tenant_id,
        business_id=business_id,
        currency=currency,
        time_zone=time_zone or "UTC",
        archived=archived,
        version=version,
    )
    await tx.execute(
        fresh.on_conflict_do_update(
            constraint="businesses_pkey",
            set_={
                "currency": fresh.excluded.currency,
                "time_zone": fresh.excluded.time_zone,
                "archived": fresh.excluded.archived,
                "version": fresh.excluded.version,
            },
            where=_b.version < fresh.excluded.version,
        )
    )
    await queries.business(tx, business_id, lock=True)
    if not await queries.count(tx, business_id):
        program_id = new_id()
        await _insert_program(tx, program_id, business_id, "Points", True, True, {}, currency)
        await _insert_rule(tx, new_id(), 1, business_id, program_id, DEFAULT_RULE, tx.now)


async def create_program(tx: Tx, program_id: UUID, business_id: UUID, values: Mapping[str, Any]) -> None:
    """Adds a program. Raises ProgramNotFound for a business that was not heard of yet, TooManyPrograms."""
    business = await queries.business(tx, business_id, lock=True)
    if business is None:
        raise ProgramNotFound
    if await queries.count(tx, business_id) >= MAX_PROGRAMS:
        raise TooManyPrograms(limit=MAX_PROGRAMS)
    is_default = bool(values.get("is_default"))
    if is_default:
        await _no_default(tx, business_id)
    await _insert_program(
        tx,
        program_id,
        business_id,
        values["name"],
        is_default,
        values.get("active", True),
        values.get("settings", {}),
        business.currency,
    )


async def update_program(tx: Tx, before: Row[Any], values: Mapping[str, Any], etag: str) -> None:
    """Changes a locked program. Raises EtagMismatch."""
    if etag and etag != str(before.version):
        raise EtagMismatch
    changed = {name: value for name, value in values.items() if getattr(before, name) != value}
    if not changed:
        return
    if changed.get("is_default"):
        await _no_default(tx, before.business_id)
    await tx.execute(
        update(programs)
        .where(_p.tenant_id == tx.tenant_id, _p.program_id == before.program_id)
        .values(**changed, version=before.version + 1, updated_at=tx.now)
    )


async def create_rule(tx: Tx, rule_id: UUID, program: Row[Any], definition: Mapping[str, Any]) -> None:
    """Adds a rule to a locked program. Raises TooManyRules."""
    if len(await queries.rule_rows(tx, program.program_id)) >= MAX_RULES:
        raise TooManyRules(limit=MAX_RULES)
    await _insert_rule(tx, rule_id, 1, program.business_id, program.program_id, definition, tx.now)


async def update_rule(tx: Tx, before: Row[Any], definition: Mapping[str, Any], etag: str) -> None:
    """Replaces the version of a rule that holds. Raises EtagMismatch."""
    if etag and etag != str(before.version):
        raise EtagMismatch
    if definition == before.definition:
        return
    await end_rule(tx, before)
    await _insert_rule(
        tx,
        before.rule_id,
        before.version + 1,
        before.business_id,
        before.program_id,
        definition,
        before.created_at,
    )


async def end_rule(tx: Tx, before: Row[Any]) -> None:
    """Ends the version of a rule that holds: nothing is given by it from now on."""
    await tx.execute(
        update(earning_rules)
        .where(_r.tenant_id == tx.tenant_id, _r.rule_id == before.rule_id, _r.version == before.version)
        .values(holds_until=tx.now)
    )


async def _no_default(tx: Tx, business_id: UUID) -> None:
    await tx.execute(
        update(programs)
        .where(_p.tenant_id == tx.tenant_id, _p.business_id == business_id, _p.is_default)
        .values(is_default=False, version=_p.version + 1, updated_at=tx.now)
    )


async def _insert_program(
    tx: Tx,
    program_id: UUID,
    business_id: UUID,
    name: str,
    is_default: bool,
    active: bool,
    settings: Mapping[str, Any],
    currency: str,
) -> None:
    values = {
        "tenant_id": tx.tenant_id,
        "program_id": program_id,
        "business_id": business_id,
        "name": name,
        "is_default": is_default,
        "active": active,
        "settings": dict(settings),
        "version": 1,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    await tx.execute(insert(programs).values(values))
    unit = 10 ** MINOR_DIGITS.get(currency, 2)
    tiers = [
        {"name": name, "spending_minor": str(units * unit)} if units else {"name": name}
        for name, units in DEFAULT_TIERS
    ]
    first = {
        "tenant_id": tx.tenant_id,
        "program_id": program_id,
        "version": 1,
        "business_id": business_id,
        "definition": {"tiers": tiers},
        "reason": "",
        "actor": "",
        "changed_at": tx.now,
    }
    await tx.execute(insert(tier_configurations).values(first))


async def _insert_rule(
    tx: Tx,
    rule_id: UUID,
    version: int,
    business_id: UUID,
    program_id: UUID,
    definition: Mapping[str, Any],
    created_at: object,
) -> None:
    values = {
        "tenant_id": tx.tenant_id,
        "rule_id": rule_id,
        "version": version,
        "business_id": business_id,
        "program_id": program_id,
        "definition": dict(definition),
        "created_at": created_at,
        "holds_from": tx.now,
        "holds_until": None,
    }
    await tx.execute(insert(earning_rules).values(values))
