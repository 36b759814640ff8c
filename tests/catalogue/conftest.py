"""One server on each engine for the whole catalogue: bad input must not wear it out."""

from collections.abc import AsyncIterator

import pytest
from catalogue.door import Door, open_door
from postgres_server import PostgresServer

DOORS = ("sqlite_door", "postgres_door")


@pytest.fixture(scope="session")
async def sqlite_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    async with open_door(tmp_path_factory.mktemp("sqlite")) as door:
        yield door


@pytest.fixture(scope="session")
async def postgres_door(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    async with (
        postgres.database() as url,
        open_door(tmp_path_factory.mktemp("postgres"), {"PARLEY_STORAGE__URL": url}) as door,
    ):
        yield door


@pytest.fixture
def door(sqlite_door: Door) -> Door:
    """The server for what no engine makes a difference to."""
    return sqlite_door


@pytest.fixture(params=DOORS)
def either_door(request: pytest.FixtureRequest) -> Door:
    """Each server in turn, for what concerns stored things."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Door)
    return found
