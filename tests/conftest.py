"""What the whole session shares."""

from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server; it is started by the first test that asks for it."""
    with running_postgres() as server:
        yield server
