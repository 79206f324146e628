"""Writes about tiers: members are judged under the lock of their accounts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, insert, select, text

from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.outbox import Fact, emit, emit_all
from libs.problems import EtagMismatch
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.ledger import actions as ledger
from services.loyalty.ledger import queries as ledger_queries
from services.loyalty.ledger import writing
from services.loyalty.ledger.tables import accounts
from services.loyalty.problems import OverrideNotFound, TierNotFound
from services.loyalty.programs.queries import Program
from services.loyalty.tiers import queries, rules
from services.loyalty.tiers.queries import Configuration
from services.loyalty.tiers.rules import Facts, Ladder, Standing, Verdict
from services.loyalty.tiers.tables import tier_changes, tier_configurations

_a = accounts.c
_STANDINGS = text("""
    insert into standings as s
    select r.* from json_populate_recordset(null::standings, cast(:rows as json)) r
    on conflict on constraint standings_pkey do update
    set tier = excluded.tier, since = excluded.since, grace_until = excluded.grace_until,
        review_at = excluded.review_at, overridden = excluded.overridden,
        override_until = excluded.override_until, version = excluded.version
""")


async def configure(
    tx: Tx,
    program: Program,
    before: Configuration,
    definition: Mapping[str, Any],
    reason: str,
    etag: str,
) -> bool:
    """Replaces the tiers of a locked program; False if nothing changed. Emits TierConfigured. Raises EtagMismatch."""
    if etag and etag != str(before.version):
        raise EtagMismatch
    if before.definition == definition:
        return False
    values = {
        "tenant_id": tx.tenant_id,
        "program_id": program.program_id,
        "version": before.version + 1,
        "business_id": program.business_id,
        "definition": dict(definition),
        "reason": reason,
        "actor": _actor(tx),
        "changed_at": tx.now,
    }
    await tx.execute(insert(tier_configurations).values(values))
    event = events.TierConfigured(
        business_id=str(program.business_id),
        program_id=str(program.program_id),
        tiers=[tier["name"] for tier in definition["tiers"]],
    )
    await emit(
        tx,
        event,
        aggregate_id=program.program_id,
        version=before.version + 1,
        business_id=program.business_id,
    )
    return True


async def judge(
    tx: Tx, program: Program, of: Ladder, account_ids: Sequence[UUID], *, recalculating: bool = False
) -> int:
    """Judges accounts of one program that the transaction holds; gives how many tiers changed.

    Emits TierUpgraded, TierDowngraded, TierDowngradePending.
    """
    asked = queries.asked_facts(tx, program, of, account_ids, tx.now)
    facts, known = await tx.together(asked, queries.asked_standings(tx, account_ids))
    return await judge_by(
        tx,
        program,
        of,
        queries.facts_in(facts),
        queries.standings_in(known),
        recalculating=recalculating,
    )


async def judge_by(
    tx: Tx,
    program: Program,
    of: Ladder,
    facts: Mapping[UUID, tuple[Facts, Facts]],
    known: Mapping[UUID, Standing],
    *,
    recalculating: bool = False,
) -> int:
    """As `judge`, by what was read of the accounts under their locks."""
    moved: dict[UUID, tuple[Standing, Verdict]] = {}
    for account_id, (now, last) in facts.items():
        before = known.get(account_id) or Standing(tier=of.tiers[0].name)
        verdict = rules.judge(of, before, now, last, tx.now, program.zone, recalculating=recalculating)
        if verdict.standing != before:
            moved[account_id] = before, verdict
    await _write(tx, program, of, moved)
    return sum(bool(verdict.why) for _, verdict in moved.values())


async def judge_locked(
    tx: Tx, programs: Mapping[UUID, Program], rows: Iterable[Any], *, recalculating: bool = False
) -> int:
    """Locks accounts (rows account_id, program_id) and judges them; gives how many tiers changed."""
    by_program: dict[UUID, list[UUID]] = {}
    for row in rows:
        by_program.setdefault(row.program_id, []).append(row.account_id)
    wanted = sorted(account_id for each in by_program.values() for account_id in each)
    lock = (
        select(_a.account_id)
        .where(_a.tenant_id == tx.tenant_id, _a.account_id.in_(wanted))
        .order_by(_a.account_id)
        .with_for_update()
    )
    await tx.execute(writing.BY_KEY)
    await tx.execute(lock)
    changed = 0
    for program_id, account_ids in by_program.items():
        of = await queries.ladder(tx, program_id)
        changed += await judge(tx, programs[program_id], of, sorted(account_ids), recalculating=recalculating)
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Who changes tiers by hand, and why: sealed with a change of this id, or as the bulk has it."""

    actor: str
    change_id: UUID | None = None
    key_id: UUID | None = None
    sealed: bytes | None = None
    bulk_id: UUID | None = None


