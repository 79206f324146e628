"""Personal values for the workloads, and the verdict of a run as its last line."""

import pytest

from libs import config as settings
from tests.conftest import SCANNED
from tests.scan.sentinels import sentinels

__all__ = ["sentinels"]

WRONG = pytest.StashKey[list[str]]()
SESSION = pytest.StashKey[pytest.Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keeps the session, which knows in the end how it went."""
    session.config.stash[SESSION] = session
    session.config.stash[WRONG] = []


def pytest_exception_interact(node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object]) -> None:
    """Notes what went wrong, in a line each."""
    if call.excinfo is not None and WRONG in node.config.stash:
        node.config.stash[WRONG] += [_line(each) for each in _leaves(call.excinfo.value)]


def pytest_unconfigure(config: pytest.Config) -> None:
    """After all that pytest itself says."""
    if "CHAOS_SECONDS" not in settings.process_environment() or SESSION not in config.stash:
        return
    wrong = config.stash[WRONG] + (config.stash[SCANNED][1] if SCANNED in config.stash else [])
    status = config.stash[SESSION].exitstatus
    if status and not wrong:
        wrong = [f"the run ended as {status!s}"]
    print("chaos:", "; ".join(wrong) or "clean", flush=True)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, AssertionError) and said else f"{type(error).__name__}: {said}"
