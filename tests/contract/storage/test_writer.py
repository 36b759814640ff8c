"""Group commit: what fails undoes itself and nothing else, and every waiter hears its own outcome."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from contract.storage.engines import Engine
from parley_server.domain.call_errors import ServerOverloadedError
from parley_server.domain.errors import NotFoundError, StorageUnavailableError
from parley_server.storage.sql import writer as sql_writer
from parley_server.storage.sql.acting import ADMINISTRATION, acting_for
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.writer import Writer
from sqlalchemy import Connection, text


@pytest.fixture
async def database(engine: Engine) -> AsyncIterator[Database]:
    async with engine.open() as opened:
        await opened.transaction(lambda connection: execute(connection, "CREATE TABLE t (n INTEGER)"))
        yield opened


def execute(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))


def insert(connection: Connection, number: int) -> int:
    connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
    return number


async def numbers(database: Database) -> list[object]:
    return [row["n"] for row in await database.fetch(text("SELECT n FROM t ORDER BY n"))]


async def test_a_failing_write_is_undone_alone(database: Database) -> None:
    def fail(connection: Connection, number: int) -> int:
        insert(connection, number)
        raise NotFoundError("thing") if number % 3 == 0 else ValueError("a fault")

    async with Writer(database) as writer:
        outcomes = await asyncio.gather(
            *(
                writer.run(lambda connection, n=n: insert(connection, n) if n % 2 else fail(connection, n))  # type: ignore[misc]
                for n in range(20)
            ),
            return_exceptions=True,
        )
    for number, outcome in enumerate(outcomes):
        if number % 2:
            assert outcome == number
        else:
            assert isinstance(outcome, NotFoundError if number % 3 == 0 else ValueError)
    assert await numbers(database) == list(range(1, 20, 2))


async def test_what_is_queued_is_committed_before_the_end(database: Database) -> None:
    async with Writer(database) as writer:
        waiting = [asyncio.create_task(writer.run(lambda connection, n=n: insert(connection, n))) for n in range(5)]  # type: ignore[misc]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == list(range(5))
    assert await numbers(database) == list(range(5))


async def test_a_crowd_of_writes_is_several_commits_in_the_order_they_were_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_writer, "BATCH_S", 0.01)
    commits: list[int] = []

    def slow(connection: Connection, number: int) -> int:
        time.sleep(0.004)
        insert(connection, number)
        return int(connection.execute(text("SELECT count(*) FROM t")).scalar_one())

    async def write(writer: Writer, number: int) -> int:
        place = await writer.run(lambda connection: slow(connection, number))
        commits.append(len(await numbers(database)))
        return place

    async with Writer(database) as writer:
        places = await asyncio.gather(*(write(writer, number) for number in range(12)))
    assert places == list(range(1, 13))
    assert len(set(commits)) > 1
    assert await numbers(database) == list(range(12))


async def test_more_users_than_can_be_served_are_told_so_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_writer, "MAX_WAITING_CALLS", 3)
    ann = acting_for("ann")
    async with engine.open() as database, Writer(database) as writer:
        outcomes = await asyncio.gather(
            *(writer.run(lambda _: "a user's", acting=ann) for _ in range(5)),
            writer.run(lambda _: "what he waits for", acting=ann, patient=True),
            writer.run(lambda _: "the server's own", acting=ADMINISTRATION),
            return_exceptions=True,
        )
        assert await writer.run(lambda _: "later", acting=ann) == "later"
    assert outcomes[:3] == ["a user's"] * 3
    assert all(isinstance(each, ServerOverloadedError) for each in outcomes[3:6])
    assert outcomes[6:] == ["the server's own"]


async def test_a_waiter_that_goes_away_takes_nobody_with_it(database: Database) -> None:
    async with Writer(database) as writer:
        leaving = asyncio.create_task(writer.run(lambda connection: insert(connection, 1)))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await writer.run(lambda connection: insert(connection, 2)) == 2
    assert await numbers(database) == [1, 2]


async def test_a_store_that_cannot_write_says_so_and_recovers(database: Database) -> None:
    async with Writer(database) as writer:
        with pytest.raises(StorageUnavailableError):
            await writer.run(lambda connection: execute(connection, "INSERT INTO absent VALUES (1)"))
        assert await writer.run(lambda connection: insert(connection, 3)) == 3
