"""A cache in Redis: losing all of it at any time costs speed and nothing else."""

import asyncio
import logging
import time
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.05  # a cache that is slower than the truth is none
AWAY_SECONDS = 2.0  # after a failure it is left alone for so long


class Cache:
    """Values of tenants by key, each for its time. Never fails: what it cannot give is not there.

    What is stored under a key never becomes wrong: a key names the version of what it holds. So nobody reads
    what is old, whoever writes it back and however late; dropping a key only makes room.
    """

    def __init__(self, redis: Redis | None, prefix: str, service: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}{service}:"
        self._away_until = float("-inf")

    async def get(self, tenant_id: UUID, key: str) -> bytes | None:
        """What is stored, or None."""
        redis = self._near()
        if redis is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found: Any = await redis.get(self._name(tenant_id, key))
        except (RedisError, OSError, TimeoutError) as error:
            self._leave_alone(error)
            return None
        return found if isinstance(found, bytes) else None

    async def put(self, tenant_id: UUID, key: str, value: bytes, seconds: int) -> None:
        """Stores a value for some seconds."""
        redis = self._near()
        if redis is None:
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await redis.set(self._name(tenant_id, key), value, ex=seconds)
        except (RedisError, OSError, TimeoutError) as error:
            self._leave_alone(error)

    async def drop(self, tenant_id: UUID, key: str) -> None:
        """Forgets a value."""
        redis = self._near()
        if redis is None:
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await redis.delete(self._name(tenant_id, key))
        except (RedisError, OSError, TimeoutError) as error:
            self._leave_alone(error)

    def _near(self) -> Redis | None:
        return self._redis if time.monotonic() >= self._away_until else None

    def _leave_alone(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        log.info("the cache is left alone for a while", extra={"reason": type(error).__name__})

    def _name(self, tenant_id: UUID, key: str) -> str:
        return f"{self._prefix}{tenant_id}:{key}"
