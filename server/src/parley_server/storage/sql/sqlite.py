"""SQLite: one writer thread with its one connection, and read-only connections beside it.

WAL with `synchronous=FULL` always: a power cut takes back nothing that was acknowledged.
"""

import asyncio
import itertools
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import NoReturn, Self, TypeVar, cast

import aiosqlite
import structlog
from sqlalchemy import ClauseElement, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from parley_server.domain.errors import ParleyError, StartError, StorageUnavailableError
from parley_server.storage.sql.acting import OPERATOR, Acting, Role
from parley_server.storage.sql.checkpoints import MAX_LOG_BYTES, Checkpoints
from parley_server.storage.sql.database import Row, TransactionLostError
from parley_server.storage.sql.driver import compile_named, transaction
from parley_server.storage.sql.failures import FailureLog, cause_of, unavailable
from parley_server.storage.sql.integrity import refuse_if_damaged
from parley_server.storage.sql.own_views import OwnParameters, open_own, open_unbound
from parley_server.storage.sql.schema import HEAD, SchemaOutdatedError, current_revision, upgrade
from parley_server.storage.sql.sqlite_scrub import vacuum
from parley_server.storage.sql.writer_faults import end_if_unsynced

T = TypeVar("T")

READERS = 2
BUSY_TIMEOUT_S = 5.0
# Of a cursor that is iterated over, which none is.
_ROWS_AT_ONCE = 64

_WRITER_PRAGMAS = (
    # First, because it can only be said of a file that has no tables yet.
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    # SQLite's own checkpoints do not tell of their failures; `Checkpoints` has others made.
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA secure_delete = ON",
    f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}",
    "PRAGMA cache_size = -16384",
)
# A damaged file may even break the engine's words about it.
_FAILURES = (DBAPIError, sqlite3.Error, UnicodeDecodeError)

_log = structlog.get_logger(__name__)
_failures = FailureLog("sqlite")


