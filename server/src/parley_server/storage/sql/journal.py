"""The journal's inserts: a row per run and commit, fenced by the token of the run's owner.

What a statement can tell of its rows differs between engines, so this asks which it is.
"""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import ARRAY, BigInteger, Connection, LargeBinary, String, bindparam, insert, select, text

from parley_server.storage.sql import frames
from parley_server.storage.sql.driver import driver_of, savepoint
from parley_server.storage.sql.live_run import LiveRun, Sealed
from parley_server.storage.sql.statements import first, write
from parley_server.storage.sql.tables import run_journal, runs

# A stale owner's row is not inserted: its fencing token matches no run.
_INSERT_ONE = (
    "INSERT INTO run_journal (run_id, first_seq, frames) "
    "SELECT run_id, ?, ? FROM runs WHERE run_id = ? AND fencing_token = ? AND finish_time IS NULL"
)
_INSERT_ALL = text(
    "INSERT INTO run_journal (run_id, first_seq, frames) "
    "SELECT run_id, first_seq, frames "
    "FROM unnest(:run_ids, :first_seqs, :blobs, :tokens) AS batch (run_id, first_seq, frames, fencing_token) "
    "JOIN runs USING (run_id, fencing_token) WHERE finish_time IS NULL "
    "RETURNING run_id, journal_id"
).bindparams(
    bindparam("run_ids", type_=ARRAY(String)),
    bindparam("first_seqs", type_=ARRAY(BigInteger)),
    bindparam("blobs", type_=ARRAY(LargeBinary)),
    bindparam("tokens", type_=ARRAY(BigInteger)),
)
_INSERT = insert(run_journal)
_OWNED = select(runs.c.run_id).where(
    runs.c.run_id == bindparam("run_id"),
    runs.c.fencing_token == bindparam("fencing_token"),
    runs.c.finish_time.is_(None),
)
_SAME = select(run_journal.c.journal_id).where(
    run_journal.c.run_id == bindparam("run_id"),
    run_journal.c.first_seq == bindparam("first_seq"),
    run_journal.c.journal_id != bindparam("journal_id"),
)
_LAST_ID = "SELECT max(journal_id) FROM run_journal"


def insert_first(connection: Connection, run_id: str, payload: bytes) -> int:
    """Insert the row of a new run's first event; return its id."""
    row = {"run_id": run_id, "first_seq": 1, "frames": frames.pack([payload])}
    if connection.dialect.name == "postgresql":
        (journal_id,) = cast("tuple[int]", connection.execute(_INSERT, row).inserted_primary_key)
        return journal_id
    write(connection, _INSERT, row)
    return _last_id(connection)


def append(connection: Connection, batches: Sequence[Sealed]) -> list[Sealed]:
    """Insert a row per batch, at most one of each run, and note its id; return the batches of runs that are lost."""
    if connection.dialect.name == "postgresql":
        return _append_all(connection, batches)
    try:
        with savepoint(connection):
            _append_as_one(connection, batches)
    except _NotAllOwnedError:
        return [batch for batch in batches if not _append_alone(connection, batch)]
    return []


def append_if_owned(connection: Connection, batch: Sealed) -> bool:
    """Insert one batch's row, where it has events; return whether the run is still its owner's."""
    if batch.events:
        return not append(connection, [batch])
    return is_owned(connection, batch.live)


def is_owned(connection: Connection, live: LiveRun) -> bool:
    """Tell whether a run is under way and still its owner's."""
    owner = {"run_id": live.run_id, "fencing_token": live.fencing_token}
    return first(connection, _OWNED, owner) is not None


def is_there_twice(connection: Connection, batch: Sealed) -> bool:
    """Tell whether a batch that was inserted now was inserted before: it is then that another commit had succeeded."""
    same = {"run_id": batch.live.run_id, "first_seq": batch.first_seq, "journal_id": batch.journal_id}
    return first(connection, _SAME, same) is not None


def _append_all(connection: Connection, batches: Sequence[Sealed]) -> list[Sealed]:
    parameters = {
        "run_ids": [batch.live.run_id for batch in batches],
        "first_seqs": [batch.first_seq for batch in batches],
        "blobs": [_blob(batch) for batch in batches],
        "tokens": [batch.live.fencing_token for batch in batches],
    }
    journal_ids = {row.run_id: row.journal_id for row in connection.execute(_INSERT_ALL, parameters)}
    for batch in batches:
        batch.journal_id = journal_ids.get(batch.live.run_id, 0)
    return [batch for batch in batches if batch.live.run_id not in journal_ids]


class _NotAllOwnedError(Exception):
    """Some rows were not inserted; which, SQLite does not tell."""


def _append_as_one(connection: Connection, batches: Sequence[Sealed]) -> None:
    rows = [(batch.first_seq, _blob(batch), batch.live.run_id, batch.live.fencing_token) for batch in batches]
    if driver_of(connection).executemany(_INSERT_ONE, rows).rowcount != len(batches):
        raise _NotAllOwnedError
    # SQLite has one writer at a time, so the ids are the last ones, in order.
    last_id = _last_id(connection)
    for journal_id, batch in enumerate(batches, last_id - len(batches) + 1):
        batch.journal_id = journal_id


def _append_alone(connection: Connection, batch: Sealed) -> bool:
    try:
        _append_as_one(connection, [batch])
    except _NotAllOwnedError:
        return False
    return True


def _last_id(connection: Connection) -> int:
    return cast("int", driver_of(connection).execute(_LAST_ID).fetchone()[0])


def _blob(batch: Sealed) -> bytes:
    return frames.pack(event.payload for event in batch.events)
