"""When what SQLite's log (the WAL) holds goes into the database itself.

SQLite would do it by itself after a commit, and keep to itself what went wrong then: a sync that failed would be tried
again by the next commit, as if it could be. So it is asked for.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

from sqlalchemy import Connection

from parley_server.storage.sql.failures import FailureLog
from parley_server.storage.sql.writer_faults import end_if_unsynced

# Pages of the log, as SQLite has it.
AIM_PAGES = 1000
MAX_COMMITS = 128
READERS_PATIENCE_MS = 200
# Also what SQLite cuts the file down to.
MAX_LOG_BYTES = 16 * 1024 * 1024

_failures = FailureLog("sqlite")


class Checkpoints:
    """Asks for a checkpoint when the log has about AIM_PAGES. All methods run on the writer's thread.

    The pages of a commit are told by a checkpoint alone, so that the next one is set by what the last one has found.
    The size of the file `log` says less, for what was used is used again; but much is much.
    """

    def __init__(self, log: Path, end: Callable[[int], NoReturn]) -> None:
        self._log = log
        self._end = end
        self._commits = 0
        self._due = MAX_COMMITS

    def note_commit(self, connection: Connection) -> None:
        """Hear that there is one more commit in the log."""
        self._commits += 1
        if self._commits >= self._due or self._has_much():
            pages = self._checkpoint(connection, "PASSIVE")
            self._due = min(max(self._commits * AIM_PAGES // max(pages, 1), 1), MAX_COMMITS)
            self._commits = 0

    def empty_log(self, connection: Connection) -> None:
        """Write all that a former process has left in the log into the database, and begin an empty log.

        It may have ended because a sync failed. What the log seems to hold is on the disk once it is written again.
        """
        self._checkpoint(connection, "TRUNCATE")

    def try_to_empty_log(self, connection: Connection) -> bool:
        """Do as `empty_log` does, unless somebody goes on reading from the log; return whether it is empty."""
        driver_connection = cast("sqlite3.Connection", connection.connection.dbapi_connection)
        (former_ms,) = driver_connection.execute("PRAGMA busy_timeout").fetchone()
        # Nobody writes as long as this waits.
        driver_connection.execute(f"PRAGMA busy_timeout = {READERS_PATIENCE_MS}")
        self._checkpoint(connection, "TRUNCATE")
        driver_connection.execute(f"PRAGMA busy_timeout = {former_ms}")
        return not self._log.exists() or self._log.stat().st_size == 0

    def _has_much(self) -> bool:
        try:
            return self._log.stat().st_size > MAX_LOG_BYTES
        except OSError:
            # Whoever commits next is told that it is gone.
            return False

    def _checkpoint(self, connection: Connection, mode: str) -> int:
        """Return the pages in the log, also those that stay there because somebody reads them; 0 when it failed."""
        driver_connection = cast("sqlite3.Connection", connection.connection.dbapi_connection)
        try:
            _, pages, _ = driver_connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            # The log still has everything, and the next checkpoint begins anew.
            end_if_unsynced(error, self._end)
            _failures.tell(error)
            return 0
        return int(pages)
