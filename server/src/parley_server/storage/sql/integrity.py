"""Looking a SQLite database over: its pages, and what must agree in what they hold."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from parley_server.domain.errors import StartError
from parley_server.storage.sql import frames
from parley_server.storage.sql.failures import cause_of
from parley_server.storage.sql.schema import HEAD

MAX_PROBLEMS = 20
# What is looked over after a crash: more would keep the server from serving for seconds.
MAX_LOOKED_OVER_BYTES = 256 * 1024 * 1024

# Each row is a problem; `?` stands for nothing, the words are ours and the ids the server's.
_DISAGREEMENTS = (
    (
        "SELECT 'message ' || message_id || ' is of run ' || run_id || ', which is missing' FROM messages "
        "WHERE run_id <> '' AND run_id NOT IN (SELECT run_id FROM runs)"
    ),
    (
        "SELECT 'message ' || message_id || ' names the result ' || named || ', which is missing' FROM ("
        "SELECT message_id, conversation_id, json_extract(item_json, '$.result_id') AS named FROM messages "
        "WHERE substr(item_json, 1, 10) = '{\"call_id\"') AS calls WHERE named <> '' AND NOT EXISTS (SELECT 1 "
        "FROM tool_results JOIN tool_result_contents USING (result_id) WHERE result_id = named "
        "AND tool_results.conversation_id = calls.conversation_id)"
    ),
    (
        "SELECT 'result ' || result_id || ' is of no conversation' FROM tool_result_contents "
        "WHERE result_id NOT IN (SELECT result_id FROM tool_results)"
    ),
    (
        "SELECT 'run ' || run_id || ' has no input message' FROM runs "
        "WHERE NOT EXISTS (SELECT 1 FROM messages WHERE messages.conversation_id = runs.conversation_id "
        "AND messages.run_position = runs.position AND messages.ordinal = 0)"
    ),
    (
        "SELECT 'conversation ' || conversation_id || ' is held by run ' || active_run_id || ', which is over' "
        "FROM conversations WHERE active_run_id IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM runs WHERE runs.run_id = active_run_id AND finish_time IS NULL "
        "AND runs.conversation_id = conversations.conversation_id)"
    ),
    (
        "SELECT 'run ' || run_id || ' is unfinished and its conversation is free' FROM runs JOIN conversations "
        "USING (conversation_id) WHERE finish_time IS NULL AND active_run_id IS NULL"
    ),
    (
        "SELECT 'run ' || run_id || ' is ' || state || ', which does not agree with its end' FROM runs "
        "WHERE (state IN ('succeeded', 'failed', 'cancelled', 'expired')) <> (finish_time IS NOT NULL)"
    ),
    (
        "SELECT 'run ' || run_id || ' waits for its user, who is asked nothing' FROM runs "
        "WHERE state = 'waiting_approval' AND run_id NOT IN (SELECT run_id FROM approvals)"
    ),
    (
        "SELECT 'approval ' || approval_id || ' is pending, and run ' || run_id || ' is over' "
        "FROM approvals JOIN runs USING (run_id) WHERE approvals.state = 'pending' AND finish_time IS NOT NULL"
    ),
)
_ARCHIVES = (
    "SELECT run_id, last_seq, first_seq, frames FROM runs LEFT JOIN run_archive USING (run_id) "
    "WHERE finish_time IS NOT NULL ORDER BY run_id, first_seq"
)
_JOURNALS = (
    "SELECT run_id, NULL, first_seq, frames FROM ("
    "SELECT run_id, first_seq, frames, 0 AS place FROM runs JOIN run_archive USING (run_id) WHERE finish_time IS NULL "
    "UNION ALL SELECT run_id, first_seq, frames, journal_id "
    "FROM runs LEFT JOIN run_journal USING (run_id) WHERE finish_time IS NULL"
    ") ORDER BY run_id, place, first_seq"
)
_COUNTED = ("conversations", "runs", "messages")

LogRow = tuple[str, int | None, int | None, bytes]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: what is wrong, at most MAX_PROBLEMS of it, and how many rows there are of each kind."""

    problems: tuple[str, ...]
    counts: dict[str, int]


def check(path: Path) -> Report:
    """Look a database over as it stands at one moment; a server may be using it.

    Raises:
        StartError: there is no such file.
    """
    if not path.is_file():
        raise StartError(f"{path}: there is no such file")
    problems: list[str] = []
    counts: dict[str, int] = {}
    try:
        with closing(_opened(path)) as database:
            database.execute("BEGIN")
            for problem in _problems(database):
                problems.append(problem)
                if len(problems) == MAX_PROBLEMS:
                    break
            if not problems:
                counts = {table: _count(database, table) for table in _COUNTED}
    except (sqlite3.Error, UnicodeDecodeError) as error:
        problems.append(cause_of(error))
    return Report(tuple(problems), counts)


def refuse_if_damaged(path: Path) -> None:
    """See that what a crash has left in a database and its log fits together, before a log is written into it.

    SQLite takes any log by its name, also one that was left beside a database that was replaced. Nothing is done where
    there is no log, or very much to look at.

    Raises:
        StartError: it does not fit.
    """
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size) or path.stat().st_size > MAX_LOOKED_OVER_BYTES:
        return
    try:
        with closing(_opened(path)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        # Busy or out of reach, which the server itself will meet and tell.
        return
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        found = cause_of(error)
    if found != "ok":
        raise StartError(
            f"{path} is damaged, or {log.name} is another database's ({' '.join(str(found).split())}); "
            "`parley-server db check` says more, `db restore` brings a backup back"
        )


def _opened(path: Path) -> sqlite3.Connection:
    """Open to read: whoever may write would write the log into the database when he closes it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _problems(database: sqlite3.Connection) -> Iterator[str]:
    damage = [str(text) for (text,) in database.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})") if text != "ok"]
    yield from damage
    if damage:
        # What is on damaged pages tells nothing.
        return
    revision = _revision(database)
    if revision != HEAD:
        yield f"the schema is of version {revision or 'none'}, and this program's is {HEAD}"
        return
    for table, row_id, parent, _ in database.execute("PRAGMA foreign_key_check"):
        yield f"row {row_id} of {table} belongs to a row of {parent} that is missing"
    for statement in _DISAGREEMENTS:
        yield from (str(text) for (text,) in database.execute(statement))
    yield from _gaps(database.execute(_ARCHIVES))
    yield from _gaps(database.execute(_JOURNALS))


def _gaps(rows: Iterable[LogRow]) -> Iterator[str]:
    """Yield a problem for each run whose log is not 1, 2, 3 up to its end."""
    for (run_id, last_seq), pages in groupby(rows, key=itemgetter(0, 1)):
        next_seq = 1
        try:
            for _, _, first_seq, content in pages:
                # A commit whose outcome nobody heard was tried again: its events are there twice.
                if first_seq is not None and first_seq <= next_seq:
                    next_seq = max(next_seq, frames.read_page(first_seq, content).last_seq + 1)
        except ValueError as error:
            yield f"the log of run {run_id} cannot be read: {error}"
            continue
        if next_seq == 1 or (last_seq is not None and next_seq != last_seq + 1):
            yield f"the log of run {run_id} ends with {next_seq - 1} in place of {last_seq or 'its first event'}"


def _revision(database: sqlite3.Connection) -> str | None:
    has_table = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").fetchone()
    row = database.execute("SELECT version_num FROM alembic_version").fetchone() if has_table else None
    return None if row is None else str(row[0])


def _count(database: sqlite3.Connection, table: str) -> int:
    (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # one of ours
    return int(count)