class SqliteDatabase:
    """Implements `Database` on one SQLite file. Open it with `async with`, inside the loop that uses it.

    `end` ends the process at once, and is called with its exit code when the disk did not confirm what was written.
    """

    def __init__(self, path: Path, *, may_upgrade: bool = True, end: Callable[[int], NoReturn] = os._exit) -> None:
        self._path = path
        self._may_upgrade = may_upgrade
        self._end = end
        self._checkpoints = Checkpoints(_log_of(path), end)
        self._jobs: queue.SimpleQueue[Callable[[Connection], None] | None] = queue.SimpleQueue()
        self._readers: list[aiosqlite.Connection] = []
        self._turn = itertools.count()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the file, upgrading its schema where needed. Raises StartError, with one sentence for the operator."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._write_until_closed, args=(opened,), name="parley-sqlite-writer")
        self._thread.start()
        self._stack.push_async_callback(self._stop_writer)
        try:
            await opened
            self._readers = [await self._open_reader(open_own) for _ in range(READERS)]
            self._unbound = await self._open_reader(open_unbound)
        except BaseException as error:
            await self._stack.aclose()
            if isinstance(error, (*_FAILURES, OSError)):
                raise StartError(_unusable(self._path, error)) from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what is queued and close every connection."""
        await self._stack.aclose()

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        """Run `tx` on the writer thread; see `Database.transaction`."""

        def work(connection: Connection) -> T:
            with transaction(connection):
                result = tx(connection)
                _require_files(connection, self._path)
            return result

        return await self._on_writer(work, self._checkpoints.note_commit)

    async def fetch(
        self, statement: ClauseElement, parameters: Mapping[str, object] | None = None, acting: Acting = OPERATOR
    ) -> Sequence[Row]:
        """Run one read on one of the readers; see `Database.fetch`."""
        compiled = compile_named(statement)
        values = compiled.construct_params(parameters)
        if acting.role is Role.USER:
            reader, values = self._readers[next(self._turn) % READERS], OwnParameters(values, acting.user_id)
        else:
            reader = self._unbound
        try:
            rows = await reader.execute_fetchall(str(compiled), values)
        except _FAILURES as error:
            raise _translate(error) from error
        return cast("Sequence[Row]", rows)

    async def scrub(self, *, is_thorough: bool = False) -> None:
        """Write the file anew, and empty the log; see `Database.scrub`."""

        def work(connection: Connection) -> bool:
            vacuum(connection, self._path, is_thorough=is_thorough)
            return self._checkpoints.try_to_empty_log(connection)

        if not await self._on_writer(work):
            raise StorageUnavailableError

    async def _on_writer(
        self, work: Callable[[Connection], T], afterwards: Callable[[Connection], None] = lambda _: None
    ) -> T:
        """Do some work on the writer thread, and what comes afterwards once its outcome is on its way to the loop."""
        done: asyncio.Future[T] = self._loop.create_future()

        def job(connection: Connection) -> None:
            try:
                result = work(connection)
            except BaseException as error:  # noqa: BLE001  # handed to the waiter, whatever it is
                end_if_unsynced(error, self._end)
                self._loop.call_soon_threadsafe(_break, done, error)
            else:
                self._loop.call_soon_threadsafe(_settle, done, result)
                afterwards(connection)

        self._jobs.put(job)
        try:
            return await done
        except Exception as error:
            raise _translate(error) from error

    async def _open_reader(self, opening: Callable[[Path, float], sqlite3.Connection]) -> aiosqlite.Connection:
        opened = aiosqlite.Connection(partial(opening, self._path, BUSY_TIMEOUT_S), _ROWS_AT_ONCE)
        reader = await self._stack.enter_async_context(opened)
        reader.row_factory = sqlite3.Row
        return reader

    def _write_until_closed(self, opened: asyncio.Future[None]) -> None:
        try:
            # Made here because SQLite would let others read it; what it makes beside it has the same rights.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            if self._may_upgrade:
                refuse_if_damaged(self._path)
            engine = _create_engine(self._path)
            connection = engine.connect()
        except Exception as error:  # noqa: BLE001  # handed to the opener
            end_if_unsynced(error, self._end)
            self._loop.call_soon_threadsafe(_break, opened, error)
            return
        with closing(connection):
            try:
                _prepare(connection, may_upgrade=self._may_upgrade)
                if self._may_upgrade:
                    self._checkpoints.empty_log(connection)
            except Exception as error:  # noqa: BLE001  # handed to the opener
                end_if_unsynced(error, self._end)
                self._loop.call_soon_threadsafe(_break, opened, error)
                return
            self._loop.call_soon_threadsafe(_settle, opened, None)
            while (job := self._jobs.get()) is not None:
                job(connection)

    async def _stop_writer(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _break(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _translate(error: Exception) -> Exception:
    """Make the engine's own failures one documented error; the cause goes to the log, never to a caller."""
    if isinstance(error, (*_FAILURES, TransactionLostError)):
        _failures.tell(error)
        return unavailable(error)
    if not isinstance(error, ParleyError):
        _log.error("transaction_failed", engine="sqlite", exc_info=error)
    return error


def _unusable(path: Path, error: Exception) -> str:
    cause = str(error.strerror) if isinstance(error, OSError) else cause_of(error)
    if isinstance(error, UnicodeDecodeError) or "malformed" in cause or "not a database" in cause:
        return f"{path} is damaged ({cause}); `parley-server db check` says more, `db restore` brings a backup back"
    return f"{path} cannot be used as the database: {cause}"


def _create_engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        # Errors would carry the values of a statement, which are users' words, into the log.
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": True},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        # The driver would open transactions by itself, late and deferred; ours begin below.
        connection.isolation_level = None
        for pragma in _WRITER_PRAGMAS:
            connection.execute(pragma)

    return engine


def _require_files(connection: Connection, path: Path) -> None:
    """See that the files which are open are still those of this name. Raises TransactionLostError.

    SQLite writes on to a file that is deleted or replaced, and all of it would be gone with the process.
    """
    found = [_identity(path), _identity(_log_of(path))]
    if connection.info.setdefault("files", found) != found or None in found:
        raise TransactionLostError(f"{path} is gone or is another file than was opened; restart the server")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _prepare(connection: Connection, *, may_upgrade: bool) -> None:
    with transaction(connection):
        if current_revision(connection) == HEAD:
            return
        if not may_upgrade:
            raise SchemaOutdatedError
        upgrade(connection)
