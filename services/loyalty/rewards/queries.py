"""Reads of rewards, pools of codes and redemptions."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Select, Uuid, and_, bindparam, func, or_, select, text

from libs.crypto import Column, TenantKeys, live_versions
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.problems import Conflict, InvalidArgument
from services.loyalty.households import pooling
from services.loyalty.ledger import queries as ledger
from services.loyalty.ledger.tables import accounts
from services.loyalty.problems import CodePoolNotFound, RedemptionNotFound, RewardNotFound
from services.loyalty.programs.queries import Program
from services.loyalty.rewards import rules
from services.loyalty.rewards.rules import Facts
from services.loyalty.rewards.tables import code_pools, pool_codes, redemptions, rewards
from services.loyalty.segments.queries import segments_of
from services.loyalty.tiers import queries as tiers

SEALED = Column("redemptions", "sealed")
SEALED_IN_POOL = Column("pool_codes", "sealed")

_r, _d, _p, _c = rewards.c, redemptions.c, code_pools.c, pool_codes.c
_a, _k = accounts.c, subject_keys.c

_LEFT = text("""
    select p.pool_id, total.codes as total, free.codes as left
    from unnest(:pools) as p (pool_id)
    cross join lateral (
        select count(*) as codes from pool_codes c where c.tenant_id = :tenant and c.pool_id = p.pool_id
    ) total
    cross join lateral (
        select count(*) as codes from pool_codes c
        where c.tenant_id = :tenant and c.pool_id = p.pool_id and c.redemption_id is null
    ) free
