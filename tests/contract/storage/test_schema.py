"""The migrations and the tables say the same, and a database of another version is not touched by chance."""

from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from parley_server.storage.sql import quota_tables, schema
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.tables import metadata
from postgres_server import PostgresServer
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def differences(connection: Connection) -> list[object]:
    assert quota_tables.usage_days.metadata is metadata
    # The table searched is each engine's own way of it.
    options = {"include_object": lambda _object, name, *_: not name.startswith("search_texts")}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    return config


async def test_the_migrated_schema_is_the_tables_schema(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "parley.db"):
        pass
    engine = create_engine(f"sqlite:///{tmp_path / 'parley.db'}")
    with engine.connect() as connection:
        assert differences(connection) == []
        assert schema.current_revision(connection) == schema.HEAD
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = migrations()
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


async def test_a_database_of_another_version_is_left_alone_where_it_may_not_be_upgraded(tmp_path: Path) -> None:
    with pytest.raises(schema.SchemaOutdatedError):
        async with SqliteDatabase(tmp_path / "parley.db", may_upgrade=False):
            pass
    async with SqliteDatabase(tmp_path / "parley.db"):
        pass
    async with SqliteDatabase(tmp_path / "parley.db", may_upgrade=False) as database:
        rows = await database.fetch(text("PRAGMA user_version"))
        assert len(rows) == 1


OLDER_ROWS = (
    (
        "INSERT INTO conversations (conversation_id, user_id, title, metadata_json, create_time, update_time, "
        "revision) VALUES ('conv_1', 'ann', '', '{}', 0, 0, 1)"
    ),
    (
        "INSERT INTO runs (run_id, user_id, conversation_id, position, agent_id, state, attempt, fencing_token, "
        "context_json, spec_json, create_time, deadline_time, last_seq, usage_json, output_text, labels_json) "
        "VALUES ('run_1', 'ann', 'conv_1', 1, 'a', 'succeeded', 1, 1, '{}', '{}', 0, 0, 1, '{}', '', '{}')"
    ),
    (
        "INSERT INTO tool_calls (run_id, call_id, item_id, user_id, name, fingerprint, idempotency_key, state, "
        "plan_time) VALUES ('run_1', 'call_1', 'item_1', 'ann', 'book', '', '', 'finished', 0)"
    ),
)


def test_calls_of_an_older_database_get_their_conversation(tmp_path: Path) -> None:
    config = migrations()
    engine = create_engine(f"sqlite:///{tmp_path / 'parley.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        for statement in OLDER_ROWS:
            connection.execute(text(statement))
    with engine.begin() as connection:
        schema.upgrade(connection)
        row = connection.execute(text("SELECT run_id, conversation_id, name, plan_time FROM tool_calls")).one()
        assert tuple(row) == ("run_1", "conv_1", "book", 0)
        assert differences(connection) == []
    engine.dispose()


def without_questions(connection: Connection) -> None:
    """Make a database as the first one was that had approvals."""
    config = migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, "0007")
    for name in ("question", "question_state"):
        connection.execute(text(f"ALTER TABLE approvals DROP COLUMN {name}"))


def test_a_database_from_before_questions_gets_room_for_them(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'parley.db'}")
    with engine.begin() as connection:
        without_questions(connection)
    with engine.begin() as connection:
        schema.upgrade(connection)
        assert differences(connection) == []
    engine.dispose()


async def test_so_does_one_on_postgresql_which_samples_none_of_them(postgres: PostgresServer) -> None:
    async with postgres.database(template="template1") as url:
        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
        )
        async with engine.begin() as connection:
            await connection.run_sync(without_questions)
            await connection.run_sync(schema.upgrade)
            sampled = await connection.execute(text(_SAMPLED))
            assert sorted(map(tuple, sampled)) == [("question", 0), ("question_state", 0)]
        await engine.dispose()


_SAMPLED = (
    "SELECT attname, attstattarget FROM pg_attribute WHERE attrelid = 'approvals'::regclass "
    "AND attname IN ('question', 'question_state')"
)
