"""Reads about tenants."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from libs.db import Tx
from services.customers.problems import TenantNotFound
from services.customers.tables import accounts


async def tenant(tx: Tx, *, tenant_id: UUID | None = None, slug: str = "") -> Row[Any]:
    """The tenant's row, by id or slug. Raises TenantNotFound."""
    by = accounts.c.tenant_id == tenant_id if tenant_id else accounts.c.slug == slug
    found = (await tx.execute(select(accounts).where(by))).first()
    if found is None:
        raise TenantNotFound
    return found
