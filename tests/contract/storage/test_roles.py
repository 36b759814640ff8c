"""Who builds PostgreSQL's wall and from what: the roles, the upgrade of what is there, and a start that looks."""

import subprocess
from collections.abc import AsyncIterator

import asyncpg
import pytest
from contract.storage.conftest import context_for
from contract.storage.engines import PostgresEngine
from contract.storage.walled_database import WalledDatabase
from contract.storage.walled_rows import OWNED
from parley_server.domain.errors import ConversationBusyError, StartError
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql import row_security
from parley_server.storage.sql.acting import OPERATOR, RUN_LOG, Acting, acting_for
from parley_server.storage.sql.ownership import OWNERSHIP
from parley_server.storage.sql.postgres import PostgresDatabase, Purpose
from parley_server.storage.sql.postgres_roles import sql_of_roles
from parley_server.storage.sql.store import open_store
from parley_server.storage.sql.tables import metadata
from parley_server.storage.sql.writer import Writer
from postgres_server import LOGIN, PostgresServer, programs, session_on
from sqlalchemy import Column, Connection, Integer, MetaData, Table, text

COUNT = "SELECT count(1) FROM {}"
EMPTY = "UPDATE {} SET {} = ''"
CODEC = ProtoEventCodec()
NAME = text("SELECT current_user AS who, current_setting('parley.user_id', true) AS user_id")


@pytest.fixture
async def url(postgres: PostgresServer) -> AsyncIterator[str]:
    async with postgres.database() as made:
        yield made


@pytest.fixture
async def powerless(postgres: PostgresServer) -> AsyncIterator[str]:
    """An empty database of a login that may not make roles."""
    async with postgres.database("template1") as made:
        async with session_on(made) as session:
            database = await session.fetchval("SELECT current_database()")
            await session.execute(f"CREATE ROLE powerless LOGIN; ALTER DATABASE {database} OWNER TO powerless")
        yield made.replace(f"{LOGIN}@", "powerless@")
        async with session_on(made) as session:
            await session.execute(f"ALTER DATABASE {database} OWNER TO {LOGIN}; DROP OWNED BY powerless CASCADE")
            for name in ("_user", "_run_log", "_administration", ""):
                await session.execute(f"DROP OWNED BY powerless{name}; DROP ROLE powerless{name}")


async def opened(url: str, purpose: Purpose = Purpose.ADMINISTER) -> None:
    async with PostgresDatabase(url, purpose):
        pass


async def execute(url: str, statement: str) -> None:
    async with session_on(url) as session:
        await session.execute(statement)


def test_every_table_is_somebodys() -> None:
    assert OWNERSHIP.keys() == metadata.tables.keys()
    for name, rules in OWNERSHIP.items():
        assert rules.column in {"", *metadata.tables[name].columns.keys()}
        assert rules.column == "user_id" or "user_id" not in metadata.tables[name].columns, name


