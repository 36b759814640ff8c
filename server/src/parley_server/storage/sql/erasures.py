"""Erasing users, in small parts, on any engine; see `Erasures`."""

from collections.abc import Iterator
from typing import cast

from sqlalchemy import Connection, Table, delete, insert, select, tuple_

from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.sql import search, space, usage_erasure
from parley_server.storage.sql.account_rows import own_rows, user_column
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Database, Reader
from parley_server.storage.sql.deletion import PartialDeletion
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.tables import conversations, erasures, metadata, runs
from parley_server.storage.sql.user_writer import ErasureGate
from parley_server.storage.sql.writer import Writes

# What one transaction takes on: some milliseconds of work.
ROWS = 200


class SqlErasures:
    """Implements `Erasures`."""

    def __init__(self, database: Database, reader: Reader, writes: Writes, run_log: RunLog, gate: ErasureGate) -> None:
        self._database = database
        self._reader = reader
        self._writes = writes
        self._run_log = run_log
        self._gate = gate
        self._merging = space.Merging()

    async def pending(self) -> tuple[str, ...]:
        """Return who is being erased; see `Erasures.pending`."""
        rows = await self._reader.fetch(select(erasures.c.user_id).order_by(erasures.c.begin_time))
        users = tuple(cast("str", row["user_id"]) for row in rows)
        for user_id in users:
            self._gate.close(user_id)
        return users

    async def begin(self, user_id: str) -> None:
        """Note an erasure; see `Erasures.begin`."""
        now = now_micros()

        def tx(connection: Connection) -> None:
            if connection.execute(select(erasures).where(erasures.c.user_id == user_id)).first() is None:
                connection.execute(insert(erasures).values(user_id=user_id, begin_time=now))

        self._gate.close(user_id)
        try:
            # What became durable late would else be found at the next start, when he has long gone on.
            await self._writes.run(tx, patient=True)
        except StorageUnavailableError:
            self._gate.reopen(user_id, is_erased=False)
            raise

    async def live_runs(self, user_id: str) -> tuple[str, ...]:
        """Return the runs that go on; see `Erasures.live_runs`."""
        # The writer's connection, so that a run whose acceptance is under way counts.
        return await self._writes.run(lambda connection: _live_runs(connection, user_id))

    async def erase_some(self, user_id: str) -> int:
        """Delete a part; see `Erasures.erase_some`."""
        deletion = _Deletion(user_id, ROWS)
        deleted = await self._writes.run(deletion)
        self._run_log.forget(deletion.run_ids)
        return deleted

    async def scrub_some(self) -> int:
        """Do a part for the search; see `Erasures.scrub_some`."""
        return await self._writes.run(self._merging.step)

    async def scrub(self) -> None:
        """Empty the files of what was deleted; see `Erasures.scrub`."""
        await self._database.scrub()

    async def finish(self, user_id: str) -> bool:
        """Note the end; see `Erasures.finish`."""
        deletion = _Deletion(user_id, ROWS)
        is_over = await self._writes.run(lambda connection: _finish(connection, user_id, deletion))
        self._run_log.forget(deletion.run_ids)
        if is_over:
            self._gate.reopen(user_id, is_erased=True)
        return is_over


class _Deletion:
    """Deletes a bounded part of a user's rows, as a callable for the writer; `run_ids` are the runs that are gone."""

    def __init__(self, user_id: str, limit: int) -> None:
        self._user_id = user_id
        self._limit = limit
        self._conversations = PartialDeletion(conversations.c.user_id == user_id, limit)

    @property
    def run_ids(self) -> list[str]:
        return self._conversations.run_ids

    def __call__(self, connection: Connection) -> int:
        """Delete up to about `limit` rows; return how many, 0 when nothing is left."""
        deleted = search.remove_some_of_user(connection, self._user_id, self._limit)
        if deleted < self._limit:
            # Before the tables below, which are emptied of whatever is still his.
            deleted += usage_erasure.disown_some(connection, self._user_id, self._limit)
        if deleted < self._limit:
            deleted += self._conversations(connection)
        for table in _owned_tables():
            if deleted < self._limit:
                deleted += _delete_some(connection, table, self._user_id, self._limit)
        return deleted


def _owned_tables() -> Iterator[Table]:
    """Yield the tables with a user whose rows do not go with a conversation, what refers to others first."""
    for table in reversed(metadata.sorted_tables):
        if table is not erasures and user_column(table) is not None and "conversation_id" not in table.c:
            yield table


def _delete_some(connection: Connection, table: Table, user_id: str, limit: int) -> int:
    key = list(table.primary_key.columns)
    some = select(*key).where(own_rows(table)).limit(limit)
    return connection.execute(delete(table).where(tuple_(*key).in_(some)), {"user_id": user_id}).rowcount


def _live_runs(connection: Connection, user_id: str) -> tuple[str, ...]:
    live = select(runs.c.run_id).where(runs.c.user_id == user_id, runs.c.finish_time.is_(None))
    return tuple(connection.execute(live.order_by(runs.c.run_id)).scalars())


def _finish(connection: Connection, user_id: str, deletion: _Deletion) -> bool:
    if _live_runs(connection, user_id) or deletion(connection):
        return False
    connection.execute(delete(erasures).where(erasures.c.user_id == user_id))
    return True
