"""Whether the gateway and the services behind it are well."""

import asyncio
import time
from collections.abc import Iterable, Mapping

from services.gateway.upstreams import Upstream

KEPT_SECONDS = 0.5


class Health:
    """Asks each service by gRPC health, at most twice a second however often it is asked itself."""

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        self._upstreams = tuple(upstreams)
        self._known: Mapping[str, bool] = {}
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def services(self) -> Mapping[str, bool]:
        """Which services are well."""
        async with self._lock:
            if time.monotonic() - self._asked_at > KEPT_SECONDS:
                answers = await asyncio.gather(*(upstream.is_well() for upstream in self._upstreams))
                self._known = {
                    upstream.name: well for upstream, well in zip(self._upstreams, answers, strict=True)
                }
                self._asked_at = time.monotonic()
            return self._known

    async def report(self) -> tuple[bool, dict[str, object]]:
        """If it is ready, and why (JSON).

        One service that is away does not make the gateway unready: the others' calls go on ("degraded").
        """
        known = await self.services()
        ready = any(known.values()) or not known
        state = "ready" if all(known.values()) else "degraded" if ready else "unavailable"
        return ready, {
            "status": state,
            "services": {name: "serving" if well else "unavailable" for name, well in known.items()},
        }