async def test_a_table_that_nobody_thought_of_lets_no_upgrade_through(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = MetaData()
    for table in metadata.tables.values():
        table.to_metadata(more)
    Table("forgotten", more, Column("n", Integer))
    monkeypatch.setattr(row_security, "metadata", more)
    with pytest.raises(KeyError, match="forgotten"):
        await opened(url, Purpose.UPGRADE)


async def test_a_login_that_may_make_no_roles_is_told_what_an_administrator_runs(powerless: str) -> None:
    with pytest.raises(StartError) as refused:
        await opened(powerless, Purpose.UPGRADE)
    assert str(refused.value) == (
        "the database needs the roles powerless_user, powerless_run_log, powerless_administration, which powerless may "
        "not make; let an administrator run once what `parley-server db roles` prints"
    )
    for _ in range(2):
        await execute(powerless, await sql_of_roles(powerless))
    await opened(powerless, Purpose.UPGRADE)
    async with PostgresDatabase(powerless) as database, open_store(database, CODEC, b"key") as store:
        made = await store.for_user(context_for("ann")).conversations.create("mine", {})
        assert (await store.for_user(context_for("ann")).conversations.get(made.conversation_id)).title == "mine"


async def test_a_login_that_owns_no_table_serves_with_the_roles_alone(url: str) -> None:
    await execute(url, "CREATE ROLE server LOGIN")
    its = url.replace(f"{LOGIN}@", "server@")
    try:
        with pytest.raises(StartError, match="cannot be used"):
            await opened(its)
        await execute(url, await sql_of_roles(its))
        async with PostgresDatabase(its, Purpose.SERVE) as database, open_store(database, CODEC, b"key") as store:
            made = await store.for_user(context_for("ann")).conversations.create("mine", {})
            assert (await store.for_user(context_for("ann")).conversations.get(made.conversation_id)).title == "mine"
    finally:
        await execute(url, "DROP OWNED BY server; DROP ROLE server")


async def test_a_role_that_may_log_in_is_none_of_ours(powerless: str) -> None:
    await execute(powerless, await sql_of_roles(powerless))
    await execute(powerless, "ALTER ROLE powerless_user LOGIN")
    with pytest.raises(StartError, match="powerless_user may log in"):
        await opened(powerless, Purpose.UPGRADE)


async def test_a_start_sees_a_table_that_is_open_and_a_role_that_is_not_to_be_had(powerless: str) -> None:
    await execute(powerless, await sql_of_roles(powerless))
    await opened(powerless, Purpose.UPGRADE)
    for spoiled in ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY"):
        await execute(powerless, spoiled)
        with pytest.raises(StartError, match="the database's table notes has no row-level security"):
            await opened(powerless)
        await opened(powerless, Purpose.UPGRADE)
    await execute(powerless, "REVOKE powerless_run_log FROM powerless")
    with pytest.raises(StartError, match=r"powerless_run_log.* cannot be taken on"):
        await opened(powerless)
    await execute(powerless, "GRANT powerless_run_log TO powerless")
    await opened(powerless)


async def test_a_database_without_the_wall_gets_it_and_keeps_its_rows(url: str) -> None:
    walled = WalledDatabase(url)
    await walled.fill()
    async with session_on(url) as session:
        for table in metadata.tables:
            await session.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
            await session.execute(f'DROP POLICY "user" ON {table}')
        await session.execute("DROP INDEX ix_search_texts_conversation_id; DROP FUNCTION own_texts_with")
        await session.execute("UPDATE alembic_version SET version_num = '0010'")
    await opened(url, Purpose.UPGRADE)
    async with walled.acting(acting_for("ann")) as session:
        for table in OWNED:
            assert await session.fetchval(COUNT.format(table)) == 1, table
    assert len(await PostgresEngine(url).rows("SELECT * FROM notes")) == 2


async def test_a_migration_sees_the_rows_it_is_to_change(url: str) -> None:
    await WalledDatabase(url).fill()

    def change(connection: Connection) -> int:
        row_security.lift(connection)
        changed = connection.execute(text("UPDATE notes SET text = text")).rowcount
        row_security.secure(connection)
        return changed

    async with PostgresDatabase(url) as database:
        assert await database.transaction(change) == 2
        assert await database.fetch(text("SELECT * FROM notes")) == []


async def test_a_row_without_a_user_is_refused(url: str) -> None:
    await WalledDatabase(url).fill()
    async with session_on(url) as session:
        for table in (name for name in OWNED if OWNERSHIP[name].column):
            with pytest.raises(asyncpg.CheckViolationError):
                await session.execute(EMPTY.format(table, OWNERSHIP[table].column))


async def test_what_a_unit_took_on_ends_with_it_also_when_it_fails(url: str) -> None:
    def name(connection: Connection) -> tuple[object, ...]:
        return tuple(connection.execute(NAME).one())

    def fail(connection: Connection) -> None:
        connection.execute(NAME)
        raise ConversationBusyError("no", metadata={})

    async with PostgresDatabase(url) as database, Writer(database) as writer:
        assert await writer.run(name, acting=acting_for("o'ann")) == ("parley_user", "o'ann")
        assert await writer.run(name, acting=RUN_LOG) == ("parley_run_log", "")
        for _ in range(2):
            with pytest.raises(ConversationBusyError):
                await writer.run(fail, acting=acting_for("ann"))
            assert await writer.run(name, acting=OPERATOR) == (LOGIN, "")
        assert await database.transaction(name) == (LOGIN, "")
        for acting in (acting_for("o'ann"), RUN_LOG):
            [row] = await database.fetch(NAME, acting=acting)
            assert row["user_id"] == acting.user_id
        [row] = await database.fetch(NAME)
        assert (row["who"], row["user_id"] or "") == (LOGIN, "")


def test_nobody_is_acted_for() -> None:
    with pytest.raises(ValueError, match="nobody"):
        acting_for("")
    assert acting_for("ann") != Acting(acting_for("ann").role, "bob")


async def test_a_dump_by_administration_has_everything_and_is_behind_the_wall_again_with_an_upgrade(
    url: str, postgres: PostgresServer
) -> None:
    await WalledDatabase(url).fill()
    dump = [str(programs() / "pg_dump"), f"--dbname={url}"]
    alone = subprocess.run(dump, capture_output=True, text=True, check=False)
    assert "row-level security" in alone.stderr
    words = ["--role=parley_administration", "--enable-row-security"]
    dumped = subprocess.run([*dump, *words], capture_output=True, check=True).stdout
    async with postgres.database("template1") as restored:
        psql = [str(programs() / "psql"), "--no-psqlrc", "--quiet", f"--dbname={restored}"]
        subprocess.run(psql, input=dumped, capture_output=True, check=True)
        await opened(restored, Purpose.UPGRADE)
        await opened(restored, Purpose.SERVE)
        for table in OWNED:
            assert await PostgresEngine(restored).rows(COUNT.format(table)) == [(2,)]
        async with WalledDatabase(restored).acting(acting_for("ann")) as session:
            assert await session.fetchval(COUNT.format("notes")) == 1