async def set_override(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    program: Program,
    customer_id: UUID,
    tier: str,
    reason: str,
    until: datetime | None,
) -> None:
    """Puts a member into a tier by hand; nothing happens if all of that is so already. Emits TierUpgraded or
    TierDowngraded.

    Raises TierNotFound, MembershipNotFound.
    """
    await ledger_queries.member(tx, program.business_id, customer_id)
    of, moved = await _overriding(tx, program, [customer_id], tier, until)
    key = await ledger.text_key(tx, keys, customer_id)
    (account_id,) = moved
    before, verdict = moved[account_id]
    if verdict.standing == before and await _reason(tx, keys, reading, account_id) == reason:
        return
    change_id = new_id()
    written = {"reason": reason, "actor_name": tx.caller.display_name or ""}
    sealed = keys.seal(key, queries.SEALED, change_id, orjson.dumps(written))
    said = Said(actor=_actor(tx), change_id=change_id, key_id=key.key_id, sealed=sealed)
    await _write(tx, program, of, moved, said)


async def change_override(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    program: Program,
    customer_id: UUID,
    changes: Mapping[str, Any],
) -> None:
    """Changes some of `tier`, `reason` and `until` of a running override. Emits TierUpgraded or TierDowngraded.

    Raises OverrideNotFound, TierNotFound, MembershipNotFound.
    """
    await ledger_queries.member(tx, program.business_id, customer_id)
    (account_id,) = await _locked(tx, program, [customer_id])
    before = (await queries.standings_of(tx, [account_id])).get(account_id)
    if before is None or not rules.is_overridden(before, tx.now):
        raise OverrideNotFound
    now = {
        "tier": before.tier,
        "reason": await _reason(tx, keys, reading, account_id),
        "until": before.override_until,
        **changes,
    }
    await set_override(tx, keys, reading, program, customer_id, now["tier"], now["reason"], now["until"])


async def set_overrides(
    tx: Tx,
    program: Program,
    customer_ids: Iterable[UUID],
    tier: str,
    until: datetime | None,
    said: Said,
) -> None:
    """Puts members into a tier by hand, but for those who are in it like that already.

    Emits TierUpgraded, TierDowngraded. Raises TierNotFound.
    """
    of, moved = await _overriding(tx, program, customer_ids, tier, until)
    fresh = {each: step for each, step in moved.items() if step[0] != step[1].standing}
    await _write(tx, program, of, fresh, said)


async def _overriding(
    tx: Tx, program: Program, customer_ids: Iterable[UUID], tier: str, until: datetime | None
) -> tuple[Ladder, dict[UUID, tuple[Standing, Verdict]]]:
    """Where members stand and would stand, by their locked accounts. Raises TierNotFound."""
    account_ids = await _locked(tx, program, customer_ids)
    of = await queries.ladder(tx, program.program_id)
    if not of.has(tier):
        raise TierNotFound
    known = await queries.standings_of(tx, account_ids)
    moved: dict[UUID, tuple[Standing, Verdict]] = {}
    for account_id in account_ids:
        before = known.get(account_id) or Standing(tier=of.tiers[0].name)
        after = rules.overridden(before, of.tier(tier).name, until, tx.now)
        moved[account_id] = before, Verdict(after, rules.OVERRIDE)
    return of, moved


async def _reason(tx: Tx, keys: TenantKeys, reading: Reading, account_id: UUID) -> str:
    """The reason of the last change of an account's tier by hand."""
    for row in await queries.changes(tx, [account_id], 1, None):
        return opened(keys, reading, row).get("reason") or row.bulk_reason or ""
    return ""


def opened(keys: TenantKeys, reading: Reading, row: Row[Any]) -> dict[str, str]:
    """What is sealed with a change of a tier: `reason`, `actor_name`; nothing once its key is destroyed."""
    if row.sealed is None or row.wrapped is None:
        return {}
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    plain = keys.open(reading, row.customer_id, key, queries.SEALED, row.change_id, row.sealed)
    told: dict[str, str] = orjson.loads(plain)
    return told


async def clear_override(tx: Tx, program: Program, customer_id: UUID) -> None:
    """Ends an override: the calculation holds. Emits TierUpgraded or TierDowngraded. Raises MembershipNotFound."""
    await ledger_queries.member(tx, program.business_id, customer_id)
    await clear_overrides(tx, program, [customer_id], Said(actor=_actor(tx)))


