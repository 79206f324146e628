"""Shops for tests of loyalty."""

import pytest

from tests.customers.shop import Shop, open_shop
from tests.loyalty.members import default_program
from tests.platform import TenantOfTest


@pytest.fixture
async def shop(tenant: TenantOfTest) -> Shop:
    """A business of which loyalty has heard."""
    found = await open_shop(tenant)
    await default_program(found)
    return found
