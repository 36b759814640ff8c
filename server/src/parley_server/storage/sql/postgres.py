"""PostgreSQL: one session that writes, and a few read-only ones beside it.

The session that writes holds the locks: a server's own for its life, and in every transaction the writers' lock, so
that a write is alone with the database as it is on SQLite, whoever else (`keys`, a stale server) is connected.

A session that does not answer is given up and ended from another one, so that what it held is free and what it was
doing is decided. If another server has the servers' lock then, this one has been taken over, for good.
"""

import asyncio
import contextvars
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Self, TypeVar

import asyncpg
import structlog
from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from parley_server.domain.errors import ParleyError, StartError, StorageUnavailableError
from parley_server.storage.sql.acting import OPERATOR, Acting
from parley_server.storage.sql.attempt import LOCK_SPACE, Attempt
from parley_server.storage.sql.compilation import Compiler
from parley_server.storage.sql.database import Row, TransactionLostError
from parley_server.storage.sql.failures import is_unavailable, unavailable
from parley_server.storage.sql.postgres_reading import Readers
from parley_server.storage.sql.postgres_scrub import SCRUBBING, scrub
from parley_server.storage.sql.roles import Roles
from parley_server.storage.sql.row_security import require_wall
from parley_server.storage.sql.schema import HEAD, SchemaOutdatedError, current_revision, upgrade

T = TypeVar("T")

READERS = 4
CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 6.0
# For a server that does not even say that it took too long. With the wait for a reader no more than 10 s.
ANSWER_TIMEOUT_S = 7.0
LOCK_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 30.0
IN_DOUBT_TIMEOUT_S = 2.0
# What a start is refused with while another server has the database.
TAKEN_OVER_EXIT_CODE = 78
IN_DOUBT_RETRY_S = 0.25
# A server that was killed holds its lock until the database has noticed.
SERVING_PATIENCE_S = 1.0
SERVING_PAUSE_S = 0.05

# Whose answer says that a commit is on disk; `off` would take back what a client has seen.
_DURABLE = ("on", "remote_apply")

# The number of our advisory lock; see LOCK_SPACE.
SERVING = 1

# What is left of this process's session, and of no other's.
_END_FORMER = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"

_SESSION = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S:.0f}s",
    "lock_timeout": f"{LOCK_TIMEOUT_S:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S:.0f}s",
    "jit": "off",
    # So is a text quoted that a statement takes on a role with.
    "standard_conforming_strings": "on",
    # A session whose host went away must not hold its locks for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_READING = _SESSION | {"application_name": "parley-server reading", "default_transaction_read_only": "on"}
_UPGRADING = _SESSION | {"statement_timeout": "0", "lock_timeout": "0"}

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_log = structlog.get_logger(__name__)


class Purpose(Enum):
    """What a database is opened for, by the function that tries the servers' lock."""

    SERVE = "pg_try_advisory_lock"
    """To serve: no other server may, and no upgrade."""
    ADMINISTER = ""
    """For a command beside a server."""
    UPGRADE = "pg_try_advisory_lock_shared"
    """To upgrade: no server may be running; a second upgrade waits for the first."""


