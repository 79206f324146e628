"""One set of servers for the whole run; a database and services for each worker; a tenant for each test."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import servers as of_run
from tests.servers import DIRECTORY, Servers

if TYPE_CHECKING:
    import httpx

    from tests.platform import Stack, TenantOfTest


def pytest_configure(config: pytest.Config) -> None:
    """The first process of a run makes its directory; workers are told of it."""
    given = getattr(config, "workerinput", {}).get("regulars_directory")
    config.stash[DIRECTORY] = given or str(of_run.make_directory())
    if not given:
        of_run.start_containers(Path(config.stash[DIRECTORY]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """xdist: hands the directory on to a worker."""
    node.workerinput["regulars_directory"] = node.config.stash[DIRECTORY]  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The first process stops what the run started."""
    if not hasattr(config, "workerinput"):
        of_run.end(Path(config.stash[DIRECTORY]))


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """PostgreSQL, NATS and Redis of this run."""
    return of_run.of_run(Path(pytestconfig.stash[DIRECTORY]))


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """The name of this worker of the run: `main` without xdist."""
    found: str = getattr(request.config, "workerinput", {}).get("workerid", "main")
    return found


@pytest.fixture(scope="session")
async def stack(servers: Servers, worker: str, pytestconfig: pytest.Config) -> AsyncIterator["Stack"]:
    """The whole product, hosted in this process for all its tests."""
    from tests.platform import running_stack

    home = Path(pytestconfig.stash[DIRECTORY]) / worker
    home.mkdir(mode=0o700)
    async with running_stack(servers, home, worker) as found:
        yield found


@pytest.fixture
async def tenant(stack: "Stack") -> "TenantOfTest":
    """A fresh tenant: the test's own rollback."""
    return await stack.new_tenant()


@pytest.fixture
async def other_tenant(stack: "Stack") -> "TenantOfTest":
    """Another one, for what must not cross the border."""
    return await stack.new_tenant()


@pytest.fixture
async def rest(tenant: "TenantOfTest") -> AsyncIterator["httpx.AsyncClient"]:
    """An HTTP client of the gateway, with an admin's token of the test's tenant."""
    async with tenant.rest() as client:
        yield client
