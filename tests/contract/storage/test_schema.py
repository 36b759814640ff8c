"""The migrations and the tables say the same, and a database of another version is not touched by chance."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from parley_server.storage.sql import schema
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.tables import metadata
from sqlalchemy import Connection, create_engine, text


def differences(connection: Connection) -> list[object]:
    # The table searched is each engine's own way of it.
    options = {"include_object": lambda _object, name, *_: not name.startswith("search_texts")}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_the_migrated_schema_is_the_tables_schema(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "parley.db"):
        pass
    engine = create_engine(f"sqlite:///{tmp_path / 'parley.db'}")
    with engine.connect() as connection:
        assert differences(connection) == []
        assert schema.current_revision(connection) == schema.HEAD
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
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
