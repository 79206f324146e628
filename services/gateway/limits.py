"""Rate limits: counted in this process, added up over all of them through Redis a few times a second.

A request costs a dictionary look-up and no round trip. The price: n processes together may let through beyond
the limit what they admit within one exchange. Without Redis each process counts alone.
"""

import asyncio
import hashlib
import ipaddress
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import redis.asyncio as redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60
EXCHANGE_SECONDS = 0.2
AWAY_SECONDS = 2.0  # between two tries while Redis is away
SALT_SECONDS = 86_400
MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `quota` requests of one key in a sliding window of a minute; 0: no limit."""

    name: str
    quota: int


@dataclass(slots=True)
class _Count:
    """One key's requests. `shared` is what all processes had at the last exchange, `own` what came since."""

    window: int
    own: int = 0
    shared: int = 0
    before: int = 0  # of the window before


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left of the tightest policy."""

    policy: Policy
    allowed: bool
    remaining: int
    reset_seconds: int

    def header(self) -> bytes:
        """As the RateLimit header has it."""
        return f'"{self.policy.name}";r={self.remaining};t={self.reset_seconds}'.encode()


Key = tuple[Policy, str]


class Limiter:
    """Counts requests by policy and key."""

    def __init__(self, url: str, prefix: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) if url else None
        self._prefix = f"{prefix}limits:"
        self._counts: dict[tuple[str, str], _Count] = {}
        self._dirty: set[tuple[str, str]] = set()
        self._salt = os.urandom(16)
        self._salted_at = float("-inf")
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to exchange counts with the other processes."""
        self._task = asyncio.create_task(self._exchange_forever())

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._redis is not None:
            await self._redis.aclose()

    def take(self, keys: Sequence[Key]) -> Verdict | None:
        """Counts one request against every key, unless one of them is used up; None if nothing limits it."""
        now = time.time()
        tightest = self._look(keys, now)
        if tightest is None or not tightest.allowed:
            return tightest
        for policy, key in keys:
            if policy.quota:
                self._count(policy.name, key, now).own += 1
                self._dirty.add((policy.name, key))
        return Verdict(tightest.policy, True, tightest.remaining - 1, tightest.reset_seconds)

    def peek(self, keys: Sequence[Key]) -> Verdict | None:
        """As `take`, without counting."""
        return self._look(keys, time.time())

    def _look(self, keys: Sequence[Key], now: float) -> Verdict | None:
        passed = now % WINDOW_SECONDS / WINDOW_SECONDS
        reset = int(WINDOW_SECONDS * (1 - passed)) + 1
        tightest: Verdict | None = None
        for policy, key in keys:
            if not policy.quota:
                continue
            count = self._counts.get((policy.name, key))
            used = 0 if count is None else _used(count, int(now // WINDOW_SECONDS), passed)
            remaining = max(0, policy.quota - used)
            if tightest is None or remaining < tightest.remaining:
                tightest = Verdict(policy, remaining > 0, remaining, reset)
        return tightest

    def _count(self, name: str, key: str, now: float) -> _Count:
        window = int(now // WINDOW_SECONDS)
        count = self._counts.get((name, key))
        if count is None:
            if len(self._counts) >= MAX_KEYS:
                oldest = next(iter(self._counts))
                del self._counts[oldest]
                self._dirty.discard(oldest)
            count = self._counts[name, key] = _Count(window)
        elif count.window != window:
            before = count.own + count.shared if count.window == window - 1 else 0
            count.window, count.own, count.shared, count.before = window, 0, 0, before
        return count

    async def _exchange_forever(self) -> None:
        while True:
            await asyncio.sleep(AWAY_SECONDS if self._away else EXCHANGE_SECONDS)
            self._forget()
            if self._redis is None or not self._dirty:
                continue
            try:
                await self._exchange(self._redis)
            except (RedisError, OSError, TimeoutError) as error:
                if not self._away:
                    log.warning("limits are counted alone", extra={"error": type(error).__name__})
                self._away = True
            else:
                if self._away:
                    log.info("limits are counted together")
                self._away = False

    async def _exchange(self, client: "redis.Redis") -> None:
        if time.monotonic() - self._salted_at > SALT_SECONDS / 24:
            await self._agree_on_salt(client)
        work = [(name, key, count) for name, key in self._dirty if (count := self._counts.get((name, key)))]
        self._dirty.clear()
        pipe = client.pipeline(transaction=False)
        sent = [count.own for _, _, count in work]
        windows = [count.window for _, _, count in work]
        for (name, key, count), own in zip(work, sent, strict=True):
            stored = self._stored(name, key)
            pipe.incrby(f"{stored}:{count.window}", own)
            pipe.expire(f"{stored}:{count.window}", 2 * WINDOW_SECONDS)
            pipe.get(f"{stored}:{count.window - 1}")
        try:
            answers = await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            self._dirty.update((name, key) for name, key, _ in work)
            raise
        for i, (_, _, count) in enumerate(work):
            if count.window == windows[i]:
                count.own -= sent[i]
                count.shared = int(answers[3 * i])
                count.before = max(count.before, int(answers[3 * i + 2] or 0))

    async def _agree_on_salt(self, client: "redis.Redis") -> None:
        """All processes hash keys alike, and nobody can after a day: addresses are personal data."""
        name = f"{self._prefix}salt"
        await client.set(name, os.urandom(16), nx=True, ex=SALT_SECONDS)
        agreed = await client.get(name)
        self._salt = agreed if isinstance(agreed, bytes) else self._salt
        self._salted_at = time.monotonic()

    def _stored(self, name: str, key: str) -> str:
        digest = hashlib.blake2b(key.encode(), key=self._salt, digest_size=12).hexdigest()
        return f"{self._prefix}{name}:{digest}"

    def _forget(self) -> None:
        """Drops what no window reaches any more."""
        oldest = int(time.time() // WINDOW_SECONDS) - 1
        for key in [key for key, count in self._counts.items() if count.window < oldest]:
            del self._counts[key]
            self._dirty.discard(key)


def _used(count: _Count, window: int, passed: float) -> int:
    """Requests of the last minute: this window's, and the part of the one before that lies within it."""
    own = count.own + count.shared
    if count.window == window:
        return own + int(count.before * (1 - passed))
    return int(own * (1 - passed)) if count.window == window - 1 else 0


def address_of(scope_client: tuple[str, int] | None, forwarded: bytes | None, proxies: int) -> str:
    """The client's address; of IPv6 the /64, which one client owns whole.

    Behind `proxies` proxies it is what the outermost of them wrote into X-Forwarded-For.
    """
    address = scope_client[0] if scope_client else ""
    if proxies and forwarded:
        hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",")]
        address = hops[-proxies] if len(hops) >= proxies else hops[0]
    return _network(address)


@lru_cache(10_000)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return address
