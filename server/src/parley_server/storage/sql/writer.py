"""Group commit: one task takes the writes that have queued, runs them in one transaction, then tells each its outcome.

While a commit is under way the next writes queue up, so the batch grows with the load. From one commit to the next pass
2 to 4 ms, twice what commits take at present, unless something urgent waits (measured: the wait costs no throughput and
saves a third of the CPU).
"""

import asyncio
import contextvars
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, Self, TypeVar

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from parley_server.domain.call_errors import ServerOverloadedError
from parley_server.domain.errors import ParleyError, StorageUnavailableError
from parley_server.metrics.recorder import SILENT, Recorder
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.sql.acting import ADMINISTRATION, OPERATOR, Acting, Role
from parley_server.storage.sql.database import Database, TransactionLostError
from parley_server.storage.sql.driver import savepoint
from parley_server.storage.sql.failures import cause_of, is_full, is_unavailable, unavailable

T = TypeVar("T")

COMMIT_GAP_S = 0.002
MAX_COMMIT_GAP_S = 0.004
# The share of its time that the writer is to spend with commits nobody is in a hurry for.
_COMMIT_SHARE = 1 / 2
# How long a caller waits at most; what he then does not know is known by his request id when he asks again.
PATIENCE_S = 8.0
# How long calls may make a commit, in seconds: a crowd of them is written by several, and the events of runs, which all
# go first, wait for none of these much longer.
BATCH_S = 0.25
# Of users' calls no more wait at once: the last of them would be written when nobody waits for it any longer.
MAX_WAITING_CALLS = 2000
# How often a store that could not write is tried while nobody else writes.
PROBE_S = 1.0

_PROBE = text("UPDATE alembic_version SET version_num = version_num")

_log = structlog.get_logger(__name__)


class Unit(Protocol):
    """A piece of a commit that succeeds or fails by itself: under a savepoint of its own, and in a name of its own."""

    @property
    def acting(self) -> Acting:
        """In whose name it writes."""
        ...

    def apply(self, connection: Connection) -> None:
        """Do the writes, on the engine's thread. An exception undoes this unit and no other."""
        ...

    def committed(self) -> None:
        """Hear, on the loop, that the writes are durable."""
        ...

    def failed(self, error: Exception) -> None:
        """Hear, on the loop, that none of the writes happened."""
        ...


