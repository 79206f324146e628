"""Writes about tenants."""

from sqlalchemy.dialects.postgresql import insert

from libs.db import Tx
from libs.outbox import emit
from regulars.customers.v1.events_pb2 import TenantCreated
from services.customers.tables import accounts


async def create_tenant(tx: Tx, slug: str, display_name: str) -> bool:
    """Creates the caller's tenant. False if there is a tenant of this slug.

    Emits TenantCreated.
    """
    tenant_id = tx.tenant_id
    row = {"tenant_id": tenant_id, "slug": slug, "display_name": display_name, "created_at": tx.now}
    made = await tx.execute(insert(accounts).values(row).on_conflict_do_nothing().returning(accounts.c.slug))
    if made.first() is None:
        return False
    await emit(tx, TenantCreated(tenant_id=str(tenant_id), slug=slug), aggregate_id=tenant_id, version=1)
    return True
