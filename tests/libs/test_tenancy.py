"""Every service learns of a tenant, by the event or by asking, and lets nobody else in."""

from dataclasses import replace
from uuid import UUID

import grpc
import pytest
from sqlalchemy import select

from libs.crypto import KeyMissing
from libs.ids import new_id
from libs.plumbing import tenants
from libs.run.service import Runtime
from libs.tokens import mint
from regulars.customers.v1.tenants_pb2 import CreateTenantRequest
from regulars.customers.v1.tenants_pb2_grpc import TenantsServiceStub
from tests.libs.test_run_service import Place, eventually, hosted, list_jobs, place

__all__ = ["place"]


async def create(rt: Runtime, slug: str) -> UUID:
    token = mint(rt.settings.home, tenant=None, roles=["platform"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rt.port}") as channel:
        stub = TenantsServiceStub(channel)
        made = await stub.CreateTenant(
            CreateTenantRequest(slug=slug), metadata=[("authorization", f"Bearer {token}")]
        )
    return UUID(made.id)


async def test_a_tenant_is_heard_of(place: Place) -> None:
    async with hosted(place.settings, "customers") as customers, hosted(place.settings) as segments:
        tenant = await create(customers, "heard-of")

        async def heard() -> bool:
            async with segments.db.worker() as tx:
                return bool(await tx.scalar(select(tenants.c.slug).where(tenants.c.tenant_id == tenant)))

        await eventually(heard)
        assert segments.keys.for_tenant(tenant).page_token_key
        assert await list_jobs(segments, tenant) is None
        unknown = await list_jobs(segments, new_id())
        assert unknown is not None
        assert unknown.code == "UNAVAILABLE", "customers cannot be asked: it has no address here"


async def test_a_tenant_is_asked_for(place: Place) -> None:
    async with hosted(place.settings, "customers") as customers:
        tenant = await create(customers, "asked-for")
        there = replace(
            place.settings, prefix="elsewhere_", addresses={"customers": f"127.0.0.1:{customers.port}"}
        )
        async with hosted(there) as segments:
            with pytest.raises(KeyMissing):
                _ = segments.keys.for_tenant(tenant).page_token_key
            assert await list_jobs(segments, tenant) is None
            assert segments.keys.for_tenant(tenant).page_token_key
            unknown = await list_jobs(segments, new_id())
            assert unknown is not None
            assert (unknown.code, unknown.reason) == ("UNAUTHENTICATED", "TENANT_UNKNOWN")
