"""Businesses for tests."""

import pytest

from tests.customers.shop import Shop, open_shop
from tests.platform import TenantOfTest


@pytest.fixture
async def shop(tenant: TenantOfTest) -> Shop:
    """A business in the United States."""
    return await open_shop(tenant)


@pytest.fixture
async def other_shop(tenant: TenantOfTest) -> Shop:
    """Another business of the same tenant."""
    return await open_shop(tenant, name="Other Shop", country="DE", currency="EUR")
