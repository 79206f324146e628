"""Writes about rewards, pools of codes and redemptions.

Locks are taken in this order: the redemption, the reward, the account, a code of the pool.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Uuid, bindparam, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.audit import Reading
from libs.crypto import TenantKeys, live_versions
from libs.db import Tx
from libs.ids import new_id
from libs.outbox import Fact, emit, emit_all
from libs.problems import EtagMismatch
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.ledger import actions as ledger
from services.loyalty.ledger import queries as ledger_queries
from services.loyalty.problems import (
    CodePoolNotFound,
    LimitReached,
    OutOfStock,
    RewardNotFound,
    StockTaken,
    TooManyCodePools,
    TooManyRewards,
)
from services.loyalty.programs import queries as programs
from services.loyalty.programs.queries import Program
from services.loyalty.rewards import queries, rules, wire
from services.loyalty.rewards.tables import code_pools, pool_codes, redemptions, rewards

MAX_REWARDS = 1_000
MAX_POOLS = 1_000

_r, _d, _p, _c = rewards.c, redemptions.c, code_pools.c, pool_codes.c

_EXPIRE = text("""
    with due as materialized (
        select d.redemption_id from redemptions d
        where d.tenant_id = :tenant and d.state = 1 and d.expires_at is not null and d.expires_at <= :now
        order by d.expires_at limit :limit
        for update skip locked
    )
    update redemptions d set state = 4, closed_at = d.expires_at, version = d.version + 1
    from due, accounts a
    where d.tenant_id = :tenant and d.redemption_id = due.redemption_id
      and a.tenant_id = :tenant and a.account_id = d.account_id
    returning d.*, a.customer_id, a.program_id
""")
_PUBLISH = text("""
    with due as materialized (
        select r.reward_id from rewards r
        where r.tenant_id = :tenant and r.published_at is null and r.active and r.deleted_at is null
          and (r.valid_from is null or r.valid_from <= :now) and (r.valid_until is null or r.valid_until > :now)
          and (:only is null or r.reward_id = :only)
        order by r.reward_id limit :limit
        for update skip locked
    )
    update rewards r set published_at = :now, version = r.version + 1
    from due where r.tenant_id = :tenant and r.reward_id = due.reward_id
    returning r.*
