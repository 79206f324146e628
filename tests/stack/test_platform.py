"""The fixtures that every other test stands on."""

import grpc
import pytest

from regulars.customers.v1.tenants_pb2 import GetTenantRequest
from regulars.customers.v1.tenants_pb2_grpc import TenantsServiceStub
from tests.platform import Stack, TenantOfTest


async def test_each_test_has_a_tenant_of_its_own(
    stack: Stack, tenant: TenantOfTest, other_tenant: TenantOfTest
) -> None:
    assert tenant.id != other_tenant.id
    platform = stack.calls(TenantsServiceStub, stack.token(None, "platform"))
    found = await platform.GetTenant(GetTenantRequest(slug=tenant.slug))
    assert found.id == str(tenant.id)


async def test_a_tenants_admin_is_no_platform_operator(tenant: TenantOfTest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.calls(TenantsServiceStub, "owner").GetTenant(GetTenantRequest(slug=tenant.slug))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
