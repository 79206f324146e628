"""One set of servers for the whole run; a database and services for each worker; a tenant for each test."""

from pathlib import Path

import pytest

from tests import servers as of_run
from tests.servers import DIRECTORY, Servers


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
