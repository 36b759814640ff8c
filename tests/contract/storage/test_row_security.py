"""PostgreSQL's wall, by direct SQL: whoever acts for ann finds no way to a row of bob's, in any table of users."""

from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from contract.storage.walled_database import INSERT, WalledDatabase, marks, refused
from contract.storage.walled_rows import OWNED, mark_of, row_of
from parley_server.storage.sql.acting import OPERATOR, Acting, Role, acting_for
from parley_server.storage.sql.ownership import ADD, CHANGE, OWNERSHIP, READ, REMOVE
from parley_server.storage.sql.tables import metadata
from postgres_server import SUPERUSER, PostgresServer, session_on

ANN = acting_for("ann")
READS = (
    "SELECT {mark} FROM {table}",
    "SELECT {mark} FROM {table} WHERE {mark} = 'bob' OR true",
    "WITH everything AS MATERIALIZED (SELECT {mark} FROM {table}) SELECT * FROM everything",
    "SELECT one.{mark} FROM {table} AS one JOIN {table} AS other ON true",
    "SELECT other.{mark} FROM conversations LEFT JOIN {table} AS other ON true",
    "SELECT (SELECT string_agg({mark}, ',') FROM {table})",
    "SELECT {mark} FROM {table} UNION ALL SELECT {mark} FROM {table}",
    "SELECT DISTINCT first_value({mark}) OVER (ORDER BY {mark} DESC) FROM {table}",
    "WITH RECURSIVE all_of AS (SELECT {mark} FROM {table} UNION SELECT {mark} FROM all_of) SELECT * FROM all_of",
)
CHANGES = {
    CHANGE: ("UPDATE {table} SET {mark} = {mark} WHERE {mark} = 'bob' RETURNING {mark}",),
    REMOVE: (
        "DELETE FROM {table} WHERE {mark} = 'bob' RETURNING {mark}",
        "WITH gone AS (DELETE FROM {table} WHERE {mark} <> 'ann' RETURNING {mark}) SELECT * FROM gone",
        "DELETE FROM {table} USING {table} AS other WHERE {table}.{mark} <> 'ann' RETURNING {table}.{mark}",
    ),
}
ATTEMPTS = {
    READ: "SELECT count(*) FROM {table}",
    ADD: "INSERT INTO {table} DEFAULT VALUES",
    CHANGE: "UPDATE {table} SET {column} = {column}",
    REMOVE: "DELETE FROM {table}",
}


@pytest.fixture(scope="module")
async def walled(postgres: PostgresServer) -> AsyncIterator[WalledDatabase]:
    async with postgres.database() as url:
        database = WalledDatabase(url)
        await database.fill()
        yield database


@pytest.fixture(scope="module")
async def only_user(walled: WalledDatabase) -> AsyncIterator[str]:
    """A login that may take on the users' role and no other."""
    async with session_on(walled.url) as session:
        await session.execute("CREATE ROLE only_user LOGIN IN ROLE parley_user")
        yield "only_user"
        await session.execute("DROP ROLE only_user")


def said(statement: str, table: str) -> str:
    return statement.format(table=table, mark=mark_of(table))


def verbs(grants: Sequence[str]) -> set[str]:
    return {grant.partition(" ")[0] for grant in grants}


@pytest.mark.parametrize("table", OWNED)
async def test_every_way_to_read_shows_own_rows_alone(walled: WalledDatabase, table: str) -> None:
    async with walled.acting(ANN) as session:
        for statement in READS:
            assert set(await marks(session, said(statement, table))) == {"ann"}, statement


@pytest.mark.parametrize("table", OWNED)
async def test_without_a_user_there_are_no_rows(walled: WalledDatabase, table: str) -> None:
    counting = said("SELECT count({mark}) FROM {table}", table)
    for acting in (Acting(Role.USER), Acting(Role.USER, "nobody")):
        async with walled.acting(acting) as session:
            assert await marks(session, counting) == [0]
    async with walled.acting(OPERATOR) as session:
        await session.execute('SET LOCAL ROLE "parley_user"; RESET parley.user_id')
        assert await marks(session, counting) == [0]
        await session.execute("SET LOCAL ROLE NONE; SET LOCAL parley.user_id = ''")
        assert await marks(session, counting) == [0], "of the owner of the tables, too"


@pytest.mark.parametrize("table", OWNED)
async def test_nobody_elses_row_is_changed_or_removed(walled: WalledDatabase, table: str) -> None:
    allowed = verbs(OWNERSHIP[table].users)
    async with walled.acting(ANN) as session:
        for verb, statements in CHANGES.items():
            for statement in statements:
                if verb in allowed:
                    assert await marks(session, said(statement, table)) == []
                else:
                    await refused(session, said(statement, table))


