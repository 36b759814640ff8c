"""Backing a SQLite database up beside a running server, and bringing a backup back.

Never by copying the file: what it lacks of the last commits stands in the log beside it.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from parley_server.domain.errors import StartError
from parley_server.storage.sql.integrity import Report, check

STEP_PAGES = 1024
_BUSY_TIMEOUT_S = 10.0
_BESIDE = ("-wal", "-shm", "-journal")


def back_up(database: Path, target: Path) -> Report:
    """Write all that is committed when this begins to `target`, checked, in one file that replaces what was there.

    Raises:
        StartError: it cannot be done; `target` is what it was.
    """
    if not database.is_file():
        raise StartError(f"{database}: there is no such database")
    if target.exists() and target.samefile(database):
        raise StartError(f"{target} is the database itself; name another file")
    copy = target.with_name(f".{target.name}.{os.getpid()}")
    with _making(copy):
        report = _copy_checked(database, copy)
        _rename(copy, target)
    return report


def restore(backup: Path, database: Path) -> tuple[Report, Path | None]:
    """Put a backup in the database's place; return what it holds, and where the former database is now.

    Only while no server uses the database.

    Raises:
        StartError: the backup is damaged or cannot be read; the database is what it was.
    """
    _require_sound(backup, check(backup))
    copy = database.with_name(f"{database.name}.restoring")
    with _making(copy):
        report = _copy_checked(backup, copy)
        former = _set_aside(database)
        _rename(copy, database)
    return report, former


@contextmanager
def _making(copy: Path) -> Iterator[None]:
    """Leave no copy behind that has not got its name; raise StartError for what the system refuses."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StartError(f"the database cannot be copied to {copy.parent}: {error}") from error
    finally:
        with suppress(OSError):
            _remove(copy)


def _copy_checked(source: Path, copy: Path) -> Report:
    _copy(source, copy)
    report = check(copy)
    _require_sound(source, report)
    return report


def _copy(source: Path, copy: Path) -> None:
    _remove(copy)
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    reading = sqlite3.connect(
        f"{source.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S
    )
    with closing(reading), closing(sqlite3.connect(copy, isolation_level=None)) as writing:
        # One snapshot for all steps: without it every commit of the server would make the copy begin anew.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        reading.backup(writing, pages=STEP_PAGES, sleep=0)
        # A single file, without a log beside it.
        writing.execute("PRAGMA journal_mode = DELETE").fetchone()
    _sync(copy)


def _set_aside(database: Path) -> Path | None:
    """Give the former database another name, too; what lies beside it goes, or it would be taken for the new one's.

    The name itself stays until the new file takes it: a server that starts in between must not make a fresh one.
    """
    if not database.exists():
        return None
    former = database.with_name(f"{database.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    for ending in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            os.link(f"{database}{ending}", f"{former}{ending}")
    _sync(database.parent)
    for ending in _BESIDE:
        Path(f"{database}{ending}").unlink(missing_ok=True)
    return former


def _require_sound(path: Path, report: Report) -> None:
    if report.problems:
        raise StartError("\n".join(f"{path} is damaged: {problem}" for problem in report.problems))


def _rename(copy: Path, target: Path) -> None:
    copy.replace(target)
    _sync(target.parent)


def _remove(copy: Path) -> None:
    for ending in ("", *_BESIDE):
        Path(f"{copy}{ending}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