class PostgresDatabase:
    """Implements `Database` on one PostgreSQL database. Open it with `async with`, inside the loop that uses it.

    `end` ends the process, with a code, when another server has taken the database over: nothing that this one still
    does could be kept, and whoever follows its runs finds them at the other. Where it returns, every write raises
    StorageUnavailableError from then on.

    Raises StartError on entry, with one sentence for the operator.
    """

    def __init__(
        self,
        url: str,
        purpose: Purpose = Purpose.ADMINISTER,
        *,
        readers: int = READERS,
        end: Callable[[int], object] = int,
    ) -> None:
        self._url = url
        self._purpose = purpose
        self._max_readers = readers
        self._name = f"parley-server {secrets.token_hex(8)}"
        self._end_process = end
        self._taken_over = False
        self._noticing: asyncio.Task[None] | None = None
        self._engine = create_async_engine(
            # Errors would carry the values of a statement, which are users' words, into the log.
            "postgresql+asyncpg://",
            async_creator=self._open_session,
            poolclass=NullPool,
            hide_parameters=True,
        )
        self._compile = Compiler(self._engine.dialect)
        self._turn = asyncio.Lock()
        self._session: asyncpg.Connection[asyncpg.Record] | None = None
        self._connection: AsyncConnection | None = None
        self._readers = Readers(self._make_readers)
        # None until the wall has been seen to be there: nobody acts before.
        self._roles: Roles | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        """Connect, take the purpose's lock and see to the schema."""
        try:
            await self._open()
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, (StorageUnavailableError, ValueError, *_FAILURES)):
                raise StartError(f"the database of [storage] url cannot be used: {_cause(error)}") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the write that is under way and close every session."""
        self._closing = True
        async with self._turn:
            await self._disconnect()
        await self._readers.close(CONNECT_TIMEOUT_S)

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        """Run `tx` on the session that writes; see `Database.transaction`."""
        async with self._turn:
            attempt = Attempt(tx, self._give_up_session, self._roles)
            try:
                connection = await self._connected()
                return await connection.run_sync(attempt)
            except Exception as error:
                if self._is_usable(error):
                    raise _translate(error) from error
                _log.error("storage_failed", engine="postgresql", error=_cause(error))
                await self._disconnect()
                if isinstance(error, TimeoutError):
                    await self._readers.renew()
                if attempt.results and await self._has_committed(attempt.transaction_id):
                    return attempt.results[0]
                raise unavailable(error) from error
            except BaseException:
                # Left in the middle of something, so nobody may go on with it.
                await self._disconnect()
                raise

    async def fetch(
        self, statement: ClauseElement, parameters: Mapping[str, object] | None = None, acting: Acting = OPERATOR
    ) -> Sequence[Row]:
        """Run one read on one of the readers; see `Database.fetch`."""
        compiled = self._compile(statement)
        values = compiled.construct_params(parameters)
        taking_on = self._taking_on(acting)
        try:
            return await self._readers.fetch(
                str(compiled), [values[name] for name in compiled.positiontup or ()], taking_on
            )
        except _FAILURES as error:
            raise _translate(error) from error

    async def scrub(self, *, is_thorough: bool = False) -> None:
        """Write the tables anew, on a session of its own; see `Database.scrub`."""
        try:
            session = await asyncpg.connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                server_settings=SCRUBBING | {"application_name": f"{self._name} scrubbing"},
            )
            try:
                await scrub(session, is_thorough=is_thorough)
            finally:
                await _end(session)
        except _FAILURES as error:
            raise _translate(error) from error

    def _taking_on(self, acting: Acting) -> str:
        """Return how to take on a role. Raises StorageUnavailableError before it is known which there are."""
        if acting is OPERATOR:
            return ""
        if self._roles is None:
            raise StorageUnavailableError
        return self._roles.taking_on(acting)

    async def _open(self) -> None:
        self._connection = await self._engine.connect()
        await self._readers.open()
        if self._purpose is Purpose.UPGRADE:
            await self.transaction(upgrade)
        elif await self.transaction(current_revision) != HEAD:
            raise SchemaOutdatedError
        self._roles = await self.transaction(require_wall)

    async def _make_readers(self) -> "asyncpg.Pool[asyncpg.Record]":
        return await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._max_readers,
            reset=_keep,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=ANSWER_TIMEOUT_S,
            server_settings=_READING,
        )

    async def _connected(self) -> AsyncConnection:
        if self._taken_over:
            raise StorageUnavailableError
        if self._connection is None:
            try:
                self._connection = await self._engine.connect()
            except _LockRefusedError as error:
                self._taken_over = True
                _log.critical("database_taken_over", exit_code=TAKEN_OVER_EXIT_CODE, hint=str(error))
                self._end_process(TAKEN_OVER_EXIT_CODE)
                raise StorageUnavailableError from error
        return self._connection

    def _give_up_session(self) -> None:
        if self._session is not None:
            self._session.terminate()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        session, self._session = self._session, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()
        if session is not None:
            await _end(session)

    async def _open_session(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Open the session that writes. Raises StartError where it may not."""
        upgrading = self._purpose is Purpose.UPGRADE
        session = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=None if upgrading else ANSWER_TIMEOUT_S,
            server_settings=(_UPGRADING if upgrading else _SESSION) | {"application_name": "parley-server starting"},
        )
        try:
            await session.execute(_END_FORMER, self._name)
            await session.execute("SELECT set_config('application_name', $1, false)", self._name)
            await _require_durability(session)
            await _take_lock(session, self._purpose)
        except BaseException:
            await _end(session)
            raise
        self._session = session
        session.add_termination_listener(self._notice_loss)
        return session

    def _notice_loss(self, lost: object) -> None:
        """See at once what became of the lock when a session ends by itself, and not only with the next write."""
        if lost is self._session and not self._closing:
            loop, nobodys = asyncio.get_running_loop(), contextvars.Context()
            self._noticing = loop.create_task(self._regain(), context=nobodys)

    async def _regain(self) -> None:
        async with self._turn:
            if self._session is not None and not self._session.is_closed():
                return
            try:
                await self._disconnect()
                self._connection = await self._connected()
            except (ParleyError, StartError, *_FAILURES) as error:
                _log.warning("storage_failed", engine="postgresql", error=_cause(error))

    def _is_usable(self, error: Exception) -> bool:
        """Tell whether the session can go on after an error: it is there, and knows where it stands."""
        return self._session is not None and not self._session.is_closed() and not isinstance(error, TimeoutError)

    async def _has_committed(self, transaction_id: str) -> bool:
        """Ask, until there is an answer, what became of a commit whose own answer was lost."""
        while not self._closing:
            try:
                status = await self._status_of(transaction_id)
            except asyncpg.InvalidParameterValueError:
                # Newer than all the restarted server knows: no trace of it had reached the disk.
                return False
            except _FAILURES:
                status = "in progress"
            if status != "in progress":
                return status == "committed"
            await asyncio.sleep(IN_DOUBT_RETRY_S)
        return False

    async def _status_of(self, transaction_id: str) -> object:
        async with self._readers.one() as reader:
            await reader.fetch(_END_FORMER, self._name, timeout=IN_DOUBT_TIMEOUT_S)
            return await reader.fetchval(
                "SELECT pg_xact_status($1::text::xid8)", transaction_id, timeout=IN_DOUBT_TIMEOUT_S
            )


