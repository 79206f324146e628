"""The same request twice is done once, whoever is first and however it ends."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from libs import clock, idempotency
from libs.caller import Caller, acting_as
from libs.ids import new_id
from libs.plumbing import idempotency_keys
from libs.problems import InvalidArgument, RequestIdReused
from regulars.customers.v1.customers_pb2 import CreateCustomerRequest, Customer, UpdateCustomerRequest
from tests.libs.rooms import Room

REQUEST = CreateCustomerRequest(request_id="one", customer=Customer(email="ann@example.org"))


@pytest.fixture(autouse=True)
def _keys(room: Room) -> None:
    idempotency.use_keys(room.db, lambda tenant_id: tenant_id.bytes * 2)


async def claim(
    room: Room, request: CreateCustomerRequest, resource: UUID, caller: Caller | None = None
) -> UUID | None:
    with acting_as(caller or room.me()):
        async with room.db.tx() as tx:
            return await idempotency.claim(tx, request, resource)


async def test_the_first_is_new_and_the_second_finds_its_resource(room: Room) -> None:
    first = new_id()
    assert await claim(room, REQUEST, first) is None
    assert await claim(room, REQUEST, new_id()) == first


async def test_the_same_resource_is_no_sign_of_a_first_time(room: Room) -> None:
    resource = new_id()
    assert await claim(room, REQUEST, resource) is None
    assert await claim(room, REQUEST, resource) == resource


async def test_etag_and_request_id_do_not_make_another_request(room: Room) -> None:
    resource = new_id()
    request = UpdateCustomerRequest(id=str(resource), request_id="one", customer=Customer(etag="a"))
    again = UpdateCustomerRequest(id=str(resource), request_id="one", customer=Customer(etag="b"))
    with acting_as(room.me()):
        async with room.db.tx() as tx:
            assert await idempotency.claim(tx, request, resource) is None
        async with room.db.tx() as tx:
            assert await idempotency.claim(tx, again, resource) == resource


async def test_another_body_is_refused(room: Room) -> None:
    await claim(room, REQUEST, new_id())
    other = CreateCustomerRequest(request_id="one", customer=Customer(email="bob@example.org"))
    with pytest.raises(RequestIdReused):
        await claim(room, other, new_id())


async def test_without_a_request_id_every_request_is_new(room: Room) -> None:
    nameless = CreateCustomerRequest(customer=REQUEST.customer)
    for _ in range(2):
        assert await claim(room, nameless, new_id(), room.me(request_id="")) is None


async def test_the_metadata_id_counts_where_the_request_has_none(room: Room) -> None:
    nameless, first = CreateCustomerRequest(customer=REQUEST.customer), new_id()
    assert await claim(room, nameless, first) is None
    assert await claim(room, nameless, new_id()) == first


async def test_an_endless_id_is_refused(room: Room) -> None:
    with pytest.raises(InvalidArgument):
        await claim(room, CreateCustomerRequest(request_id="x" * 129), new_id())


@pytest.mark.parametrize("change", [{"subject": "other"}, {"method": "/test/Other"}, {"tenant_id": new_id()}])
async def test_others_and_other_methods_have_ids_of_their_own(room: Room, change: dict[str, object]) -> None:
    await claim(room, REQUEST, new_id())
    assert await claim(room, REQUEST, new_id(), room.me(**change)) is None


async def test_a_refused_request_leaves_no_claim(room: Room) -> None:
    async def refused() -> None:
        async with room.db.tx() as tx:
            assert await idempotency.claim(tx, REQUEST, new_id()) is None
            raise InvalidArgument

    with acting_as(room.me()), pytest.raises(InvalidArgument):
        await refused()
    assert await claim(room, REQUEST, new_id()) is None


async def test_of_many_at_once_one_does_it(room: Room) -> None:
    ids = [new_id() for _ in range(6)]
    found = await asyncio.gather(*(claim(room, REQUEST, i) for i in ids))
    assert found.count(None) == 1
    assert set(found) - {None} == {ids[found.index(None)]}


async def test_the_second_waits_for_the_first_and_takes_over_if_that_fails(room: Room) -> None:
    async def second() -> UUID | None:
        return await claim(room, REQUEST, new_id())

    async def waits() -> None:
        async with room.db.worker() as tx:
            while not await tx.scalar(text("select count(*) from pg_locks where not granted")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def first() -> None:
        async with room.db.tx() as tx:
            await idempotency.claim(tx, REQUEST, new_id())
            tasks.append(asyncio.create_task(second()))
            await waits()
            raise InvalidArgument

    tasks: list[asyncio.Task[UUID | None]] = []
    with acting_as(room.me()), pytest.raises(InvalidArgument):
        await first()
    assert await tasks[0] is None


async def test_point_names_another_resource(room: Room) -> None:
    found = new_id()
    with acting_as(room.me()):
        async with room.db.tx() as tx:
            await idempotency.claim(tx, REQUEST, new_id())
            await idempotency.point(tx, REQUEST, found)
    assert await claim(room, REQUEST, new_id()) == found


async def test_after_a_day_it_is_forgotten_cleaned_or_not(room: Room) -> None:
    await claim(room, REQUEST, new_id())
    await claim(room, CreateCustomerRequest(request_id="two"), new_id())
    clock.shift_to(clock.now() + timedelta(hours=25))
    try:
        assert await claim(room, REQUEST, new_id()) is None
        assert await idempotency.clean(room.db) == 1
    finally:
        clock.reset()
    async with room.db.worker() as tx:
        assert await tx.scalar(select(func.count()).select_from(idempotency_keys)) == 1


async def test_neither_principal_nor_request_is_stored(room: Room) -> None:
    await claim(room, REQUEST, new_id(), room.me(subject="ann@example.org"))
    async with room.db.worker() as tx:
        assert "ann" not in str(await tx.scalar(text("select idempotency_keys::text from idempotency_keys")))
