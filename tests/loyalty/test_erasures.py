"""Who was erased stays erased, whatever comes late and whoever was just about to write something of them."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from libs import clock
from libs.crypto.tables import subject_keys
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from regulars.customers.v1 import events_pb2 as told
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_ACTIVE
from regulars.loyalty.v1 import programs_pb2 as programs
from services.loyalty.ledger import actions as ledger
from services.loyalty.ledger import queries as ledger_queries
from services.loyalty.ledger.bonuses import Occasion, work_in_occasions
from services.loyalty.merges import actions as merges
from services.loyalty.problems import MembershipNotFound
from services.loyalty.programs import queries as programs_queries
from services.loyalty.tables import memberships
from tests.customers.shop import Shop
from tests.loyalty.members import add_rule, faults, in_ledger, join
from tests.loyalty.test_disorder import BEGIN, State
from tests.loyalty.test_merges import Home
from tests.platform import Stack


async def test_nothing_is_sealed_for_whoever_is_erased_at_that_moment(shop: Shop) -> None:
    early, late = UUID(await join(shop)), UUID(await join(shop))
    keys = shop.tenant.stack.runtimes["loyalty"].keys.for_tenant(shop.tenant.id)
    erasing: asyncio.Task[Any] | None = None

    async def adjust(tx: Tx, whom: UUID) -> None:
        program = await programs_queries.meant(tx, shop.id, "")
        await ledger.adjust_points(
            tx, keys, program, whom, new_id(), 5, "Ann's mother asked", effective_at=None, expires_at=None
        )

    async def erase(whom: UUID) -> None:
        await in_ledger(shop, lambda tx: merges.erase(tx, whom))

    async def before(tx: Tx) -> None:
        nonlocal erasing
        await adjust(tx, early)
        erasing = asyncio.create_task(erase(early))
        await asyncio.wait([erasing], timeout=0.2)

    await in_ledger(shop, before)
    assert erasing is not None
    await erasing

    async def after(tx: Tx) -> None:
        program = await programs_queries.meant(tx, shop.id, "")
        await ledger_queries.free_member(tx, program, late)
        await erase(late)
        await ledger.text_key(tx, keys, late)

    with pytest.raises(MembershipNotFound):
        await in_ledger(shop, after)

    async def left(tx: Tx) -> tuple[int, int]:
        k = subject_keys.c
        whole = select(k.key_id).where(k.subject_id.in_([early, late]), k.wrapped.is_not(None))
        sealed = text("select entry_id from entries where business_id = :business and sealed is not null")
        texts = await tx.execute(sealed, {"business": shop.id})
        return len((await tx.execute(whole)).all()), len(texts.all())

    assert await in_ledger(shop, left) == (0, 0)


async def test_whoever_was_erased_before_they_came_never_comes(stack: Stack) -> None:
    house = Home(stack)
    business, first, second = house.beginning()
    gone = [told.CustomerErased(customer_id=str(each)) for each in house.customers]
    first.message.initial_tier = "GOLD"
    await house.hear([business])
    await house.hear([house.event(gone[0], house.customers[0], 9)])
    await house.hear([first])
    again = told.MembershipJoined(
        customer_id=str(house.customers[0]),
        business_id=str(house.business),
        status=CUSTOMER_STATUS_ACTIVE,
        joined_at=stamp(BEGIN + timedelta(days=1)),
    )
    await house.hear([house.event(again, house.customers[0], 12)])
    await house.hear(house.order(0, [State(10_000, 0, False)]))
    await house.hear([second])
    await house.buys(1)
    await house.hear([house.event(gone[0], house.customers[0], 9), house.merged(1, 0, new_id())])

    async def look(tx: Any, _: Any) -> tuple[set[Any], int]:
        m = memberships.c
        wanted = select(m.present, m.deleted).where(m.tenant_id == tx.tenant_id)
        stood = await tx.execute(text("select * from standings where tenant_id = :t"), {"t": tx.tenant_id})
        return {tuple(row) for row in await tx.execute(wanted)}, len(stood.all())

    assert await house.do(look) == ({(False, True)}, 0)
    assert (await house.balances())[1] == []


async def test_an_erasure_leaves_nothing_that_tells_a_birthday(shop: Shop) -> None:
    await add_rule(shop, bonus=programs.Bonus(trigger=programs.BONUS_TRIGGER_BIRTHDAY, points=50))
    member = UUID(await join(shop))
    at = clock.now()
    birthday = Occasion(
        business_id=UUID(shop.id),
        customer_id=member,
        trigger="BIRTHDAY",
        key=f"birthday:{at.year}",
        at=at,
    )
    await in_ledger(shop, lambda tx: work_in_occasions(tx, [birthday]))
    await in_ledger(shop, lambda tx: merges.erase(tx, member))

    async def told_of(tx: Tx) -> list[tuple[Any, ...]]:
        """Days of awards, and what entries say."""
        where = {"business": shop.id}
        days = await tx.execute(text("select local_day from awards where business_id = :business"), where)
        said = text("select source, reasons from entries where business_id = :business")
        return [*map(tuple, days.all()), *map(tuple, (await tx.execute(said, where)).all())]

    assert await in_ledger(shop, told_of) == [(at.date().replace(month=1, day=1),), ("", [])]
    await in_ledger(shop, lambda tx: work_in_occasions(tx, [birthday]))
    assert len(await in_ledger(shop, told_of)) == 2
    assert await faults(shop) == []
