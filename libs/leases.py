"""One of many processes does it: a row that is held for some seconds at a time, and stolen when it runs out.

Clocks of the machines must agree within a second or so. A lease makes doubled work rare, not impossible:
nothing may rest on it for correctness.
"""

import asyncio
import logging
import time
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, text

from libs import clock
from libs.db import Database
from libs.ids import new_id
from libs.pipeline import Query
from libs.plumbing import leases

log = logging.getLogger(__name__)

_TAKE = Query(
    text("""
    insert into leases (name, holder, held_until) values (:name, :holder, :held_until)
    on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
    where leases.holder = excluded.holder or leases.held_until < :now
    returning holder
""")
)


class Lease:
    """One name per service ("relay"), at most one holder at a time."""

    def __init__(self, db: Database, name: str, seconds: float = 5.0) -> None:
        self.name = name
        self.holder: UUID = new_id()
        self._db = db
        self._seconds = seconds
        self._renewed: float | None = None  # monotonic

    async def held(self) -> bool:
        """True if we hold it, taking or renewing it where needed (at most every third of its time)."""
        started = time.monotonic()
        if self._renewed is not None and started - self._renewed < self._seconds / 3:
            return True
        now = clock.now()
        until = now + timedelta(seconds=self._seconds)
        (mine,) = await self._db.at_once(
            (_TAKE, {"name": self.name, "holder": self.holder, "held_until": until, "now": now})
        )
        self._renewed = started if mine else None
        return bool(mine)

    async def release(self) -> None:
        """Lets another process have it at once."""
        if self._renewed is None:
            return
        self._renewed = None
        async with self._db.worker() as tx:
            await tx.execute(delete(leases).where(leases.c.name == self.name, leases.c.holder == self.holder))

    async def let_go(self) -> None:
        """As `release`, for one who leaves in any case: where it fails, the lease runs out by itself."""
        try:
            await asyncio.shield(self.release())
        except Exception as error:  # at the end of a loop
            log.info(
                "A lease stays until it runs out", extra={"lease": self.name, "reason": type(error).__name__}
            )
