"""Writes about tiers: members are judged under the lock of their accounts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import insert, select, text

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
from services.loyalty.problems import TierNotFound
from services.loyalty.programs import queries as programs_queries
from services.loyalty.programs.queries import Program
from services.loyalty.tiers import queries, rules
from services.loyalty.tiers.rules import Ladder, Standing, Verdict
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


async def configure(tx: Tx, program: Program, definition: Mapping[str, Any], reason: str, etag: str) -> bool:
    """Replaces a program's tiers; False if nothing changed. Emits TierConfigured. Raises EtagMismatch."""
    await programs_queries.row(tx, program.program_id, lock=True)  # one change after another
    before = await queries.configuration(tx, program.program_id)
    if etag and etag != str(before.version):
        raise EtagMismatch
    if before.definition == definition:
        return False
    caller = tx.caller
    values = {
        "tenant_id": tx.tenant_id,
        "program_id": program.program_id,
        "version": before.version + 1,
        "business_id": program.business_id,
        "definition": dict(definition),
        "reason": reason,
        "actor": caller.on_behalf_of or caller.subject,
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
    facts = await queries.facts(tx, program, of, account_ids, tx.now)
    known = await queries.standings_of(tx, account_ids)
    moved: dict[UUID, tuple[Standing, Verdict]] = {}
    for account_id in account_ids:
        before = known.get(account_id) or Standing(tier=of.tiers[0].name)
        now, last = facts[account_id]
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


async def set_override(
    tx: Tx,
    keys: TenantKeys,
    program: Program,
    customer_id: UUID,
    tier: str,
    reason: str,
    until: datetime | None,
) -> None:
    """Puts a member into a tier by hand. Emits TierUpgraded or TierDowngraded.

    Raises TierNotFound, MembershipNotFound.
    """
    await ledger_queries.member(tx, program.business_id, customer_id)
    of = await queries.ladder(tx, program.program_id)
    if not of.has(tier):
        raise TierNotFound
    account_id = await _locked(tx, program, customer_id)
    before = (await queries.standings_of(tx, [account_id])).get(account_id) or Standing(tier=of.tiers[0].name)
    name = of.tier(tier).name
    after = replace(
        before,
        tier=name,
        since=before.since if name == before.tier else tx.now,
        grace_until=None,
        review_at=None,
        overridden=True,
        override_until=until,
    )
    key = await ledger.text_key(tx, keys, customer_id)
    change_id = new_id()
    written = {"reason": reason, "actor_name": tx.caller.display_name or ""}
    sealed = key.key_id, keys.seal(key, queries.SEALED, change_id, orjson.dumps(written))
    moved = {account_id: (before, Verdict(after, rules.OVERRIDE))}
    await _write(tx, program, of, moved, change_ids={account_id: change_id}, sealed={account_id: sealed})


async def clear_override(tx: Tx, program: Program, customer_id: UUID) -> None:
    """Ends an override: the calculation holds. Emits TierUpgraded or TierDowngraded. Raises MembershipNotFound."""
    await ledger_queries.member(tx, program.business_id, customer_id)
    account_id = await _locked(tx, program, customer_id)
    before = (await queries.standings_of(tx, [account_id])).get(account_id)
    if before is None or not before.overridden:
        return
    of = await queries.ladder(tx, program.program_id)
    now, last = (await queries.facts(tx, program, of, [account_id], tx.now))[account_id]
    ended = replace(before, override_until=tx.now)
    verdict = rules.judge(of, ended, now, last, tx.now, program.zone)
    await _write(tx, program, of, {account_id: (before, verdict)})


async def put(
    tx: Tx, program: Program, of: Ladder, account_id: UUID, before: Standing, after: Standing
) -> None:
    """Gives a locked account another's standing at a merge. Emits TierUpgraded or TierDowngraded."""
    await _write(tx, program, of, {account_id: (before, Verdict(after, rules.MERGE))})


async def _locked(tx: Tx, program: Program, customer_id: UUID) -> UUID:
    """The member's account, made if need be, and locked."""
    member = program.program_id, customer_id
    opened = await writing.open_accounts(tx, [member], {program.program_id: program})
    lock = select(_a.account_id).where(_a.tenant_id == tx.tenant_id, _a.account_id == opened[member])
    await tx.execute(lock.with_for_update())
    return opened[member]


async def _write(
    tx: Tx,
    program: Program,
    of: Ladder,
    moved: Mapping[UUID, tuple[Standing, Verdict]],
    *,
    change_ids: Mapping[UUID, UUID] | None = None,
    sealed: Mapping[UUID, tuple[UUID, bytes]] | None = None,
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
            key_id, text_sealed = (sealed or {}).get(account_id, (None, None))
            by_hand = verdict.why == rules.OVERRIDE
            history.append(
                {
                    "tenant_id": tx.tenant_id,
                    "change_id": (change_ids or {}).get(account_id) or new_id(),
                    "account_id": account_id,
                    "business_id": program.business_id,
                    "from_tier": before.tier,
                    "to_tier": after.tier,
                    "why": verdict.why,
                    "changed_at": tx.now,
                    "actor": (tx.caller.on_behalf_of or tx.caller.subject) if by_hand else "",
                    "key_id": key_id,
                    "sealed": text_sealed,
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
