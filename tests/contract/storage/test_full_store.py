"""A store without room says so by a reason of its own, to all who wait for the commit, and takes the next that fits."""

import asyncio

import pytest
from contract.storage.engines import Engine
from parley_server.domain.errors import StorageFullError
from parley_server.storage.sql.writer import Writer
from sqlalchemy import Connection, text

_FULL = "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$"


def prepare(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE t (n INTEGER, content TEXT)"))
    if connection.dialect.name == "sqlite":
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages + 20}"))


def insert(connection: Connection, number: int) -> int:
    connection.execute(text("INSERT INTO t VALUES (:n, '')"), {"n": number})
    return number


def overfill(connection: Connection) -> int:
    """Write what there is no room for; PostgreSQL is told to say so, for its disk is not ours to fill."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("INSERT INTO t VALUES (0, zeroblob(10000000))"))
    else:
        connection.execute(text(_FULL))
    return 0


async def test_a_write_without_room_is_told_as_such(engine: Engine) -> None:
    async with engine.open() as database:
        await database.transaction(prepare)
        with pytest.raises(StorageFullError):
            await database.transaction(overfill)
        told: list[bool] = []
        async with Writer(database) as writer:
            writer.watch_availability(told.append)
            with pytest.raises(StorageFullError):
                await writer.run(overfill)
            assert told == [False]
            outcomes = await asyncio.gather(
                writer.run(lambda connection: insert(connection, 1)),
                writer.run(overfill),
                writer.run(lambda connection: insert(connection, 2)),
                return_exceptions=True,
            )
            assert all(isinstance(outcome, StorageFullError) for outcome in outcomes)
            assert await writer.run(lambda connection: insert(connection, 3)) == 3
            assert told == [False, True]
        assert [row["n"] for row in await database.fetch(text("SELECT n FROM t"))] == [3]
