"""A service knows its tenants from events, asks once about others, and refuses those that there are not."""

import asyncio
from uuid import UUID

import pytest

from libs import clock
from libs.caller import acting_as
from libs.ids import new_id
from libs.tenants import Tenant, Tenants, TenantUnknown
from tests.libs.rooms import Room, caller


async def remember(room: Room, known: Tenants, tenant_id: UUID, *, closed: bool = False) -> None:
    with acting_as(caller(tenant_id)):
        async with room.db.tx() as tx:
            await known.remember(tx, "slug", clock.now() if closed else None)


async def test_require_gives_what_was_remembered(room: Room) -> None:
    known, tenant_id = Tenants(room.db), new_id()
    await remember(room, known, tenant_id)
    assert await known.require(tenant_id) == Tenant(tenant_id=tenant_id, slug="slug")
    assert await Tenants(room.db).all() == [Tenant(tenant_id=tenant_id, slug="slug")]


async def test_an_unknown_tenant_is_unauthenticated_until_it_is_created(room: Room) -> None:
    known, tenant_id = Tenants(room.db), new_id()
    with pytest.raises(TenantUnknown):
        await known.require(tenant_id)
    await remember(room, known, tenant_id)
    assert (await known.require(tenant_id)).slug == "slug"


async def test_a_closed_tenant_is_refused_and_stays_closed(room: Room) -> None:
    known, tenant_id = Tenants(room.db), new_id()
    await remember(room, known, tenant_id)
    await known.require(tenant_id)
    await remember(room, known, tenant_id, closed=True)
    with pytest.raises(TenantUnknown):
        await known.require(tenant_id)
    await remember(room, known, tenant_id)  # an old event, late
    with pytest.raises(TenantUnknown):
        await known.require(tenant_id)
    assert await known.all() == []


async def test_many_at_once_ask_once_and_the_answer_is_stored(room: Room) -> None:
    asked, tenant_id = 0, new_id()

    async def ask(unknown: UUID) -> Tenant | None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Tenant(tenant_id=unknown, slug="asked")

    known = Tenants(room.db, ask)
    found = await asyncio.gather(*(known.require(tenant_id) for _ in range(10)))
    assert {tenant.slug for tenant in found} == {"asked"}
    assert asked == 1
    assert (await Tenants(room.db).require(tenant_id)).slug == "asked"
    assert asked == 1


async def test_a_failed_question_is_asked_again(room: Room) -> None:
    answers: list[Exception | Tenant] = [ConnectionError(), Tenant(tenant_id=new_id(), slug="late")]

    async def ask(unknown: UUID) -> Tenant | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    known, tenant_id = Tenants(room.db, ask), new_id()
    with pytest.raises(ConnectionError):
        await known.require(tenant_id)
    assert (await known.require(tenant_id)).slug == "late"
