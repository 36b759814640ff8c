"""Backups of SQLite: whole, private, checked; what is damaged is neither made nor brought back."""

import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from contract.storage.conftest import context_for
from contract.storage.test_repositories import spec
from contract.storage.test_space import opened, perform
from parley_server.domain.errors import ParleyError, StartError
from parley_server.domain.run_event import RunStarted, TextDelta
from parley_server.storage.page import PageRequest
from parley_server.storage.sql.backup import back_up, restore
from parley_server.storage.sql.integrity import check
from parley_server.storage.sql.sqlite import SqliteDatabase


async def make_database(path: Path) -> None:
    """Leave a database behind in which one run was cut off."""
    async with SqliteDatabase(path) as database, opened(database) as store:
        for n in range(3):
            await perform(store, context_for("ann"), f"text {n}")
        run = (await store.for_user(context_for("ann")).runs.accept(spec("unfinished"), None)).run
        appender = store.worker.appender(run.run_id)
        await appender.begin(RunStarted("m"))
        await appender.append(TextDelta("half"), "item_a")
        await appender.flush()


def changed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


async def test_a_backup_of_an_open_database_has_all_that_is_committed(tmp_path: Path) -> None:
    path, backup, ann = tmp_path / "parley.db", tmp_path / "backup.db", context_for("ann")
    async with SqliteDatabase(path) as database, opened(database) as store:
        conversation_id = await perform(store, ann, "said")
        report = back_up(path, backup)
        assert report.counts == {"conversations": 1, "runs": 1, "messages": 2}
        await perform(store, ann, "later")
        assert back_up(path, backup).counts["runs"] == 2
    assert backup.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup.db", "parley.db"]
    async with SqliteDatabase(backup) as database, opened(database) as store:
        messages = await store.for_user(ann).conversations.messages(conversation_id, PageRequest(9))
        assert len(messages.items) == 2


async def test_a_backup_takes_the_databases_place_and_that_one_is_kept(tmp_path: Path) -> None:
    path, backup = tmp_path / "data" / "parley.db", tmp_path / "backup.db"
    path.parent.mkdir()
    await make_database(path)
    back_up(path, backup)
    # With a log beside it, as a killed server leaves it.
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DELETE FROM run_labels")
        for ending in ("", "-wal"):
            file = Path(f"{path}{ending}")
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for ending in ("", "-wal"):
        (tmp_path / f"{path.name}{ending}").replace(f"{path}{ending}")
    report, former = restore(backup, path)
    assert former is not None
    assert report == check(path) == check(backup)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not Path(f"{path}-wal").exists()
    with closing(sqlite3.connect(path)) as new, closing(sqlite3.connect(former)) as old:
        count = "SELECT count(*) FROM run_labels"
        assert (new.execute(count).fetchone(), old.execute(count).fetchone()) == ((3,), (0,))


async def test_what_does_not_agree_is_found_and_not_restored(tmp_path: Path) -> None:
    faults = {
        "UPDATE runs SET last_seq = last_seq + 1 WHERE finish_time IS NOT NULL": "the log of run",
        "DELETE FROM run_archive": "the log of run",
        "DELETE FROM run_journal": "the log of run",
        "UPDATE run_archive SET frames = substr(frames, 1, 10)": "cannot be read",
        "UPDATE conversations SET active_run_id = NULL": "its conversation is free",
        "UPDATE conversations SET active_run_id = 'x'": "is held by run x",
        "UPDATE runs SET state = 'running'": "does not agree with its end",
        "UPDATE runs SET state = 'waiting_approval' WHERE finish_time IS NULL": "waits for its user",
        (
            "INSERT INTO approvals SELECT 'apr_1', user_id, conversation_id, run_id, 'c', 'book', '', 'write', '{}', "
            "'', '', '', '', 'pending', 0, 0, NULL, NULL, '', NULL FROM runs WHERE finish_time IS NOT NULL LIMIT 1"
        ): "approval apr_1 is pending",
        "DELETE FROM conversations": "belongs to a row of conversations",
        "DELETE FROM messages WHERE ordinal = 0": "has no input message",
        "UPDATE messages SET run_id = 'x'": "is of run x",
        (
            "INSERT INTO messages SELECT 'm', user_id, conversation_id, run_id, run_position, 99, 0, 0, "
            '\'{"call_id":"c","result_id":"result_1"}\' FROM messages WHERE ordinal = 0 LIMIT 1'
        ): "message m names the result result_1, which is missing",
        "INSERT INTO tool_result_contents VALUES ('result_1', '')": "result result_1 is of no conversation",
        "UPDATE alembic_version SET version_num = '9999'": "version 9999",
        "DROP TABLE alembic_version": "version none",
    }
    for n, (fault, told) in enumerate(faults.items()):
        path, live = tmp_path / f"{n}.db", tmp_path / f"live{n}.db"
        await make_database(path)
        assert check(path).problems == ()
        changed(path, fault)
        assert told in "\n".join(check(path).problems), fault
        with pytest.raises(StartError, match="is damaged"):
            restore(path, live)
        with pytest.raises(StartError, match="is damaged"):
            back_up(path, live)
        assert not list(tmp_path.glob("*live*"))


async def test_flipped_bits_are_refused_or_served_and_never_crash(tmp_path: Path) -> None:
    """Whatever opens and reads gets the errors that are known to those above, and `check` finds the damage."""
    path, chance, ann = tmp_path / "parley.db", random.Random(8), context_for("ann")
    await make_database(path)
    whole = path.read_bytes()
    found = 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 8, 64))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        found += bool(check(path).problems)
        with suppress(StartError, ParleyError, ValueError, LookupError):
            async with SqliteDatabase(path) as database, opened(database) as store:
                await store.worker.take_over()
                user = store.for_user(ann)
                for conversation in (await user.conversations.list(PageRequest(9))).items:
                    await user.conversations.messages(conversation.conversation_id, PageRequest(9))
    assert found > 10


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000])
def test_what_is_no_database_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.db"
    file.write_bytes(content)
    assert check(file).problems
    with pytest.raises(StartError, match="damaged"):
        restore(file, tmp_path / "parley.db")
    for missing in (tmp_path / "missing.db", tmp_path):
        with pytest.raises(StartError, match="there is no such"):
            check(missing)
        with pytest.raises(StartError, match="there is no such"):
            back_up(missing, tmp_path / "backup.db")


async def test_a_backup_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "parley.db"
    await make_database(path)
    with pytest.raises(StartError, match="is the database itself"):
        back_up(path, path)
    with pytest.raises(StartError, match="cannot be copied"):
        back_up(path, tmp_path / "missing" / "backup.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StartError, match="folder"):
        back_up(path, tmp_path / "folder")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "parley.db"]
