"""A business that others try to reach."""

import pytest

from tests.platform import Stack
from tests.walls.world import World, make_world


@pytest.fixture(scope="session")
async def home(stack: Stack) -> World:
    """The business that must stay as it is, whatever others try."""
    return await make_world(await stack.new_tenant())


@pytest.fixture(scope="session")
async def next_door(home: World) -> World:
    """Another business of the same tenant, which tries."""
    return await make_world(home.tenant)
