"""What follows when the disk does not confirm what was written.

A kernel that could not write a page out may drop it and forget that it has failed: the next fsync succeeds, and the
page is not on the disk. So no fsync is tried again. The process ends as in a crash, with nothing closed, because SQLite
would sync again then; whoever starts it next writes all that the log holds into the database anew.
"""

import sqlite3
from collections.abc import Callable
from typing import NoReturn

import structlog

from parley_server.storage.sql.failures import cause_of, sqlite_code

# EX_IOERR of sysexits.h. A supervisor should start the server again; 78 is what it should not.
SYNC_FAILED_EXIT_CODE = 74

_SYNC_FAILURES = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)

_log = structlog.get_logger(__name__)


def end_if_unsynced(error: BaseException, end: Callable[[int], NoReturn]) -> None:
    """End the process by `end` when an error is, or comes from, a sync that failed; one line of the log says so."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    for each in causes:
        if sqlite_code(each) in _SYNC_FAILURES:
            _log.critical(
                "sync_failed",
                error=cause_of(each),
                exit_code=SYNC_FAILED_EXIT_CODE,
                hint="the disk did not confirm a write; see to the disk, then start the server again",
            )
            end(SYNC_FAILED_EXIT_CODE)
