"""SQLite's wall for what is read: a user's connection shows his rows and lets nothing else be asked for."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from contract.storage.test_row_security import READS
from contract.storage.walled_rows import OWNED, all_rows, mark_of
from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.sql.acting import ADMINISTRATION, acting_for
from parley_server.storage.sql.own_views import OwnParameters, open_own
from parley_server.storage.sql.ownership import OWNERSHIP
from parley_server.storage.sql.sqlite import SqliteDatabase
from sqlalchemy import text

COUNT = "SELECT count(1) FROM {}"


@pytest.fixture(scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("walled") / "parley.db"
    async with SqliteDatabase(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, row in all_rows():
            columns = ", ".join(row)
            connection.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608  # ours
                [*row.values()],
            )
    return path


@pytest.fixture
def own(filled: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_own(filled, 1.0)) as connection:
        yield connection


def as_ann(own: sqlite3.Connection, statement: str) -> list[object]:
    return [row[0] for row in own.execute(statement, OwnParameters({}, "ann"))]


@pytest.mark.parametrize("table", OWNED)
def test_every_way_to_read_shows_own_rows_alone(own: sqlite3.Connection, table: str) -> None:
    for statement in READS:
        said = statement.replace("AS MATERIALIZED", "AS").replace("string_agg", "group_concat")
        assert set(as_ann(own, said.format(table=table, mark=mark_of(table)))) == {"ann"}, statement
    assert own.execute(COUNT.format(table), OwnParameters({}, "nobody")).fetchall() == [(0,)]
    with pytest.raises(sqlite3.OperationalError):
        own.execute(COUNT.format(table))


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SELECT * FROM main.{table}" for table in OWNERSHIP),  # noqa: S608  # ours
        *(f"SELECT * FROM {table}" for table, rules in OWNERSHIP.items() if not rules.is_users),  # noqa: S608  # ours
        "SELECT secret_hash FROM api_keys",
        "SELECT frames FROM run_journal",
        "SELECT count(*) FROM main.runs",
        "SELECT one.run_id FROM runs AS one JOIN main.runs AS other",
        "SELECT (SELECT max(title) FROM main.conversations)",
        "SELECT * FROM alembic_version",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM search_texts_content",
        'SELECT * FROM "SEARCH_TEXTS_DATA"',
        "SELECT * FROM pragma_table_info('runs')",
        "PRAGMA table_info(runs)",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "ATTACH 'parley.db' AS another",
        "CREATE TEMP VIEW runs AS SELECT * FROM main.runs",
        "CREATE TEMP TRIGGER t AFTER INSERT ON main.notes BEGIN SELECT 1; END",
        "DROP VIEW runs",
        "DELETE FROM main.runs",
        "UPDATE main.runs SET user_id = 'ann'",
        "INSERT INTO notes VALUES ('n', 'ann', '', 1)",
        "BEGIN",
        "VACUUM INTO 'copy.db'",
    ],
)
def test_nothing_but_the_views_is_asked_for(own: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.DatabaseError):
        own.execute(statement, OwnParameters({}, "ann"))


def test_a_search_finds_own_texts_by_the_index_of_all(own: sqlite3.Connection) -> None:
    found = "SELECT user_id FROM search_texts WHERE search_texts MATCH ?"
    by_place = own.execute(found.replace("?", ":query"), OwnParameters({"query": "ann OR bob"}, "ann"))
    assert by_place.fetchall() == [("ann",)]
    [(_, _, _, plan)] = own.execute(
        f"EXPLAIN QUERY PLAN {found.replace('?', ':query')}", OwnParameters({"query": "ann"}, "ann")
    )
    assert "VIRTUAL TABLE INDEX" in plan
    assert ":M" in plan


async def test_a_read_is_its_users_whoever_read_before(filled: Path) -> None:
    statement = text("SELECT user_id FROM conversations")
    async with SqliteDatabase(filled) as database:
        for user_id in ("ann", "bob", "nobody", "ann") * 2:
            rows = await database.fetch(statement, acting=acting_for(user_id))
            assert [row["user_id"] for row in rows] == [user_id] * (user_id != "nobody")
        assert len(await database.fetch(statement, acting=ADMINISTRATION)) == 2
        with pytest.raises(StorageUnavailableError):
            await database.fetch(text("SELECT * FROM audit_log"), acting=acting_for("ann"))
