"""A cache gives what it has, keeps tenants apart, and is never missed."""

import time

from redis.asyncio import Redis

from libs.cache import Cache
from libs.ids import new_id
from tests.servers import Servers


async def test_a_value_is_its_tenants_for_its_time(servers: Servers) -> None:
    redis = Redis.from_url(servers.redis_url)
    cache, mine, other = Cache(redis, "here_", "echo"), new_id(), new_id()
    await cache.put(mine, "a:1", b"x", 60)
    assert await cache.get(mine, "a:1") == b"x"
    assert await cache.get(other, "a:1") is None
    assert 0 < await redis.ttl(f"here_echo:{mine}:a:1") <= 60
    await cache.drop(mine, "a:1")
    assert await cache.get(mine, "a:1") is None
    await redis.aclose()


async def test_a_cache_that_is_away_costs_one_try() -> None:
    tenant = new_id()
    assert await Cache(None, "", "echo").get(tenant, "a") is None
    away = Redis.from_url("redis://127.0.0.1:1")
    cache = Cache(away, "", "echo")
    began = time.monotonic()
    for _ in range(100):
        assert await cache.get(tenant, "a") is None
        await cache.put(tenant, "a", b"x", 60)
        await cache.drop(tenant, "a")
    assert time.monotonic() - began < 1
    await away.aclose()
