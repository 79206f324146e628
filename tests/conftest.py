"""One set of servers for the whole run; a database and services for each worker; a tenant for each test."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import servers as of_run
from tests.servers import DIRECTORY, Servers

if TYPE_CHECKING:
    import httpx

    from tests.platform import Stack, TenantOfTest

# The examples of a run are those of the run before, so that a change is judged by itself. New ones are looked for with
# `--hypothesis-profile=explore`.
settings.register_profile("explore", print_blob=True, deadline=None)
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

BEGAN = pytest.StashKey[float]()
SCANNED = pytest.StashKey[tuple[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """The first process of a run makes its directory; workers are told of it."""
    given = getattr(config, "workerinput", {}).get("regulars_directory")
    config.stash[BEGAN] = time.time()
    config.stash[DIRECTORY] = given or str(of_run.make_directory())
    if not given:
        of_run.sweep()
        of_run.start_containers(Path(config.stash[DIRECTORY]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """xdist: hands the directory on to a worker."""
    node.workerinput["regulars_directory"] = node.config.stash[DIRECTORY]  # type: ignore[attr-defined]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The first process looks for personal data in all that the run left behind: finding any fails the run."""
    from tests.scan import at_the_end

    root = Path(session.config.stash[DIRECTORY])
    if hasattr(session.config, "workerinput") or not at_the_end.needed(root):
        return
    report, wrong = at_the_end.scan_run(root, session.config.stash[BEGAN])
    session.config.stash[SCANNED] = str(report), wrong
    if wrong:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what that found."""
    if SCANNED in config.stash:
        summary, wrong = config.stash[SCANNED]
        terminalreporter.section("personal data left behind")
        for line in [*wrong, summary]:
            terminalreporter.line(line, red=line in wrong)


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
    from tests.scan.at_the_end import logging_to

    root = Path(pytestconfig.stash[DIRECTORY])
    home = root / worker
    home.mkdir(mode=0o700)
    with logging_to(root, worker):
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
