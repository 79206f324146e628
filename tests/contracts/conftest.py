"""The migrated database as its administrator sees it."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.contracts.database import Admin, administrator
from tests.platform import Stack


@pytest.fixture(scope="session")
def database(stack: Stack) -> Iterator[Admin]:
    """A connection of the administrator to the database of all services."""
    with psycopg.connect(administrator(stack), autocommit=True) as connection:
        yield connection
