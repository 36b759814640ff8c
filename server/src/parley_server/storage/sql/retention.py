"""Letting go of what is no longer kept, in small parts, on any engine; see `Retention`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection, bindparam, select, update

from parley_server.storage.sql import frames, request_ids, space
from parley_server.storage.sql.audit_log import SqlAuditLog
from parley_server.storage.sql.database import Reader, to_micros
from parley_server.storage.sql.deletion import PartialDeletion, has_expired
from parley_server.storage.sql.rows import blob, number, string
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.tables import conversations, run_archive, runs
from parley_server.storage.sql.writer import Writes

# What one transaction takes on: some milliseconds of work.
ROWS = 200
RUNS = 32
READ_BYTES = 1024 * 1024

_DUE = (
    select(runs.c.run_id)
    .where(runs.c.finish_time.is_not(None), runs.c.folded_seq.is_(None), runs.c.finish_time <= bindparam("ended"))
    .order_by(runs.c.finish_time)
    .limit(RUNS)
)
_NEXT_PAGE = (
    select(run_archive.c.first_seq, run_archive.c.frames)
    .where(run_archive.c.run_id == bindparam("run_id"), run_archive.c.first_seq > bindparam("seq"))
    .order_by(run_archive.c.first_seq)
    .limit(1)
)
_OTHER_TTL = select(conversations.c.conversation_id).where(
    conversations.c.conversation_id > bindparam("place"),
    conversations.c.ttl.is_distinct_from(bindparam("ttl", type_=conversations.c.ttl.type)),
)


_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _FoldedRun:
    """A run's log with its deltas taken out: the pages that changed, by their first seq."""

    run_id: str
    pages: Mapping[int, bytes]
    folded_seq: int
    read_bytes: int


class SqlRetention:
    """Implements `Retention`; `ttl` is how many microseconds a conversation outlives its last change."""

    def __init__(self, reader: Reader, writes: Writes, run_log: RunLog, audit: SqlAuditLog, *, ttl: int | None) -> None:
        self._reader = reader
        self._writes = writes
        self._run_log = run_log
        self._audit = audit
        self._ttl = ttl
        # The last conversation that is known to have the present lifetime, and all before it; None: every one has it.
        self._adopted: str | None = ""
        self._compaction = space.Compaction()

    async def adopt_ttl(self) -> int:
        """Bring conversations under the present lifetime; see `Retention.adopt_ttl`."""
        if self._adopted is None:
            return 0
        statement = _OTHER_TTL.order_by(conversations.c.conversation_id).limit(ROWS)
        rows = await self._reader.fetch(statement, {"place": self._adopted, "ttl": self._ttl})
        ids = [string(row, "conversation_id") for row in rows]
        if ids:
            expire_time = None if self._ttl is None else conversations.c.update_time + self._ttl
            change = update(conversations).where(conversations.c.conversation_id.in_(ids))
            await self._writes.run(
                lambda db: db.execute(change.values(ttl=self._ttl, expire_time=expire_time)).rowcount
            )
        self._adopted = ids[-1] if ids else None
        return len(ids)

    async def delete_expired(self, now: datetime) -> int:
        """Delete a part of what has expired; see `Retention.delete_expired`."""
        deletion = PartialDeletion(has_expired(to_micros(now)), ROWS)
        deleted = await self._writes.run(deletion)
        self._run_log.forget(deletion.run_ids)
        return deleted

    async def forget_request_ids(self, now: datetime) -> int:
        """Drop old request ids; see `Retention.forget_request_ids`."""
        return await self._writes.run(lambda db: request_ids.forget_some(db, to_micros(now), ROWS))

    async def truncate_audit(self, before: datetime) -> int:
        """Take away old entries; see `Retention.truncate_audit`."""
        return await self._audit.truncate(before)

    async def fold(self, ended_before: datetime) -> int:
        """Fold a few runs; see `Retention.fold`."""
        due = await self._reader.fetch(_DUE, {"ended": to_micros(ended_before)})
        folded: list[_FoldedRun] = []
        for row in due:
            folded.append(await self._folded(string(row, "run_id")))
            if sum(run.read_bytes for run in folded) > READ_BYTES:
                break
        if folded:
            await self._writes.run(lambda db: _store(db, folded))
        return len(folded)

    async def compact(self, now: datetime) -> int:
        """Compact a part of the database; see `Retention.compact`."""
        return await self._writes.run(lambda db: self._compaction.step(db, now))

    async def _folded(self, run_id: str) -> _FoldedRun:
        """Read a log, which nobody changes any more, and fold it before the write lock is taken."""
        try:
            return await self._read_and_fold(run_id)
        except ValueError:
            _log.error("run_log_unreadable", run_id=run_id, hint="`parley-server db check` says what is wrong")
            return _FoldedRun(run_id, {}, 0, 0)

    async def _read_and_fold(self, run_id: str) -> _FoldedRun:
        pages: dict[int, bytes] = {}
        folded_seq = seq = read_bytes = 0
        while rows := await self._reader.fetch(_NEXT_PAGE, {"run_id": run_id, "seq": seq}):
            seq, content = number(rows[0], "first_seq"), blob(rows[0], "frames")
            read_bytes += len(content)
            page = frames.fold(seq, content, self._run_log.codec.is_fleeting)
            if page.frames != content:
                pages[seq] = page.frames
            folded_seq = max(folded_seq, page.folded_seq)
        return _FoldedRun(run_id, pages, folded_seq, read_bytes)


def _store(connection: Connection, folded: list[_FoldedRun]) -> None:
    """Write folded runs; of one that was deleted meanwhile there is no row to change."""
    for run in folded:
        for first_seq, content in run.pages.items():
            connection.execute(
                update(run_archive)
                .where(run_archive.c.run_id == run.run_id, run_archive.c.first_seq == first_seq)
                .values(frames=content)
            )
        connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(folded_seq=run.folded_seq))
