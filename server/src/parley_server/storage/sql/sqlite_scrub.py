"""Making what was deleted leave a SQLite file.

`secure_delete` writes zeros over what is deleted, where it is. Copies of it are left behind when SQLite moves rows from
page to page, in the part of a page that nothing is in; only writing the file anew leaves them out. Nobody writes
meanwhile, so that is done at once only where it takes about a second; see ADR 18.
"""

import sqlite3
from pathlib import Path

import structlog
from sqlalchemy import Connection

from parley_server.storage.sql.driver import driver_of
from parley_server.storage.sql.failures import is_full

REWRITTEN_BYTES = 128 * 1024 * 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def vacuum(connection: Connection, path: Path, *, is_thorough: bool) -> None:
    """Write the file anew; where it is large or there is no room for it only if that `is_thorough`, else it is logged.

    Raises sqlite3.Error.
    """
    if not is_thorough and path.stat().st_size > REWRITTEN_BYTES:
        _log.warning("deleted_bytes_may_remain", reason="the file is large", hint="`parley-server db compact`")
        return
    try:
        driver_of(connection).execute("VACUUM")
    except sqlite3.Error as error:
        if is_thorough or not is_full(error):
            raise
        _log.warning("deleted_bytes_may_remain", reason="the disk is full", hint="`parley-server db compact`")
