"""A database that was damaged, or whose log (the WAL) is gone or another's: refused, refused in part, or served."""

import random
import shutil
from pathlib import Path

import pytest
from e2e.conftest import run_agent, run_spec
from e2e.test_store_faults import NOT_SERVING, becomes, connected, create, exists, refused
from parley_server.domain.errors import StartError, StorageUnavailableError
from parley_server.storage.sql.integrity import check
from parley_server.storage.sql.sqlite import SqliteDatabase
from server_process import ServerProcess, running_server
from sqlalchemy import text

Rows = dict[str, list[tuple[object, ...]]]

TABLES = ("conversations", "messages", "runs", "run_archive", "run_journal", "api_keys", "alembic_version")


@pytest.fixture(scope="module")
async def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of a server that was used and killed; what it committed last is in its WAL."""
    with running_server(tmp_path_factory.mktemp("used") / "data") as server:
        async with connected(server) as (stubs, _):
            await run_agent(stubs, run_spec("What is 17 * 23?"))
            for _ in range(20):
                await create(stubs, "x" * 50)
        server.kill()
    assert (server.data_dir / "parley.db-wal").stat().st_size
    return server.data_dir


def copy(used: Path, target: Path) -> Path:
    """Copy the database and its log; return the database's path."""
    target.mkdir()
    for name in ("parley.db", "parley.db-wal"):
        shutil.copy(used / name, target / name)
    return target / "parley.db"


async def rows_of(path: Path) -> Rows | None:
    """Read all there is, as the server does; None where the database is refused, nothing of a table that is."""
    try:
        async with SqliteDatabase(path) as database:
            found: Rows = {}
            for table in TABLES:
                try:
                    rows = await database.fetch(text(f"SELECT * FROM {table}"))  # noqa: S608  # one of ours
                except StorageUnavailableError:
                    continue
                found[table] = [tuple(row) for row in rows]
            return found
    except StartError:
        return None


def differing(rows: Rows, whole: Rows) -> int:
    """Count the rows that are there and should not be, and those that should be."""
    return sum(len(set(rows[table]) ^ set(whole[table])) for table in rows)


async def flip_each(flips: int, used: Path, folder: Path) -> None:
    """Flip one bit, in as many copies: what is not refused or found by `db check` is a bit of one value."""
    chance = random.Random(8)
    whole = await rows_of(copy(used, folder / "whole"))
    assert whole
    for number in range(flips):
        path = copy(used, folder / str(number))
        damaged = chance.choice([path, path.with_name("parley.db-wal")])
        content = bytearray(damaged.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(content)
        rows = await rows_of(path)
        if damaged != path:
            # What follows the bit in the log is as if it had not been written.
            assert rows is None or not check(path).problems, number
        elif rows is not None and not check(path).problems:
            assert differing(rows, whole) <= 2, number
        shutil.rmtree(path.parent)


async def test_no_flipped_bit_is_served_as_another_row(used: Path, tmp_path: Path) -> None:
    await flip_each(40, used, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_no_flipped_bit_of_a_thousand_is_served_as_another_row(used: Path, tmp_path: Path) -> None:
    await flip_each(1000, used, tmp_path)


async def test_a_log_that_is_gone_leaves_what_was_before_it(used: Path, tmp_path: Path) -> None:
    path = copy(used, tmp_path / "data")
    path.with_name("parley.db-wal").unlink()
    assert await rows_of(path) is not None
    assert check(path).problems == ()


async def test_a_log_of_another_database_is_refused_and_left_alone(used: Path, tmp_path: Path) -> None:
    path = copy(used, tmp_path / "data")
    log = path.with_name("parley.db-wal")
    foreign = log.read_bytes()
    # Grown since, and written into the database: the log is that of a former one.
    log.unlink()
    async with SqliteDatabase(path) as database:
        for turn in range(40):
            await database.transaction(
                lambda connection, turn=turn: connection.execute(  # type: ignore[misc]
                    text("CREATE TABLE grown" + str(turn) + " AS SELECT randomblob(9000) AS content")
                )
            )
    log.write_bytes(foreign)
    before = path.read_bytes()
    with pytest.raises(StartError, match="wal is another database's"):
        async with SqliteDatabase(path):
            pass
    assert path.read_bytes() == before
    assert log.read_bytes() == foreign


async def test_a_damaged_database_is_told_with_what_to_do(used: Path, tmp_path: Path) -> None:
    path = copy(used, tmp_path / "data")
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 12] = bytes(4096 * 9)
    path.write_bytes(content)
    server = ServerProcess(path.parent)
    with pytest.raises(AssertionError, match="the server ended"):
        server.start()
    assert server.wait() == 78
    assert "`db restore` brings a backup back" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("name", [".", "parley.db", "parley.db-wal"])
async def test_what_is_deleted_while_it_is_open_takes_nothing_acknowledged_with_it(tmp_path: Path, name: str) -> None:
    with running_server(tmp_path / "data") as server:
        async with connected(server) as (stubs, health):
            kept = await create(stubs)
            gone = server.data_dir / name
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
            await refused(stubs)
            await becomes(health, NOT_SERVING)
            assert await exists(stubs, kept)
            await refused(stubs)
        assert server.is_running


async def test_a_start_writes_into_the_database_what_the_log_holds(used: Path, tmp_path: Path) -> None:
    """What a sync that failed has lost of the log is on the disk then."""
    path = copy(used, tmp_path / "data")
    whole = await rows_of(copy(used, tmp_path / "whole"))
    async with SqliteDatabase(path):
        assert path.with_name("parley.db-wal").stat().st_size == 0
        alone = tmp_path / "alone.db"
        shutil.copy(path, alone)
    assert await rows_of(alone) == whole
