"""The run log: all live runs of this process, gathered into the writer's commits.

The one place where events get their numbers. The plain events of all runs go in as one statement; a run whose batch
carries other writes (its start, its end) has a savepoint of its own, so it succeeds or fails as a whole.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection, bindparam, delete

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.run_event import EventCodec, ItemEvent
from parley_server.metrics.recorder import SILENT, Gauge, Recorder
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.sql import acting, archive, journal, usage_writes
from parley_server.storage.sql.archive import ArchiveReader
from parley_server.storage.sql.clock import Clock, utc_now
from parley_server.storage.sql.conclusion import set_attempt, set_attempts
from parley_server.storage.sql.live_run import LiveRun, Sealed, Tx
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import run_journal
from parley_server.storage.sql.writer import Unit, Writer

RETRY_S = 0.25
TAIL_GRACE_S = 10.0
SWEEP_GAP_S = 1.0

# With the run, because SQLite gives a number again once its row is gone, and others delete rows too.
_DELETE = delete(run_journal).where(
    run_journal.c.journal_id == bindparam("id"), run_journal.c.run_id == bindparam("run")
)

_log = structlog.get_logger(__name__)


class RunLog:
    """The live runs of this process, and the archive behind them."""

    def __init__(
        self,
        writer: Writer,
        reader: ArchiveReader,
        codec: EventCodec,
        recorder: Recorder = SILENT,
        clock: Clock = utc_now,
    ) -> None:
        self.clock = clock
        self._writer = writer
        self._recorder = recorder
        self.archive = reader
        self.codec = codec
        self._live: dict[str, LiveRun] = {}
        self._dirty: dict[str, LiveRun] = {}
        self._obsolete: list[tuple[str, int]] = []
        self._sweep_timer: asyncio.TimerHandle | None = None
        writer.feed_from(self._seal)
        recorder.watch(Gauge.RUN_LOG_QUEUE, lambda: len(self._dirty) + writer.waiting_calls)
        recorder.watch(Gauge.RUN_LOG_WATCHERS, lambda: sum(live.watchers for live in tuple(self._live.values())))

    def open(self, live: LiveRun) -> None:
        """Take in a run this process owns."""
        self._recorder.journal(written=len(live.tail.journal_ids))
        self._live[live.run_id] = live

    def find(self, run_id: str) -> LiveRun | None:
        """Return a run whose log is in memory for its owner, the worker: one that is live, or ended a moment ago."""
        return self._live.get(run_id)

    def of_user(self, context: RequestContext, run_id: str) -> LiveRun | None:
        """Return such a run for a user, who has no other's."""
        live = self._live.get(run_id)
        return live if live is not None and live.user_id == context.user_id else None

    async def append(self, live: LiveRun, events: Iterable[ItemEvent], txs: Iterable[Tx] = ()) -> None:
        """Append events and writes that become durable together; wait only when the store is far behind.

        Raises:
            OwnershipLostError: this process no longer owns the run.
        """
        urgent = False
        for body, item_id in events:
            urgent |= live.append(body, item_id)
        for tx in txs:
            live.write(tx)
            urgent = True
        self._mark(live, urgent=urgent)
        while live.is_full:
            await live.changed()

    def end(self, live: LiveRun) -> None:
        """Note that the run's terminal event is durable: its watchers finish, its memory goes after a moment."""
        live.ended = True
        live.wake()
        self._retire(live, live.tail.journal_ids)
        asyncio.get_running_loop().call_later(TAIL_GRACE_S, self._let_go, live)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop what is in memory of runs that are deleted."""
        for run_id in run_ids:
            self._live.pop(run_id, None)

    def close(self) -> None:
        """Stop the timers and let the watchers of unfinished runs go."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for live in self._live.values():
            live.fail(OwnershipLostError(live.run_id))

    def settled(self, batch: Sealed) -> None:
        """Hear that a batch is durable."""
        self._recorder.journal(written=1 if batch.events else 0)
        self._retire(batch.live, batch.live.settle())
        if not batch.live.is_settled:
            self._mark(batch.live, urgent=True)

    def failed(self, batch: Sealed, error: Exception) -> None:
        """Hear that a batch was not written: try again while the store is away, else give the run up."""
        if isinstance(error, StorageUnavailableError):
            batch.is_retry = True
            asyncio.get_running_loop().call_later(RETRY_S, lambda: self._mark(batch.live, urgent=False))
        else:
            _log.error("run_log_append_failed", run_id=batch.live.run_id, error=type(error).__name__)
            batch.live.fail(error)

    def _mark(self, live: LiveRun, *, urgent: bool) -> None:
        self._dirty[live.run_id] = live
        self._writer.request(urgent=urgent)

    def _let_go(self, live: LiveRun) -> None:
        self._live.pop(live.run_id, None)
        live.tail.release()

    def _retire(self, live: LiveRun, journal_ids: Iterable[int]) -> None:
        """Let rows of the journal go in a moment: the archive holds the same events."""
        self._obsolete.extend((live.run_id, journal_id) for journal_id in journal_ids)
        if self._obsolete and self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(SWEEP_GAP_S, self._request_sweep)

    def _request_sweep(self) -> None:
        self._sweep_timer = None
        self._writer.request(urgent=False)

    def _seal(self) -> Sequence[Unit]:
        dirty, self._dirty = self._dirty, {}
        now = self.clock()
        batches = [batch for live in dirty.values() if (batch := self._seal_one(live, now)) is not None]
        units: list[Unit] = [_RunUnit(self, batch) for batch in batches if not _is_plain(batch)]
        if plain := [batch for batch in batches if _is_plain(batch)]:
            units.append(_PlainUnit(self, plain))
        if self._obsolete and self._sweep_timer is None:
            units.append(_SweepUnit(self._obsolete, self._recorder))
            self._obsolete = []
        return units

    def _seal_one(self, live: LiveRun, now: datetime) -> Sealed | None:
        try:
            return live.seal(self.codec, now)
        except Exception as error:  # noqa: BLE001  # an event that cannot be written ends its run's log and no other's
            _log.error("event_not_serializable", run_id=live.run_id, error=type(error).__name__)
            live.fail(OwnershipLostError(live.run_id))
            return None


