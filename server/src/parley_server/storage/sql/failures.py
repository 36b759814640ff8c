"""Telling a store that cannot do its work from a statement that is at fault."""

import sqlite3
import time

import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from parley_server.domain.errors import StorageFullError, StorageUnavailableError

# SQLSTATE classes of a statement's own faults: a value out of range, a broken constraint.
_FAULTS = ("22", "23")
_FAULTY = (IntegrityError, DataError, sqlite3.IntegrityError, sqlite3.DataError)
_DISK_FULL = "53100"
_REPEAT_S = 60.0

_log = structlog.get_logger(__name__)


def cause_of(error: BaseException) -> str:
    """Return what the engine said, without what it quotes of a row that it cannot decode."""
    return str(getattr(error, "orig", None) or error).partition(" with text ")[0]


def is_unavailable(error: DBAPIError | sqlite3.Error) -> bool:
    """Tell whether the engine could not do it: busy, full, away, not as the schema says. Trying later may help."""
    state = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
    return not isinstance(error, _FAULTY) and not state.startswith(_FAULTS)


def is_full(error: BaseException) -> bool:
    """Tell whether it failed for want of room on the disk."""
    if getattr(error, "sqlstate", None) == _DISK_FULL or sqlite_code(error) == sqlite3.SQLITE_FULL:
        return True
    # To undo what the engine has undone already fails as well, and that is what is raised then.
    causes = (getattr(error, "orig", None), error.__cause__, error.__context__)
    return any(is_full(cause) for cause in causes if cause is not None)


def sqlite_code(error: BaseException) -> int:
    """Return SQLite's extended result code of an error, of the driver's or around it; 0 where it has none."""
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", 0)
    return code if isinstance(code, int) else 0


def unavailable(error: BaseException) -> StorageUnavailableError:
    """Return what a caller is told of an engine's failure."""
    return StorageFullError() if is_full(error) else StorageUnavailableError()


class FailureLog:
    """Logs the failures of an engine. What is tried again and again fails as often, and is logged once a minute."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._last = ("", 0.0)

    def tell(self, error: BaseException) -> None:
        """Log a failure; from any thread."""
        cause, now = cause_of(error), time.monotonic()
        if cause != self._last[0] or now > self._last[1] + _REPEAT_S:
            self._last = (cause, now)
            _log.error("storage_failed", engine=self._engine, error=cause)
