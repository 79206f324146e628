"""Reads about people: who is to be asked for, whose birthday it is, at which businesses they are members."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Uuid, and_, bindparam, select, text

from libs.db import Tx
from services.loyalty.people.tables import people
from services.loyalty.tables import businesses as _businesses
from services.loyalty.tables import memberships

_p, _m, _b = people.c, memberships.c, _businesses.c

# People by their birthday, by index; then each one's membership by key. `joined_at` is null for who is no member, or
# was given something for this birthday already.
_BIRTHDAYS = text("""
    select p.customer_id, p.day, p.time_zone, m.joined_at
    from (
        select p.customer_id, d.day, p.time_zone
        from unnest(cast(:days as date[]), cast(:months as int[]), cast(:doms as int[])) as d (day, month, dom)
        join people p on p.tenant_id = :tenant and p.birth_month = d.month and p.birth_day = d.dom
        where p.customer_id > :after
        order by p.customer_id limit :limit
    ) p
    left join lateral (
        select m.joined_at from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = p.customer_id
          and m.present and m.merged_into is null
          and not exists (
              select from accounts a join awards w
                on w.tenant_id = a.tenant_id and w.program_id = a.program_id
               and w.source = 'birthday:' || extract(year from p.day) || ':' || a.account_id
              where a.tenant_id = :tenant and a.program_id = :program and a.customer_id = m.customer_id)
        limit 1
    ) m on true
    order by p.customer_id
""").bindparams(bindparam("program", type_=Uuid))


async def wanted(tx: Tx, limit: int) -> list[UUID]:
    """Up to `limit` people of whom there is something newer."""
    found = select(_p.customer_id).where(_p.tenant_id == tx.tenant_id, _p.wanted).limit(limit)
    return list((await tx.execute(found)).scalars())


async def birthdays(
    tx: Tx,
    business_id: UUID,
    program_id: UUID,
    days: Sequence[tuple[date, int, int]],
    after: UUID,
    limit: int,
) -> list[Row[Any]]:
    """Up to `limit` people after one with a birthday on (day, month, day of month).

    Rows (customer_id, day, time_zone, joined_at); `joined_at` None: nothing is to be given.
    """
    where: dict[str, Any] = {
        "tenant": tx.tenant_id,
        "business": business_id,
        "program": program_id,
        "days": [day for day, _, _ in days],
        "months": [month for _, month, _ in days],
        "doms": [dom for _, _, dom in days],
        "after": after,
        "limit": limit,
    }
    return list((await tx.execute(_BIRTHDAYS, where)).all())


async def complete(tx: Tx, customer_ids: Iterable[UUID]) -> list[tuple[UUID, UUID]]:
    """The (business, customer) at which those of these people are members whose profile is complete."""
    of = (
        select(_m.business_id, _m.customer_id)
        .join(_businesses, and_(_b.tenant_id == _m.tenant_id, _b.business_id == _m.business_id))
        .join(people, and_(_p.tenant_id == _m.tenant_id, _p.customer_id == _m.customer_id))
        .where(
            _b.tenant_id == tx.tenant_id,
            _m.customer_id.in_(list(customer_ids)),
            _m.present,
            _m.joined_at.is_not(None),
            _m.merged_into.is_(None),
            _p.profile_complete,
        )
    )
    return [(row.business_id, row.customer_id) for row in await tx.execute(of)]