async def clear_overrides(tx: Tx, program: Program, customer_ids: Iterable[UUID], said: Said) -> None:
    """Ends overrides of members who have one. Emits TierUpgraded, TierDowngraded."""
    account_ids = await _locked(tx, program, customer_ids)
    of = await queries.ladder(tx, program.program_id)
    known = await queries.standings_of(tx, account_ids)
    overridden = [each for each in account_ids if each in known and known[each].overridden]
    facts = await queries.facts(tx, program, of, overridden, tx.now) if overridden else {}
    moved: dict[UUID, tuple[Standing, Verdict]] = {}
    for account_id in overridden:
        now, last = facts[account_id]
        ended = replace(known[account_id], override_until=tx.now)
        moved[account_id] = known[account_id], rules.judge(of, ended, now, last, tx.now, program.zone)
    await _write(tx, program, of, moved, said)


async def put(
    tx: Tx, program: Program, of: Ladder, account_id: UUID, before: Standing, after: Standing
) -> None:
    """Gives a locked account another's standing at a merge. Emits TierUpgraded or TierDowngraded."""
    await _write(tx, program, of, {account_id: (before, Verdict(after, rules.MERGE))})


async def _locked(tx: Tx, program: Program, customer_ids: Iterable[UUID]) -> list[UUID]:
    """The members' accounts, made if need be, and locked, in the order of their ids."""
    await tx.execute(writing.BY_KEY)
    members = [(program.program_id, customer_id) for customer_id in customer_ids]
    opened = await writing.open_accounts(tx, members, {program.program_id: program})
    lock = select(_a.account_id).where(_a.tenant_id == tx.tenant_id, _a.account_id.in_(opened.values()))
    return list((await tx.execute(lock.order_by(_a.account_id).with_for_update())).scalars())


def _actor(tx: Tx) -> str:
    return tx.caller.on_behalf_of or tx.caller.subject


async def _write(
    tx: Tx,
    program: Program,
    of: Ladder,
    moved: Mapping[UUID, tuple[Standing, Verdict]],
    said: Said | None = None,
) -> None:
    if not moved:
        return
    rows: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    facts: list[Fact] = []
    owners = {row.account_id: row.customer_id for row in await ledger_queries.owners(tx, moved)}
    for account_id, (before, verdict) in moved.items():
        after = replace(verdict.standing, version=before.version + 1)
        rows.append(
            {
                "tenant_id": tx.tenant_id,
                "account_id": account_id,
                "program_id": program.program_id,
                "business_id": program.business_id,
                **{name: getattr(after, name) for name in Standing.__slots__},
            }
        )
        changed = after.tier != before.tier
        if verdict.why and (changed or verdict.why == rules.OVERRIDE):
            by_hand = (said or Said(actor=_actor(tx))) if verdict.why == rules.OVERRIDE else Said(actor="")
            history.append(
                {
                    "tenant_id": tx.tenant_id,
                    "change_id": by_hand.change_id or new_id(),
                    "account_id": account_id,
                    "business_id": program.business_id,
                    "from_tier": before.tier,
                    "to_tier": after.tier,
                    "why": verdict.why,
                    "changed_at": tx.now,
                    "actor": by_hand.actor,
                    "key_id": by_hand.key_id,
                    "sealed": by_hand.sealed,
                    "bulk_id": by_hand.bulk_id,
                }
            )
        facts += _facts(program, of, owners[account_id], account_id, before, after, verdict)
    await tx.execute(_STANDINGS, {"rows": orjson.dumps(rows).decode()})
    if history:
        await tx.execute(insert(tier_changes), history)
    await emit_all(tx, facts)


def _facts(
    program: Program,
    of: Ladder,
    customer_id: UUID,
    account_id: UUID,
    before: Standing,
    after: Standing,
    verdict: Verdict,
) -> Iterable[Fact]:
    told = {
        "customer_id": str(customer_id),
        "business_id": str(program.business_id),
        "program_id": str(program.program_id),
        "default_program": program.is_default,
        "tier": after.tier,
        "previous_tier": before.tier,
    }
    message: Any = None
    if verdict.announced:
        message = events.TierDowngradePending(**told, downgrade_at=stamp(after.grace_until))  # type: ignore[arg-type]
    elif after.tier != before.tier:
        kind: Any = (
            events.TierUpgraded if of.rank(after.tier) > of.rank(before.tier) else events.TierDowngraded
        )
        message = kind(**told, why=rules.REASONS[verdict.why])
    if message is not None:
        yield Fact(message, account_id, after.version, program.business_id)