""").bindparams(bindparam("pools", type_=ARRAY(Uuid)))


# ------------------------------------------------------------------ rewards


async def reward(tx: Tx, reward_id: UUID, *, lock: bool = False) -> Row[Any]:
    """A reward of the caller's businesses. Raises RewardNotFound."""
    wanted = select(rewards).where(
        _r.tenant_id == tx.tenant_id, _r.reward_id == reward_id, _r.deleted_at.is_(None)
    )
    found = (await tx.execute(wanted.with_for_update() if lock else wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise RewardNotFound
    return found


async def locked_for_taking(tx: Tx, reward_id: UUID) -> Row[Any]:
    """A reward, deleted or not, that nobody changes: alone if it has a stock, else with others who take it.

    Raises RewardNotFound, Conflict if it just got a stock.
    """
    wanted = select(rewards).where(_r.tenant_id == tx.tenant_id, _r.reward_id == reward_id)
    before = (await tx.execute(wanted)).first()
    if before is None or not tx.caller.sees(before.business_id):
        raise RewardNotFound
    shared = before.stock is None
    found = (await tx.execute(wanted.with_for_update(read=shared))).one()
    if shared and found.stock is not None:
        raise Conflict
    return found


async def page_of_rewards(
    tx: Tx, program_id: UUID, *, size: int, before: UUID | None, active_only: bool, kinds: Sequence[int]
) -> list[Row[Any]]:
    """Up to `size` rewards of a program, newest first, those before an id."""
    wanted = select(rewards).where(
        _r.tenant_id == tx.tenant_id, _r.program_id == program_id, _r.deleted_at.is_(None)
    )
    if before is not None:
        wanted = wanted.where(_r.reward_id < before)
    if active_only:
        wanted = wanted.where(_r.active)
    if kinds:
        wanted = wanted.where(_r.kind.in_(kinds))
    return list((await tx.execute(wanted.order_by(_r.reward_id.desc()).limit(size))).all())


async def on_offer(tx: Tx, program_id: UUID) -> list[Row[Any]]:
    """The rewards of a program that members can see now, the cheapest first."""
    wanted = select(rewards).where(
        _r.tenant_id == tx.tenant_id,
        _r.program_id == program_id,
        _r.deleted_at.is_(None),
        _r.active,
        or_(_r.valid_from.is_(None), _r.valid_from <= tx.now),
        or_(_r.valid_until.is_(None), _r.valid_until > tx.now),
    )
    return list((await tx.execute(wanted.order_by(_r.cost_points, _r.reward_id))).all())


async def count_rewards(tx: Tx, program_id: UUID) -> int:
    """How many rewards a program has."""
    wanted = select(func.count()).where(
        _r.tenant_id == tx.tenant_id, _r.program_id == program_id, _r.deleted_at.is_(None)
    )
    return int(await tx.scalar(wanted))


async def facts(tx: Tx, program: Program, customer_id: UUID, reward_ids: Iterable[UUID]) -> dict[UUID, Facts]:
    """What is true of a member for each of these rewards."""
    ids = list(reward_ids)
    account = await ledger.account_id(tx, program.program_id, customer_id)
    _, spendable = await pooling.spendable(tx, program, customer_id)
    tier = await tiers.tier_of(tx, program, account)
    redeemed = await redeemed_by(tx, account, ids) if account else {}
    theirs = await segments_of(tx, [customer_id])
    return {
        each: Facts(
            spendable=spendable,
            tier=tier.name,
            segments=theirs.get((program.business_id, customer_id), frozenset()),
            redeemed=redeemed.get(each, 0),
        )
        for each in ids
    }


async def redeemed_by(tx: Tx, account_id: UUID, reward_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How often an account redeemed each of these rewards; cancelled ones do not count."""
    wanted = (
        select(_d.reward_id, func.count().label("times"))
        .where(
            _d.tenant_id == tx.tenant_id,
            _d.account_id == account_id,
            _d.reward_id.in_(reward_ids),
            _d.state != rules.CANCELLED,
        )
        .group_by(_d.reward_id)
    )
    return {row.reward_id: int(row.times) for row in await tx.execute(wanted)}


async def taken(tx: Tx, reward_id: UUID) -> int:
    """How many redemptions of a reward were not cancelled."""
    wanted = select(func.count()).where(
        _d.tenant_id == tx.tenant_id, _d.reward_id == reward_id, _d.state != rules.CANCELLED
    )
    return int(await tx.scalar(wanted))


# ------------------------------------------------------------------ pools


async def pool(tx: Tx, pool_id: UUID, *, lock: bool = False) -> Row[Any]:
    """A pool of the caller's businesses. Raises CodePoolNotFound."""
    wanted = select(code_pools).where(_p.tenant_id == tx.tenant_id, _p.pool_id == pool_id)
    found = (await tx.execute(wanted.with_for_update() if lock else wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise CodePoolNotFound
    return found


async def pools(tx: Tx, business_id: UUID, *, size: int, before: UUID | None) -> list[Row[Any]]:
    """Up to `size` pools of a business, newest first, those before an id."""
    wanted = select(code_pools).where(_p.tenant_id == tx.tenant_id, _p.business_id == business_id)
    if before is not None:
        wanted = wanted.where(_p.pool_id < before)
    return list((await tx.execute(wanted.order_by(_p.pool_id.desc()).limit(size))).all())


async def codes_of(tx: Tx, pool_ids: Iterable[UUID | None]) -> dict[UUID, Row[Any]]:
    """How many codes each pool ever had (`total`) and has left (`left`)."""
    ids = sorted({each for each in pool_ids if each is not None})
    if not ids:
        return {}
    return {row.pool_id: row for row in await tx.execute(_LEFT, {"tenant": tx.tenant_id, "pools": ids})}


async def free_code(tx: Tx, pool_id: UUID) -> Row[Any] | None:
    """The oldest code of a pool that nobody has or is about to have, locked, with its key; None if none is left."""
    wanted = (
        select(pool_codes, _k.epoch, _k.wrapped)
        .outerjoin(subject_keys, and_(_k.tenant_id == _c.tenant_id, _k.key_id == _c.key_id))
        .where(_c.tenant_id == tx.tenant_id, _c.pool_id == pool_id, _c.redemption_id.is_(None))
        .order_by(_c.code_id)
        .limit(1)
        .with_for_update(of=pool_codes, skip_locked=True)
    )
    return (await tx.execute(wanted)).first()


# ------------------------------------------------------------------ redemptions

_REDEMPTION: Select[Any] = (
    select(redemptions, _a.customer_id, _a.program_id, _k.epoch, _k.wrapped)
    .join(accounts, and_(_a.tenant_id == _d.tenant_id, _a.account_id == _d.account_id))
    .outerjoin(subject_keys, and_(_k.tenant_id == _d.tenant_id, _k.key_id == _d.key_id))
)


async def redemption(tx: Tx, redemption_id: UUID) -> Row[Any]:
    """A redemption of the caller's businesses. Raises RedemptionNotFound."""
    wanted = _REDEMPTION.where(_d.tenant_id == tx.tenant_id, _d.redemption_id == redemption_id)
    found = (await tx.execute(wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise RedemptionNotFound
    return found


async def by_code(tx: Tx, keys: TenantKeys, code: str, business_id: str, *, lock: bool = False) -> Row[Any]:
    """The redemption that a code is of, at a business or at any that the caller sees.

    Raises RedemptionNotFound, InvalidArgument if several businesses issued the same code.
    """
    live = await live_versions(tx)
    prints = {each.digest for each in keys.blind_indexes(live, "code", rules.plain(code))}
    prints.add(keys.blind_index(live, "code", rules.plain(code)).digest)
    wanted = select(_d.redemption_id).where(_d.tenant_id == tx.tenant_id, _d.code_hash.in_(prints))
    if business_id:
        wanted = wanted.where(_d.business_id == UUID(business_id))
    if tx.caller.businesses is not None:
        wanted = wanted.where(_d.business_id.in_(tx.caller.businesses))
    # Read by a statement of its own: only the next one sees whose it is after a merge that held the row.
    found = (await tx.execute(wanted.with_for_update() if lock else wanted)).scalars().all()
    if not found:
        raise RedemptionNotFound
    if len(found) > 1:
        raise InvalidArgument.of("business_id", "name the business: several issued this code", "REQUIRED")
    return await redemption(tx, found[0])


async def page_of_redemptions(
    tx: Tx, account_id: UUID, *, size: int, before: UUID | None, good_only: bool
) -> list[Row[Any]]:
    """Up to `size` redemptions of an account, newest first, those before an id."""
    wanted = _REDEMPTION.where(_d.tenant_id == tx.tenant_id, _d.account_id == account_id)
    if before is not None:
        wanted = wanted.where(_d.redemption_id < before)
    if good_only:
        wanted = wanted.where(_d.state == rules.ISSUED, or_(_d.expires_at.is_(None), _d.expires_at > tx.now))
    return list((await tx.execute(wanted.order_by(_d.redemption_id.desc()).limit(size))).all())


async def spent_on_reward(tx: Tx, entry_id: UUID) -> bool:
    """True if a transaction of the ledger paid for a reward."""
    wanted = select(_d.redemption_id).where(_d.tenant_id == tx.tenant_id, _d.entry_id == entry_id)
    return (await tx.execute(wanted)).first() is not None
