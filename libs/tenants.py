"""Which tenants there are: a row in every service's schema, kept in memory for a minute (decision 11)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from libs.db import Database, Tx
from libs.plumbing import tenants
from libs.problems import Unauthenticated

KNOWN_SECONDS = 60.0
UNKNOWN_SECONDS = 5.0
MAX_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An account of the platform."""

    tenant_id: UUID
    slug: str
    closed_at: datetime | None = None


class TenantUnknown(Unauthenticated):
    """The token names a tenant that there is not."""

    reason = "TENANT_UNKNOWN"
    message = "The token's tenant does not exist or is closed."


Ask = Callable[[UUID], Awaitable[Tenant | None]]


class Tenants:
    """The tenants that this service knows.

    `ask` finds out about one that is not in the schema yet: elsewhere than in customers it asks customers.
    What it gives is stored.
    """

    def __init__(self, db: Database, ask: Ask | None = None) -> None:
        self._db = db
        self._ask = ask
        self._remembered: dict[UUID, tuple[float, Tenant | None]] = {}
        self._asking: dict[UUID, asyncio.Future[Tenant | None]] = {}

    async def require(self, tenant_id: UUID) -> Tenant:
        """The tenant. Raises TenantUnknown if there is none, or it is closed; whatever `ask` raises."""
        tenant = await self.get(tenant_id)
        if tenant is None or tenant.closed_at is not None:
            raise TenantUnknown
        return tenant

    async def get(self, tenant_id: UUID) -> Tenant | None:
        """The tenant, closed ones too, or None. Many who ask for one at once look it up once."""
        until, tenant = self._remembered.get(tenant_id, (0.0, None))
        if time.monotonic() < until:
            return tenant
        looking = self._asking.get(tenant_id)
        if looking is None:
            looking = self._asking[tenant_id] = asyncio.ensure_future(self._look_up(tenant_id))
            looking.add_done_callback(lambda done: self._looked_up(tenant_id, done))
        return await asyncio.shield(looking)  # one who gives up leaves the others their answer

    def forget(self, tenant_id: UUID) -> None:
        """Looks it up again next time. Called when it was created or closed."""
        self._remembered.pop(tenant_id, None)

    async def all(self) -> list[Tenant]:
        """All tenants that are not closed, for work on the whole platform."""
        async with self._db.worker() as tx:
            rows = await tx.execute(
                select(tenants).where(tenants.c.closed_at.is_(None)).order_by(tenants.c.tenant_id)
            )
            return [Tenant(tenant_id=row.tenant_id, slug=row.slug) for row in rows]

    async def remember(self, tx: Tx, slug: str, closed_at: datetime | None = None) -> None:
        """Stores the tenant of `tx`'s caller. A tenant that is closed stays so."""
        tenant_id = tx.tenant_id
        await _store(tx, Tenant(tenant_id=tenant_id, slug=slug, closed_at=closed_at))
        tx.after_commit(lambda: self.forget(tenant_id))

    async def _look_up(self, tenant_id: UUID) -> Tenant | None:
        async with self._db.worker() as tx:
            row = (await tx.execute(select(tenants).where(tenants.c.tenant_id == tenant_id))).one_or_none()
        if row is not None:
            return Tenant(tenant_id=row.tenant_id, slug=row.slug, closed_at=row.closed_at)
        if self._ask is None:
            return None
        found = await self._ask(tenant_id)
        if found is not None:
            async with self._db.worker() as tx:
                await _store(tx, found)
        return found

    def _looked_up(self, tenant_id: UUID, done: asyncio.Future[Tenant | None]) -> None:
        self._asking.pop(tenant_id, None)
        if done.cancelled() or done.exception() is not None:
            return
        tenant = done.result()
        while len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        seconds = KNOWN_SECONDS if tenant else UNKNOWN_SECONDS
        self._remembered.pop(tenant_id, None)
        self._remembered[tenant_id] = (time.monotonic() + seconds, tenant)


async def _store(tx: Tx, tenant: Tenant) -> None:
    statement = insert(tenants).values(
        tenant_id=tenant.tenant_id, slug=tenant.slug, closed_at=tenant.closed_at
    )
    await tx.execute(
        statement.on_conflict_do_update(
            constraint="tenants_pkey",
            set_={"slug": statement.excluded.slug, "closed_at": statement.excluded.closed_at},
            where=tenants.c.closed_at.is_(None),
        )
    )