class _LockRefusedError(StartError):
    """Another server has the servers' lock."""


async def _require_durability(session: "asyncpg.Connection[asyncpg.Record]") -> None:
    setting: object = await session.fetchval("SELECT current_setting('synchronous_commit')")
    if setting not in _DURABLE:
        raise StartError(f"the database has synchronous_commit = {setting}, which loses answers; set it to on")


async def _take_lock(session: "asyncpg.Connection[asyncpg.Record]", purpose: Purpose) -> None:
    if purpose is Purpose.ADMINISTER:
        return
    deadline = time.monotonic() + SERVING_PATIENCE_S
    while not await session.fetchval(f"SELECT {purpose.value}($1, $2)", LOCK_SPACE, SERVING):
        if time.monotonic() > deadline:
            raise _LockRefusedError("another parley-server holds the database; stop it or choose another [storage] url")
        await asyncio.sleep(SERVING_PAUSE_S)


async def _end(session: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Close a session, by force where it does not answer."""
    try:
        await session.close(timeout=CONNECT_TIMEOUT_S)
    except _FAILURES:
        session.terminate()


async def _keep(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Reset nothing between two reads: a reader's session is never changed."""


def _translate(error: Exception) -> Exception:
    """Make the engine's own failures one documented error; the cause goes to the log, never to a caller."""
    if isinstance(error, DBAPIError) and not is_unavailable(error):
        return error
    if isinstance(error, (DBAPIError, TransactionLostError, *_FAILURES)):
        _log.error("storage_failed", engine="postgresql", error=_cause(error))
        return unavailable(error)
    if not isinstance(error, ParleyError):
        _log.error("transaction_failed", engine="postgresql", exc_info=error)
    return error


def _cause(error: BaseException) -> str:
    """Say what happened; without the values of a statement or a URL, which the errors' whole texts may have."""
    if isinstance(error, asyncpg.PostgresError | DBAPIError | StartError):
        return str(error.args[0])
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
