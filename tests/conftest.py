"""What the whole session shares."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from postgres_server import PostgresServer, running_postgres

# No test is a matter of time: the machine may be doing something else.
settings.register_profile("parley", deadline=None, print_blob=True)
settings.load_profile("parley")

# Begun in the background of a shell, the suite and every program it starts would not hear of an interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server; it is started by the first test that asks for it."""
    with running_postgres(syncs=False) as server:
        yield server