class _Call(Generic[T]):
    """A write somebody awaits."""

    def __init__(self, tx: Callable[[Connection], T], done: "asyncio.Future[T]", acting: Acting) -> None:
        self.acting = acting
        self._tx = tx
        self._done = done
        self._results: list[T] = []

    def apply(self, connection: Connection) -> None:
        self._results = [self._tx(connection)]

    def committed(self) -> None:
        if not self._done.done():
            self._done.set_result(self._results[0])

    def failed(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


class Writer:
    """The one task that commits. `source` hands over what the run log has gathered when a batch is sealed."""

    def __init__(self, database: Database, recorder: Recorder = SILENT) -> None:
        self._database = database
        self._recorder = recorder
        self._calls: list[Unit] = []
        # Those that the commit under way has, and will not all get to.
        self._taken = 0
        self._source: Callable[[], Sequence[Unit]] = tuple
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._gap_s = COMMIT_GAP_S
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._available = True
        self._probe: asyncio.TimerHandle | None = None
        self._tell: Callable[[bool], object] = bool

    async def __aenter__(self) -> Self:
        """Start committing."""
        self._task = asyncio.create_task(self._commit_until_closed(), context=contextvars.Context())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Commit what is queued, then stop; what the store does not take at its first try is given up."""
        self._closing = True
        if self._probe is not None:
            self._probe.cancel()
        self.request(urgent=True)
        if self._task is not None:
            await self._task

    def feed_from(self, source: Callable[[], Sequence[Unit]]) -> None:
        """Take units from `source` too, each time a batch is sealed."""
        self._source = source

    def watch_availability(self, tell: Callable[[bool], None]) -> None:
        """Call `tell` when the engine can write no more, and when it can again; it is tried until it can."""
        self._tell = tell

    @property
    def waiting_calls(self) -> int:
        """The writes that wait for the next commit, besides those of the source."""
        return len(self._calls)

    def request(self, *, urgent: bool) -> None:
        """Ask for a commit; an urgent one skips the gap."""
        self._wanted.set()
        if urgent:
            self._urgent.set()

    async def run(self, tx: Callable[[Connection], T], *, patient: bool = False, acting: Acting = OPERATOR) -> T:
        """Run one write in the next commit and return its result once that is durable; see also `Writes`.

        `patient` waits for the outcome however long that is unknown: for work that must go on when it has happened.

        Raises:
            ParleyError: raised by `tx`, whose writes are undone.
            ServerOverloadedError: it is a user's, and as many wait as may.
            StorageUnavailableError: the engine could not write, or has not answered within PATIENCE_S.
        """
        if acting.role is Role.USER and len(self._calls) + self._taken >= MAX_WAITING_CALLS:
            raise ServerOverloadedError
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(tx, done, acting)
        self._calls.append(call)
        self.request(urgent=True)
        try:
            async with asyncio.timeout(None if patient else PATIENCE_S):
                return await done
        except TimeoutError:
            if call in self._calls:
                self._calls.remove(call)
            raise StorageUnavailableError from None

    async def _commit_until_closed(self) -> None:
        loop = asyncio.get_running_loop()
        next_start = 0.0
        while True:
            await self._wanted.wait()
            await self._wait_until(next_start)
            self._wanted.clear()
            self._urgent.clear()
            next_start = loop.time() + self._gap_s
            events, calls = list(self._source()), self._take_calls()
            self._taken = len(calls)
            if events or calls:
                await self._commit(events, calls)
            self._taken = 0
            if self._closing and not ((events or calls) and self._available):
                # What comes back from a store that is away would come back for ever.
                for call in self._take_calls():
                    call.failed(StorageUnavailableError())
                return

    async def _wait_until(self, moment: float) -> None:
        delay = moment - asyncio.get_running_loop().time()
        if delay > 0 and not self._urgent.is_set():
            timer = asyncio.get_running_loop().call_later(delay, self._urgent.set)
            await self._urgent.wait()
            timer.cancel()

    def _take_calls(self) -> list[Unit]:
        calls, self._calls = self._calls, []
        return calls

    async def _commit(self, events: list[Unit], calls: list[Unit]) -> None:
        start = time.perf_counter()
        overdue = asyncio.get_running_loop().call_later(PATIENCE_S, self._note_availability, False)
        units = [*events, *calls]
        try:
            failures = await self._database.transaction(partial(_apply_all, events, calls))
        except Exception as error:  # noqa: BLE001  # every unit hears why its batch failed
            failures = [error] * len(units)
        overdue.cancel()
        took_s = time.perf_counter() - start
        self._gap_s = min(max(COMMIT_GAP_S, (self._gap_s + took_s / _COMMIT_SHARE) / 2), MAX_COMMIT_GAP_S)
        self._recorder.committed(len(failures), took_s)
        if len(failures) < len(units):
            self._calls[:0] = units[len(failures) :]
            self.request(urgent=True)
        told = [None if failure is None else _told(failure) for failure in failures]
        self._note_availability(not any(isinstance(error, StorageUnavailableError) for error in told))
        for unit, outcome in zip(units, told, strict=False):
            if outcome is None:
                unit.committed()
            else:
                unit.failed(outcome)
        if self._closing:
            self._wanted.set()

    def _note_availability(self, available: bool) -> None:
        if available != self._available:
            self._available = available
            _log.warning("store_available_again" if available else "store_unavailable")
            self._tell(available)
        if not available and self._probe is None and not self._closing:
            self._probe = asyncio.get_running_loop().call_later(PROBE_S, self._send_probe)

    def _send_probe(self) -> None:
        self._probe = None
        if not self._available:
            self._calls.append(_Probe())
            self.request(urgent=False)


class Writes:
    """Writes in one name: all that a repository is given to write with."""

    def __init__(self, writer: Writer, acting: Acting) -> None:
        self._writer = writer
        self._acting = acting

    async def run(self, tx: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run one write; see `Writer.run`."""
        return await self._writer.run(tx, patient=patient, acting=self._acting)


class _Probe:
    """A write that changes nothing; the commit it is in says what there is to know."""

    acting = ADMINISTRATION

    def apply(self, connection: Connection) -> None:
        connection.execute(_PROBE)

    def committed(self) -> None:
        pass

    def failed(self, error: Exception) -> None:
        pass


def _apply_all(events: list[Unit], calls: list[Unit], connection: Connection) -> list[Exception | None]:
    """Apply all events, then calls for BATCH_S, at least one; return what became of them, as far as it got."""
    failures = [_apply(unit, connection) for unit in events]
    end = time.perf_counter() + BATCH_S
    for unit in calls:
        failures.append(_apply(unit, connection))
        if time.perf_counter() > end:
            break
    return failures


def _apply(unit: Unit, connection: Connection) -> Exception | None:
    try:
        with savepoint(connection, unit.acting):
            unit.apply(connection)
    except (TransactionLostError, OSError, TimeoutError):
        # The engine is gone in the middle of it, so nothing of the batch is stored.
        raise
    except Exception as error:
        if is_full(error):
            # It may have ended the transaction, and nothing else could be written either.
            raise
        # One faulty write must not undo its neighbours.
        return error
    return None


def _told(failure: Exception) -> Exception:
    """Log what a unit's waiter is not told, and return what it is."""
    if isinstance(failure, (DBAPIError, sqlite3.Error)) and is_unavailable(failure):
        _log.error("write_failed", error=cause_of(failure))
        return unavailable(failure)
    if not isinstance(failure, (ParleyError, OwnershipLostError)):
        _log.error("write_failed", exc_info=failure)
    return failure
