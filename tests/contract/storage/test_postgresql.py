"""What is PostgreSQL's alone: who may open it, and what becomes of writes when its connections are lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from contract.storage.conftest import context_for
from contract.storage.cutting_proxy import Cut, CuttingProxy
from contract.storage.engines import PostgresEngine
from contract.storage.test_repositories import answer, spec
from contract.storage.test_run_log import decoded, watched
from contract.storage.test_schema import differences
from parley_server.domain.errors import StartError, StorageUnavailableError
from parley_server.domain.run_event import RunStarted, TextDelta
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql import schema
from parley_server.storage.sql.attempt import LOCK_SPACE
from parley_server.storage.sql.postgres import SERVING, PostgresDatabase, Purpose
from parley_server.storage.sql.store import open_store
from postgres_server import LOGIN, PostgresServer, session_on
from sqlalchemy import Connection, text


@pytest.fixture
async def url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A database with the newest schema."""
    async with postgres.database() as made:
        yield made


@pytest.fixture
async def fresh_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A database with nothing in it."""
    async with postgres.database("template1") as made:
        yield made


END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'parley-%'"


async def execute(url: str, statement: str) -> None:
    async with session_on(url) as session:
        await session.execute(statement)


async def opened(url: str, purpose: Purpose = Purpose.ADMINISTER) -> None:
    async with PostgresDatabase(url, purpose):
        pass


def insert(connection: Connection, number: int) -> int:
    connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
    return number


async def numbers(database: PostgresDatabase) -> list[object]:
    return [row["n"] for row in await database.fetch(text("SELECT n FROM t ORDER BY n"))]


async def test_the_migrated_schema_is_the_tables_schema(url: str) -> None:
    async with PostgresDatabase(url) as database:
        assert await database.transaction(differences) == []
        assert await database.transaction(schema.current_revision) == schema.HEAD


async def test_ids_are_ordered_by_their_bytes_whatever_the_databases_language(url: str) -> None:
    query = (
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND column_name IN ('conversation_id', 'run_id', 'message_id', 'key_id')"
    )
    assert await PostgresEngine(url).rows(query) == [("C",)]


async def test_only_the_upgrade_makes_the_schema(fresh_url: str) -> None:
    for purpose in (Purpose.SERVE, Purpose.ADMINISTER):
        with pytest.raises(StartError, match="parley-server db upgrade"):
            await opened(fresh_url, purpose)
    await opened(fresh_url, Purpose.UPGRADE)
    await opened(fresh_url, Purpose.SERVE)
    await execute(fresh_url, "UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(StartError, match="parley-server db upgrade"):
        await opened(fresh_url, Purpose.SERVE)


async def test_upgrades_at_once_wait_for_each_other(fresh_url: str) -> None:
    await asyncio.gather(*(opened(fresh_url, Purpose.UPGRADE) for _ in range(4)))
    await opened(fresh_url, Purpose.SERVE)


async def test_a_second_server_and_an_upgrade_are_refused_while_one_serves(url: str) -> None:
    async with PostgresDatabase(url, Purpose.SERVE):
        for purpose in (Purpose.SERVE, Purpose.UPGRADE):
            with pytest.raises(StartError, match="another parley-server holds the database"):
                await opened(url, purpose)
        await opened(url)
    await opened(url, Purpose.SERVE)


async def test_a_database_that_forgets_what_it_acknowledged_is_refused(url: str) -> None:
    name = urlsplit(url).path.strip("/")
    await execute(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(StartError, match="synchronous_commit = off"):
        await opened(url)
    await execute(url, f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    await opened(url)


@pytest.mark.parametrize("bad", ["postgresql://u:secret@/none?host=/nowhere", "postgresql://u:secret@:x/d"])
async def test_what_cannot_be_reached_is_told_without_its_password(bad: str) -> None:
    with pytest.raises(StartError, match=r"\[storage\] url") as refused:
        await opened(bad)
    assert "secret" not in str(refused.value)


async def test_no_statement_and_no_lock_is_waited_for_without_end(url: str) -> None:
    query = text("SELECT name, setting FROM pg_settings WHERE name LIKE '%\\_timeout' AND setting <> '0'")
    async with PostgresDatabase(url) as database:
        reading = {row["name"] for row in await database.fetch(query)}
        writing = set(await database.transaction(lambda connection: connection.execute(query).scalars().all()))
    limits = {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}
    assert limits <= reading
    assert limits <= writing


async def test_a_reader_cannot_write(url: str) -> None:
    async with PostgresDatabase(url) as database:
        with pytest.raises(StorageUnavailableError):
            await database.fetch(text("DELETE FROM runs RETURNING run_id"))


async def test_a_restart_of_the_database_costs_an_error_and_no_event(postgres: PostgresServer, url: str) -> None:
    ann = context_for("ann")
    async with (
        PostgresDatabase(url, Purpose.SERVE) as database,
        open_store(database, ProtoEventCodec(), b"page token key") as store,
    ):
        user = store.for_user(ann)
        run = (await user.runs.accept(spec(), None)).run
        appender = store.worker.appender(run.run_id)
        await appender.begin(RunStarted("m"))
        await appender.flush()
        postgres.stop("immediate")
        with pytest.raises(StorageUnavailableError):
            await user.conversations.create("while it is away", {})
        with pytest.raises(StorageUnavailableError):
            await user.runs.get(run.run_id)
        await appender.append(TextDelta("said meanwhile"), "item_a")
        postgres.start()
        assert (await user.conversations.create("afterwards", {})).title == "afterwards"
        await appender.flush()
        await appender.finish(answer("x"))
        live = await watched(store, ann, run.run_id)
        assert b"said meanwhile" in b"".join(event.payload for event in live)
        assert [event.seq for event in decoded(live)] == list(range(1, len(live) + 1))
    async with PostgresDatabase(url) as database, open_store(database, ProtoEventCodec(), b"k") as store:
        assert await watched(store, ann, run.run_id) == live


async def test_a_server_that_lost_its_lock_to_another_writes_nothing_ever_again(url: str) -> None:
    async with PostgresDatabase(url, Purpose.SERVE) as first:
        await first.transaction(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")).close())
        async with session_on(url) as other, session_on(url) as operator:
            # It waits for the lock, so that it has it before the first can ask again.
            taking = asyncio.create_task(other.execute(f"SELECT pg_advisory_lock({LOCK_SPACE}, {SERVING})"))
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while not await operator.fetchval(waits):  # noqa: ASYNC110  # what is awaited is in the database
                await asyncio.sleep(0.01)
            await operator.execute(END_SESSIONS)
            await taking
            for _ in range(2):
                with pytest.raises(StorageUnavailableError):
                    await first.transaction(lambda connection: insert(connection, 1))
        # What it holds in memory is of a time before the other one.
        with pytest.raises(StorageUnavailableError):
            await first.transaction(lambda connection: insert(connection, 2))
        assert await numbers(first) == []


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_a_commit_whose_answer_is_lost_is_what_it_was(cut: Cut, url: str, tmp_path: Path) -> None:
    parts = urlsplit(url)
    proxy = CuttingProxy(tmp_path, Path(parse_qs(parts.query)["host"][0]))
    async with proxy.running(), PostgresDatabase(f"postgresql://{LOGIN}@{parts.path}?host={tmp_path}") as database:
        await database.transaction(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")).close())
        proxy.cut = cut
        if cut is Cut.AFTER:
            assert await database.transaction(lambda connection: insert(connection, 1)) == 1
        else:
            with pytest.raises(StorageUnavailableError):
                await database.transaction(lambda connection: insert(connection, 1))
        assert proxy.cut is Cut.NEVER
        await database.transaction(lambda connection: insert(connection, 2))
        assert await numbers(database) == ([1, 2] if cut is Cut.AFTER else [2])
