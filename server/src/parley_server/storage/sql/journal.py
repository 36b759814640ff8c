"""The journal's inserts: a row per run and commit, fenced by the token of the run's owner.

What a statement can tell of its rows differs between engines, so this is the one place that asks which it is.
"""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import BigInteger, Connection, LargeBinary, String, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from parley_server.storage.sql import frames
from parley_server.storage.sql.live_run import Sealed
from parley_server.storage.sql.tables import run_journal, runs

# A stale owner's row is not inserted: its fencing token matches no run.
_INSERT_ONE = text(
    "INSERT INTO run_journal (run_id, first_seq, frames) "
    "SELECT run_id, :first_seq, :frames FROM runs "
    "WHERE run_id = :run_id AND fencing_token = :fencing_token AND finish_time IS NULL"
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
_OWNED = select(runs.c.run_id).where(
    runs.c.run_id == bindparam("run_id"),
    runs.c.fencing_token == bindparam("fencing_token"),
    runs.c.finish_time.is_(None),
)
_LAST_ID = select(func.max(run_journal.c.journal_id))


def insert_first(connection: Connection, run_id: str, payload: bytes) -> int:
    """Insert the row of a new run's first event; return its id."""
    row = insert(run_journal).values(run_id=run_id, first_seq=1, frames=frames.pack([payload]))
    (journal_id,) = cast("tuple[int]", connection.execute(row).inserted_primary_key)
    return journal_id


def append(connection: Connection, batches: Sequence[Sealed]) -> list[Sealed]:
    """Insert a row per batch, at most one of each run, and note its id; return the batches of runs that are lost."""
    if connection.dialect.name == "postgresql":
        return _append_all(connection, batches)
    attempt = connection.begin_nested()
    if _append_as_one(connection, batches):
        attempt.commit()
        return []
    attempt.rollback()
    return [batch for batch in batches if not _append_as_one(connection, [batch])]


def append_if_owned(connection: Connection, batch: Sealed) -> bool:
    """Insert one batch's row, where it has events; return whether the run is still its owner's."""
    if batch.events:
        return not append(connection, [batch])
    owner = {"run_id": batch.live.run_id, "fencing_token": batch.live.fencing_token}
    return connection.execute(_OWNED, owner).first() is not None


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


def _append_as_one(connection: Connection, batches: Sequence[Sealed]) -> bool:
    """Insert a row per batch by one statement, which tells how many rows it made but not which."""
    rows = [
        {
            "run_id": batch.live.run_id,
            "first_seq": batch.first_seq,
            "frames": _blob(batch),
            "fencing_token": batch.live.fencing_token,
        }
        for batch in batches
    ]
    if connection.execute(_INSERT_ONE, rows).rowcount != len(batches):
        return False
    # SQLite has one writer at a time, so the ids are the last ones, in order.
    last_id: int = connection.execute(_LAST_ID).scalar_one()
    for journal_id, batch in enumerate(batches, last_id - len(batches) + 1):
        batch.journal_id = journal_id
    return True


def _blob(batch: Sealed) -> bytes:
    return frames.pack(event.payload for event in batch.events)
