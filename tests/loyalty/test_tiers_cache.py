"""What the cache tells of tiers is what holds, whoever writes back what, and when."""

import asyncio
from uuid import UUID

import orjson

from regulars.loyalty.v1 import tiers_pb2 as pb
from services.loyalty.tiers.cache import SECONDS, key
from tests.customers.shop import Shop
from tests.loyalty.members import default_program, join
from tests.loyalty.test_tiers import ladder, member_of, tiers

NONE = pb.GetTierConfigurationRequest()


async def test_an_old_version_that_is_written_back_late_is_read_by_nobody(shop: Shop) -> None:
    runtime = shop.tenant.stack.runtimes["loyalty"]
    program, mine, stub = UUID((await default_program(shop)).id), shop.tenant.id, tiers(shop)
    member = await join(shop)
    first = await stub.GetTierConfiguration(NONE)
    stored = await runtime.cache.get(mine, key(program, 1))
    assert orjson.loads(stored)["definition"]["tiers"][1]["name"] == first.tiers[1].name
    name = f"{runtime.settings.prefix}loyalty:{mine}:{key(program, 1)}"
    assert 0 < await runtime.redis.ttl(name) <= SECONDS

    done = await stub.UpdateTierConfiguration(
        pb.UpdateTierConfigurationRequest(configuration=ladder(("BASE", 0), ("TOP", 100)))
    )
    assert await runtime.cache.get(mine, key(program, 1)) is None
    await runtime.cache.put(mine, key(program, 1), stored, SECONDS)  # by one who had read before the change
    now = await stub.GetTierConfiguration(NONE)
    assert (now.etag, [tier.name for tier in now.tiers]) == (done.etag, ["BASE", "TOP"])
    assert (await member_of(shop, member)).tier.tier == "BASE"


async def test_a_read_that_begins_after_a_change_never_tells_what_was_before(shop: Shop) -> None:
    stub, committed, told = tiers(shop), 1, 0

    async def read() -> None:
        nonlocal told
        while committed < 6:
            before = committed
            found = await stub.GetTierConfiguration(NONE)
            assert int(found.etag) >= before
            assert found.tiers[1].spending_minor == 100 * int(found.etag) or found.etag == "1"
            told += 1

    async def change() -> None:
        nonlocal committed
        for version in range(2, 7):
            wanted = pb.UpdateTierConfigurationRequest(configuration=ladder(("A", 0), ("B", version)))
            committed = int((await stub.UpdateTierConfiguration(wanted)).etag)

    await asyncio.gather(change(), *(read() for _ in range(4)))
    assert told