def _is_plain(batch: Sealed) -> bool:
    """Tell whether a batch can be written with others: a start goes on with a thousand runs at once."""
    return not batch.page and batch.txs in ((), (set_attempt,))


class _RunUnit:
    """One run's batch together with the writes that belong to it."""

    acting = acting.RUN_LOG

    def __init__(self, log: RunLog, batch: Sealed) -> None:
        self._log = log
        self._batch = batch

    def apply(self, connection: Connection) -> None:
        # The fence of every write of a run: the transaction holds the engine's one write lock from here on.
        if not journal.append_if_owned(connection, self._batch):
            raise OwnershipLostError(self._batch.live.run_id)
        archive.insert(connection, self._batch.live.run_id, self._batch.page)
        for tx in self._batch.txs:
            tx(connection, self._batch)
        usage_writes.record(connection, [self._batch])

    def committed(self) -> None:
        self._log.settled(self._batch)

    def failed(self, error: Exception) -> None:
        self._log.failed(self._batch, error)


class _PlainUnit:
    """The plain batches of all runs, in one statement, and in another one the attempts that begin with them."""

    acting = acting.RUN_LOG

    def __init__(self, log: RunLog, batches: list[Sealed]) -> None:
        self._log = log
        self._batches = batches
        self._lost: list[Sealed] = []

    def apply(self, connection: Connection) -> None:
        self._lost = journal.append(connection, self._batches)
        if begun := [batch for batch in self._batches if batch.txs and batch not in self._lost]:
            set_attempts(connection, begun)
        usage_writes.record(connection, [batch for batch in self._batches if batch not in self._lost])

    def committed(self) -> None:
        for batch in self._batches:
            if batch in self._lost:
                self._log.failed(batch, OwnershipLostError(batch.live.run_id))
            else:
                self._log.settled(batch)

    def failed(self, error: Exception) -> None:
        for batch in self._batches:
            self._log.failed(batch, error)


class _SweepUnit:
    """Removes rows of the journal whose events the archive holds."""

    acting = acting.RUN_LOG

    def __init__(self, rows: list[tuple[str, int]], recorder: Recorder) -> None:
        self._rows = rows
        self._recorder = recorder

    def apply(self, connection: Connection) -> None:
        write(connection, _DELETE, *({"run": run_id, "id": journal_id} for run_id, journal_id in self._rows))

    def committed(self) -> None:
        self._recorder.journal(swept=len(self._rows))

    def failed(self, error: Exception) -> None:
        _log.warning("journal_sweep_failed", rows=len(self._rows), error=type(error).__name__)
