"""What is SQLite's alone: a full disk makes it end the transaction by itself, which must not look like success."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.sql.checkpoints import MAX_LOG_BYTES
from parley_server.storage.sql.driver import savepoint
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.writer import Writer
from sqlalchemy import Connection, text


def insert(connection: Connection, key: str, size: int) -> str:
    connection.execute(text("INSERT INTO t VALUES (:key, zeroblob(:size))"), {"key": key, "size": size})
    return key


def prepare(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE t (key TEXT, content BLOB)"))
    # A full disk, as far as SQLite can tell.
    pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    connection.execute(text(f"PRAGMA max_page_count = {pages + 20}"))


async def test_what_a_full_disk_took_back_is_not_reported_as_written(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "parley.db") as database:
        await database.transaction(prepare)
        sizes = {"before": 10, "huge": 10_000_000, "after": 10, "last": 10}
        async with Writer(database) as writer:
            outcomes = await asyncio.gather(
                *(writer.run(partial(insert, key=key, size=size)) for key, size in sizes.items()),
                return_exceptions=True,
            )
            told = {key for key, outcome in zip(sizes, outcomes, strict=True) if outcome == key}
            stored = {row["key"] for row in await database.fetch(text("SELECT key FROM t"))}
            assert told == stored
            assert all(isinstance(outcome, StorageUnavailableError) for outcome in outcomes if outcome not in told)
            assert await writer.run(lambda connection: insert(connection, "again", 10)) == "again"
        assert (tmp_path / "parley.db").stat().st_mode & 0o077 == 0


async def test_a_second_statement_after_a_lost_transaction_is_refused(tmp_path: Path) -> None:
    def fail_and_go_on(connection: Connection) -> None:
        with pytest.raises(Exception, match="savepoint"), savepoint(connection):
            insert(connection, "huge", 10_000_000)
        with savepoint(connection):
            insert(connection, "outside", 10)

    async with SqliteDatabase(tmp_path / "parley.db") as database:
        await database.transaction(prepare)
        with pytest.raises(StorageUnavailableError):
            await database.transaction(fail_and_go_on)
        assert not await database.fetch(text("SELECT key FROM t"))


async def test_the_log_goes_into_the_database_before_it_is_long(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "parley.db") as database:
        await database.transaction(
            lambda connection: connection.execute(text("CREATE TABLE t (key TEXT, content BLOB)"))
        )
        for size in (100, 500_000, 100):
            for turn in range(150):
                await database.transaction(partial(insert, key=str(turn), size=size))
            assert (tmp_path / "parley.db-wal").stat().st_size < 2 * MAX_LOG_BYTES
            # Nobody reads, so all of it could go.
            assert (tmp_path / "parley.db").stat().st_size > size * 100


async def test_a_log_that_somebody_reads_is_not_empty_and_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "parley.db"
    async with SqliteDatabase(path) as database:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM runs").fetchone()
            await database.transaction(lambda connection: connection.execute(text("DELETE FROM request_ids")))
            with pytest.raises(StorageUnavailableError):
                await database.scrub()
        await database.scrub()
        assert path.with_name("parley.db-wal").stat().st_size == 0
