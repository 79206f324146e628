"""What merges and erasures do to referrals."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, delete, select, text, update

from libs.db import Tx
from services.loyalty.referrals import actions, rules
from services.loyalty.referrals.tables import referral_codes, referrals

_c, _r = referral_codes.c, referrals.c

# Open ones that cannot go on after a merge: of one person with themselves, and of a friend who was brought before.
_VOID = text("""
    with theirs as (
        select r.referral_id, coalesce(r.referrer_id = r.friend_id, false) as own,
               row_number() over (partition by r.program_id
                                  order by coalesce(r.referrer_id = r.friend_id, false), r.state <> 5,
                                           r.registered_at, r.referral_id) as place
        from referrals r
        where r.tenant_id = :tenant and r.friend_id = :survivor and r.state in (2, 3, 4, 5)
    )
    select r.referral_id, r.state, r.reason from theirs t
    join referrals r on r.tenant_id = :tenant and r.referral_id = t.referral_id
    where (t.own or t.place > 1) and r.state in (2, 3, 4)
    order by r.referral_id
""")
_BACK = text("""
    update referrals r set state = b.state, reason = b.reason, version = r.version + 1
    from unnest(cast(:ids as uuid[]), cast(:states as smallint[]), cast(:reasons as text[]))
        as b (referral_id, state, reason)
    where r.tenant_id = :tenant and r.referral_id = b.referral_id and r.state = 9 and r.reason = 'MERGED'
""")
_ERASE = text("""
    update referrals
    set state = case when state in (1, 2, 3, 4) then 9 else state end,
        reason = case when state in (1, 2, 3, 4) then 'ERASED' else reason end,
        code = null, due_at = null, version = version + 1,
        order_id = case when friend_id = any(:people) then null else order_id end,
        matches = '{}',
        referrer_id = case when referrer_id = any(:people) then null else referrer_id end,
        friend_id = case when friend_id = any(:people) then null else friend_id end
    where tenant_id = :tenant and (referrer_id = any(:people) or friend_id = any(:people))
""").bindparams(bindparam("people", type_=ARRAY(Uuid)))


async def move(tx: Tx, source_id: UUID, survivor_id: UUID) -> dict[str, Any]:
    """Gives the source's referrals to the survivor; gives what that was, for `move_back`.

    What is open between the two, and a second bringing of the survivor, is voided.
    """
    theirs = (
        select(_r.referral_id)
        .where(_r.tenant_id == tx.tenant_id, (_r.referrer_id == source_id) | (_r.friend_id == source_id))
        .order_by(_r.referral_id)
    )
    await tx.execute(theirs.with_for_update())
    moved = {
        side: [str(each) for each in await _hand_over(tx, side, source_id, survivor_id)]
        for side in ("referrer", "friend")
    }
    rows = (await tx.execute(_VOID, {"tenant": tx.tenant_id, "survivor": survivor_id})).all()
    voided = [[str(row.referral_id), row.state, row.reason] for row in rows]
    if rows:
        gone = {"state": rules.VOIDED, "reason": "MERGED", "due_at": None, "version": _r.version + 1}
        await tx.execute(
            update(referrals)
            .where(_r.tenant_id == tx.tenant_id, _r.referral_id.in_([row.referral_id for row in rows]))
            .values(gone)
        )
    await actions.people_changed(tx, [survivor_id])
    return {**moved, "voided": voided}


async def move_back(tx: Tx, moved: Mapping[str, Any], source_id: UUID, survivor_id: UUID) -> None:
    """Gives the source back what `move` took; what it voided is open again."""
    for side in ("referrer", "friend"):
        await _hand_over(tx, side, survivor_id, source_id, [UUID(each) for each in moved.get(side, ())])
    voided: Sequence[Any] = moved.get("voided", ())
    if voided:
        ids, states, reasons = zip(*voided, strict=True)
        where = {"ids": [UUID(each) for each in ids], "states": list(states), "reasons": list(reasons)}
        await tx.execute(_BACK, {"tenant": tx.tenant_id, **where})
    await actions.people_changed(tx, [source_id, survivor_id])


async def erase(tx: Tx, people: Collection[UUID]) -> None:
    """Takes people out of codes and referrals; what was open of them is voided."""
    await tx.execute(
        delete(referral_codes).where(_c.tenant_id == tx.tenant_id, _c.customer_id.in_(list(people)))
    )
    await tx.execute(_ERASE, {"tenant": tx.tenant_id, "people": list(people)})


async def _hand_over(
    tx: Tx, side: str, giver: UUID, taker: UUID, only: Collection[UUID] | None = None
) -> list[UUID]:
    whose = _r[f"{side}_id"]
    wanted = update(referrals).where(_r.tenant_id == tx.tenant_id, whose == giver)
    if only is not None:
        wanted = wanted.where(_r.referral_id.in_(list(only)))
    changed = wanted.values({f"{side}_id": taker, "version": _r.version + 1}).returning(_r.referral_id)
    return sorted((await tx.execute(changed)).scalars())