@pytest.mark.parametrize("table", OWNED)
async def test_nobody_elses_row_is_added_and_no_own_one_given_away(walled: WalledDatabase, table: str) -> None:
    columns = row_of(metadata.tables[table], "bob")
    literals = ", ".join(f"'{value}'" if isinstance(value, str) else repr(value) for value in columns.values())
    values = literals.replace("b'x'", "'x'::bytea")
    async with walled.acting(ANN) as session:
        for end in ("", " ON CONFLICT DO NOTHING"):
            await refused(session, INSERT.format(table, ", ".join(columns), values) + end)
        await refused(session, said("UPDATE {table} SET {mark} = 'bob' WHERE {mark} = 'ann'", table))
        await refused(session, f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize("table", OWNED)
async def test_copy_gives_out_own_rows_and_takes_none(walled: WalledDatabase, table: str) -> None:
    async with walled.acting(ANN) as session:
        taken = bytearray()

        async def take(chunk: bytes) -> None:
            taken.extend(chunk)

        await session.copy_from_query(said("SELECT {mark} FROM {table}", table), output=take)
        assert set(bytes(taken).split()) == {b"ann"}
        with pytest.raises((asyncpg.FeatureNotSupportedError, asyncpg.InsufficientPrivilegeError)):
            await session.copy_records_to_table(table, records=[("bob",)], columns=[mark_of(table)])


@pytest.mark.parametrize("role", [Role.USER, Role.RUN_LOG])
@pytest.mark.parametrize("table", sorted(OWNERSHIP))
async def test_a_role_does_what_its_line_says_and_nothing_else(walled: WalledDatabase, table: str, role: Role) -> None:
    rules = OWNERSHIP[table]
    allowed = verbs(rules.users if role is Role.USER else rules.run_log)
    column = metadata.tables[table].columns[0].name
    async with walled.acting(Acting(role, "ann")) as session:
        for verb in ATTEMPTS.keys() - allowed:
            await refused(session, ATTEMPTS[verb].format(table=table, column=column))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT item_json FROM messages",
        "SELECT words FROM search_texts",
        "SELECT frames FROM run_journal",
        "SELECT spec_json FROM runs",
        "UPDATE runs SET user_id = 'bob'",
        "UPDATE runs SET fencing_token = 0",
        "UPDATE conversations SET user_id = 'bob'",
        "UPDATE approvals SET arguments_json = '{}'",
        "UPDATE tool_calls SET fingerprint = ''",
        "SELECT secret_hash FROM api_keys",
        "UPDATE alembic_version SET version_num = ''",
    ],
)
async def test_the_writer_of_the_run_log_reads_and_changes_nothing_else(walled: WalledDatabase, statement: str) -> None:
    async with walled.acting(Acting(Role.RUN_LOG)) as session:
        await refused(session, statement)


async def test_what_stands_before_a_table_shows_no_more_than_the_table(walled: WalledDatabase) -> None:
    """A view, a function with its owner's rights, and a trigger: made by the owner of the tables, used for ann."""
    async with walled.acting(OPERATOR) as session:
        await session.execute("""
            CREATE VIEW all_notes AS SELECT user_id FROM notes;
            CREATE FUNCTION every_note() RETURNS SETOF varchar LANGUAGE sql SECURITY DEFINER
                AS 'SELECT user_id FROM notes';
            CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN NEW.text = (SELECT string_agg(user_id, '','') FROM notes); RETURN NEW; END';
            CREATE TRIGGER tells BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tell();
            GRANT SELECT ON all_notes TO parley_user;
            SET LOCAL ROLE parley_user; SET LOCAL parley.user_id = 'ann'
        """)
        assert await marks(session, "SELECT user_id FROM all_notes") == ["ann"]
        assert await marks(session, "SELECT every_note()") == ["ann"]
        added = "INSERT INTO notes VALUES ('new', 'ann', '', 1) RETURNING text"
        assert await marks(session, added) == ["ann"]
        assert await marks(session, "SELECT own_texts_with('bob')") == []
        await session.execute("SET LOCAL ROLE parley_run_log")
        await refused(session, "SELECT own_texts_with('bob')")


async def test_a_session_whose_transaction_failed_belongs_to_nobody(walled: WalledDatabase) -> None:
    async with walled.acting(ANN) as session:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await session.execute("SELECT 1 / 0")
        await session.execute('ROLLBACK; BEGIN; SET LOCAL ROLE "parley_user"')
        assert await marks(session, "SELECT user_id FROM conversations") == []
        assert await marks(session, "SELECT nullif(current_setting('parley.user_id', true), '')") == [None]


async def test_a_superuser_who_has_taken_the_role_on_is_behind_the_wall(walled: WalledDatabase) -> None:
    async with walled.acting(ANN, login=SUPERUSER) as session:
        assert await marks(session, "SELECT user_id FROM conversations") == ["ann"]
        await refused(session, "SELECT secret_hash FROM api_keys")


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SET ROLE {name}" for name in ("parley", "parley_administration", "parley_run_log", SUPERUSER)),
        "SET SESSION AUTHORIZATION parley",
        "ALTER TABLE conversations DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE conversations NO FORCE ROW LEVEL SECURITY",
        'DROP POLICY "user" ON conversations',
        "CREATE POLICY everything ON conversations USING (true)",
        "ALTER ROLE parley_user BYPASSRLS",
        "GRANT parley_administration TO parley_user",
        "CREATE TABLE anything (n integer)",
        "CREATE FUNCTION anything() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER anything BEFORE INSERT ON notes FOR EACH STATEMENT EXECUTE FUNCTION tsvector_update_trigger()",
        "SET LOCAL row_security = off; SELECT user_id FROM conversations",
    ],
)
async def test_the_users_role_cannot_leave_itself_or_change_the_wall(
    walled: WalledDatabase, only_user: str, statement: str
) -> None:
    """Of a login that has this role alone: to take on another is the right of whoever has logged in."""
    async with walled.acting(ANN, login=only_user) as session:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(statement)