""").bindparams(bindparam("only", type_=Uuid))


# ------------------------------------------------------------------ rewards


async def create_reward(tx: Tx, reward_id: UUID, program: Program, values: Mapping[str, Any]) -> None:
    """Adds a reward to a program. Emits RewardPublished. Raises TooManyRewards, CodePoolNotFound."""
    await programs.row(tx, program.program_id, lock=True)
    if await queries.count_rewards(tx, program.program_id) >= MAX_REWARDS:
        raise TooManyRewards(limit=MAX_REWARDS)
    await _pool_of(tx, program.business_id, values["pool_id"])
    row = {
        "tenant_id": tx.tenant_id,
        "reward_id": reward_id,
        "business_id": program.business_id,
        "program_id": program.program_id,
        "taken": 0,
        "version": 1,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    await tx.execute(insert(rewards).values(row | dict(values)))
    await publish_rewards(tx, 1, only=reward_id)


async def update_reward(tx: Tx, before: Row[Any], values: Mapping[str, Any], etag: str) -> None:
    """Changes a locked reward. Emits RewardPublished. Raises EtagMismatch, StockTaken, CodePoolNotFound."""
    if etag and etag != str(before.version):
        raise EtagMismatch
    changed = {name: value for name, value in values.items() if getattr(before, name) != value}
    if not changed:
        return
    if "pool_id" in changed:
        await _pool_of(tx, before.business_id, changed["pool_id"])
    if changed.get("stock") is not None:
        so_far = before.taken
        if before.stock is None:  # it was not counted so far; nobody redeems while the lock is held
            so_far = changed["taken"] = await queries.taken(tx, before.reward_id)
        if changed["stock"] < so_far:
            raise StockTaken(taken=so_far)
    elif "stock" in changed:
        changed["taken"] = 0
    changed |= {"version": before.version + 1, "updated_at": tx.now}
    await tx.execute(update(rewards).where(*_this(tx, before.reward_id)).values(changed))
    await publish_rewards(tx, 1, only=before.reward_id)


async def delete_reward(tx: Tx, before: Row[Any]) -> None:
    """Ends a locked reward."""
    gone = {"deleted_at": tx.now, "updated_at": tx.now, "version": before.version + 1}
    await tx.execute(update(rewards).where(*_this(tx, before.reward_id)).values(gone))


async def publish_rewards(tx: Tx, limit: int, only: UUID | None = None) -> int:
    """Tells of rewards that members can redeem from now on, once each; gives how many. Emits RewardPublished."""
    where: dict[str, Any] = {"tenant": tx.tenant_id, "now": tx.now, "limit": limit, "only": only}
    rows = (await tx.execute(_PUBLISH, where)).all()
    await emit_all(
        tx, [Fact(wire.published(row), row.reward_id, row.version, row.business_id) for row in rows]
    )
    return len(rows)


# ------------------------------------------------------------------ pools


async def create_pool(tx: Tx, pool_id: UUID, business_id: UUID, name: str) -> None:
    """Makes an empty pool. Raises TooManyCodePools."""
    if len(await queries.pools(tx, business_id, size=MAX_POOLS, before=None)) >= MAX_POOLS:
        raise TooManyCodePools(limit=MAX_POOLS)
    row = {
        "tenant_id": tx.tenant_id,
        "pool_id": pool_id,
        "business_id": business_id,
        "name": name,
        "created_at": tx.now,
    }
    await tx.execute(insert(code_pools).values(row))


async def import_codes(tx: Tx, keys: TenantKeys, pool: Row[Any], codes: Sequence[str]) -> list[int]:
    """Seals codes into a pool; gives the places of those that the business has already."""
    live = await live_versions(tx)
    known = await _known(tx, keys, pool.business_id, codes)
    key = await ledger.text_key(tx, keys, pool.pool_id)
    duplicates: list[int] = []
    rows: dict[bytes, dict[str, Any]] = {}
    places: dict[bytes, int] = {}
    for place, code in enumerate(codes):
        digest = keys.blind_index(live, "code", rules.plain(code)).digest
        if digest in rows or rules.plain(code) in known:
            duplicates.append(place)
            continue
        code_id = new_id()
        places[digest] = place
        rows[digest] = {
            "tenant_id": tx.tenant_id,
            "code_id": code_id,
            "pool_id": pool.pool_id,
            "business_id": pool.business_id,
            "code_hash": digest,
            "key_id": key.key_id,
            "sealed": keys.seal(key, queries.SEALED_IN_POOL, code_id, code.encode()),
        }
    if (
        rows
    ):  # in the order of their prints: two batches with the same codes do not wait for each other crosswise
        fresh = upsert(pool_codes).values([rows[digest] for digest in sorted(rows)])
        done = await tx.execute(
            fresh.on_conflict_do_nothing(constraint="pool_codes_hash_key").returning(_c.code_hash)
        )
        added = {bytes(each) for each in done.scalars()}
        duplicates += [place for digest, place in places.items() if digest not in added]
    return sorted(duplicates)


# ------------------------------------------------------------------ redemptions


async def redeem_reward(
    tx: Tx, keys: TenantKeys, reading: Reading, reward_id: UUID, customer_id: UUID, redemption_id: UUID
) -> None:
    """Spends points on a reward and issues a code. Emits PointsRedeemed, RewardRedeemed.

    Raises RewardNotFound, MembershipNotFound, MembershipFrozen, ProgramInactive, and what `rules.refusal` finds.
    """
    row = await queries.locked_for_taking(tx, reward_id)
    if row.deleted_at is not None:
        raise RewardNotFound
    program = programs.program_of(await programs.row(tx, row.program_id))
    await ledger_queries.free_member(tx, program, customer_id)
    codes = (await queries.codes_of(tx, [row.pool_id])).get(row.pool_id)
    reward = wire.reward_rules(row, codes)
    member = (await queries.facts(tx, program, customer_id, [reward_id]))[reward_id]
    refused = rules.refusal(reward, member, tx.now)
    if refused is not None:
        raise refused
    if row.stock is not None:
        await tx.execute(update(rewards).where(*_this(tx, reward_id)).values(taken=_r.taken + 1))
    entry_id = new_id()
    name = row.definition.get("name", "")
    await ledger.redeem_points(
        tx,
        program,
        customer_id,
        entry_id,
        row.cost_points,
        source=f"reward:{redemption_id}",
        reasons=[{"rule_id": "", "name": name, "points": -row.cost_points, "explanation": "for this reward"}],
    )
    account_id = await ledger_queries.account_id(tx, program.program_id, customer_id)
    assert account_id is not None  # it has just spent something
    # Only now is the account locked: somebody may have redeemed for the same member in between.
    redeemed = (await queries.redeemed_by(tx, account_id, [reward_id])).get(reward_id, 0)
    if reward.per_member_limit and redeemed >= reward.per_member_limit:
        raise LimitReached(limit=reward.per_member_limit, redeemed=redeemed)
    code, digest = await _new_code(tx, keys, reading, row.pool_id, customer_id, redemption_id)
    key = await ledger.text_key(tx, keys, customer_id)
    days = int(row.definition.get("code_valid_days", 0))
    values = {
        "tenant_id": tx.tenant_id,
        "redemption_id": redemption_id,
        "business_id": row.business_id,
        "account_id": account_id,
        "reward_id": reward_id,
        "state": rules.ISSUED,
        "terms": row.definition,
        "points": row.cost_points,
        "entry_id": entry_id,
        "code_hash": digest,
        "key_id": key.key_id,
        "sealed": keys.seal(key, queries.SEALED, redemption_id, code.encode()),
        "issued_at": tx.now,
        "issued_by": _actor(tx),
        "expires_at": rules.good_until(days, tx.now, program.zone),
        "closed_by": "",
        "place": "",
        "version": 1,
    }
    await tx.execute(insert(redemptions).values(values))
    if row.pool_id is not None:
        given = {"redemption_id": redemption_id, "sealed": None}
        mine = (_c.tenant_id == tx.tenant_id, _c.business_id == row.business_id, _c.code_hash == digest)
        await tx.execute(update(pool_codes).where(*mine).values(given))
    await _tell(tx, await queries.redemption(tx, redemption_id), events.RewardRedeemed)


async def mark_used(tx: Tx, before: Row[Any], place: str, order_id: UUID | None) -> None:
    """Marks a locked redemption as used. Emits RewardUsed.

    Raises RedemptionUsed, RedemptionCancelled, RedemptionExpired.
    """
    if rules.use(wire.redemption_rules(before), order_id, tx.now):
        await _close(tx, before, rules.USED, events.RewardUsed, place=place, order_id=order_id)


async def cancel_redemption(tx: Tx, before: Row[Any]) -> None:
    """Cancels a locked redemption: points and stock are back. Emits PointsReversed, RewardCancelled.

    Raises RedemptionUsed, RedemptionExpired, MembershipFrozen, ProgramInactive.
    """
    if not rules.cancel(wire.redemption_rules(before), tx.now):
        return
    reward = await queries.locked_for_taking(tx, before.reward_id)
    if reward.stock is not None:
        await tx.execute(update(rewards).where(*_this(tx, before.reward_id)).values(taken=_r.taken - 1))
    program = programs.program_of(await programs.row(tx, before.program_id))
    await ledger.reverse_redemption(tx, program, before.customer_id, before.entry_id, new_id())
    await _close(tx, before, rules.CANCELLED, events.RewardCancelled)


async def expire_redemptions(tx: Tx, limit: int) -> int:
    """Books codes past their time in one statement; gives how many. Emits RewardExpired."""
    where: dict[str, Any] = {"tenant": tx.tenant_id, "now": tx.now, "limit": limit}
    rows = (await tx.execute(_EXPIRE, where)).all()
    facts = [
        Fact(
            events.RewardExpired(redemption=wire.facts(row)), row.redemption_id, row.version, row.business_id
        )
        for row in rows
    ]
    await emit_all(tx, facts)
    return len(rows)


# ------------------------------------------------------------------ inside


async def _new_code(
    tx: Tx,
    keys: TenantKeys,
    reading: Reading,
    pool_id: UUID | None,
    customer_id: UUID,
    redemption_id: UUID,
) -> tuple[str, bytes]:
    """A code and its fingerprint: the next of the pool, else 80 random bits. Raises OutOfStock."""
    if pool_id is None:
        code = rules.spelled(secrets.token_bytes(rules.CODE_BYTES))
        return code, keys.blind_index(await live_versions(tx), "code", rules.plain(code)).digest
    row = await queries.free_code(tx, pool_id)
    if row is None:
        raise OutOfStock
    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
    opened = keys.open(reading, customer_id, key, queries.SEALED_IN_POOL, row.code_id, row.sealed)
    return opened.decode(), bytes(row.code_hash)


async def _known(tx: Tx, keys: TenantKeys, business_id: UUID, codes: Sequence[str]) -> set[str]:
    """Which of these codes were issued at the business already, in their plain form."""
    live = await live_versions(tx)
    prints = {
        each.digest: rules.plain(code)
        for code in codes
        for each in keys.blind_indexes(live, "code", rules.plain(code))
    }
    found: set[str] = set()
    for table in (redemptions, pool_codes):
        column = table.c
        wanted = select(column.code_hash).where(
            column.tenant_id == tx.tenant_id,
            column.business_id == business_id,
            column.code_hash.in_(bindparam("prints", expanding=True)),
        )
        rows = await tx.execute(wanted, {"prints": list(prints)})
        found |= {prints[bytes(digest)] for digest in rows.scalars()}
    return found


async def _close(
    tx: Tx,
    before: Row[Any],
    state: int,
    event: type[events.RewardUsed] | type[events.RewardCancelled],
    **values: Any,
) -> None:
    closed = {"state": state, "closed_at": tx.now, "closed_by": _actor(tx), "version": before.version + 1}
    mine = (_d.tenant_id == tx.tenant_id, _d.redemption_id == before.redemption_id)
    await tx.execute(update(redemptions).where(*mine).values(closed | values))
    await _tell(tx, await queries.redemption(tx, before.redemption_id), event)


async def _tell(
    tx: Tx,
    row: Row[Any],
    event: type[events.RewardRedeemed] | type[events.RewardUsed] | type[events.RewardCancelled],
) -> None:
    await emit(
        tx,
        event(redemption=wire.facts(row)),
        aggregate_id=row.redemption_id,
        version=row.version,
        business_id=row.business_id,
    )


async def _pool_of(tx: Tx, business_id: UUID, pool_id: UUID | None) -> None:
    """Raises CodePoolNotFound for a pool that is not this business's."""
    if pool_id is not None and (await queries.pool(tx, pool_id)).business_id != business_id:
        raise CodePoolNotFound


def _this(tx: Tx, reward_id: UUID) -> tuple[Any, ...]:
    return _r.tenant_id == tx.tenant_id, _r.reward_id == reward_id


def _actor(tx: Tx) -> str:
    caller = tx.caller
    return "" if caller.kind == "customer" else caller.on_behalf_of or caller.subject
