"""The worker's door on any SQL engine: taking over what a dead owner left, and the pen of each run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, select, update

from parley_server.domain.run import RunState
from parley_server.domain.run_event import (
    AttemptRestarted,
    EventBody,
    ItemEvent,
    RunFinished,
    RunStarted,
    StoredEvent,
)
from parley_server.domain.tool import CallRecord
from parley_server.storage.run_log import OwnershipLostError, RunAppender, RunConclusion
from parley_server.storage.sql import frames, tool_calls
from parley_server.storage.sql.conclusion import Ending, set_attempt, set_running
from parley_server.storage.sql.database import Row
from parley_server.storage.sql.live_run import LiveRun
from parley_server.storage.sql.rows import number, stored_run_of
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.tables import conversations, run_journal, runs
from parley_server.storage.sql.writer import Writer
from parley_server.storage.worker_store import InterruptedRun, StoredRun

_UNFINISHED = runs.c.finish_time.is_(None)
_UNFINISHED_RUNS = (
    select(runs, (conversations.c.active_run_id == runs.c.run_id).label("is_active"))
    .join(conversations)
    .where(_UNFINISHED)
    .order_by(runs.c.run_id)
)


class SqlRunAppender:
    """Implements `RunAppender` over the run log."""

    def __init__(self, live: LiveRun, run_log: RunLog, writer: Writer) -> None:
        self._live = live
        self._run_log = run_log
        self._writer = writer

    @property
    def run_id(self) -> str:
        """The run."""
        return self._live.run_id

    async def append(self, body: EventBody, item_id: str = "") -> None:
        """Append one event; see `RunAppender.append`."""
        events = [(body, item_id)]
        await self._run_log.append(self._live, events, tool_calls.writes_of(events))

    async def append_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        """Append events as one; see `RunAppender.append_all`."""
        await self._run_log.append(self._live, events, tool_calls.writes_of(events, calls))

    async def dispatch(self, call_ids: Sequence[str]) -> None:
        """Set calls DISPATCHED; see `RunAppender.dispatch`."""
        await self._run_log.append(self._live, (), [tool_calls.dispatched(call_ids)])
        await self._live.settled()

    async def flush(self) -> None:
        """Wait for durability; see `RunAppender.flush`."""
        await self._live.settled()

    async def begin(self, body: RunStarted) -> None:
        """Append `run_started`; see `RunAppender.begin`."""
        await self._run_log.append(self._live, [(body, "")], [set_running])

    async def restart(self, body: AttemptRestarted) -> None:
        """Begin the next attempt; see `RunAppender.restart`."""
        self._live.attempt = body.attempt
        await self._run_log.append(self._live, [(body, "")], [set_attempt])
        await self._live.settled()

    async def mark_cancelling(self) -> None:
        """Set the run CANCELLING; see `RunAppender.mark_cancelling`."""
        owned = (
            runs.c.run_id == self._live.run_id,
            runs.c.fencing_token == self._live.fencing_token,
            runs.c.finish_time.is_(None),
        )

        def tx(connection: Connection) -> None:
            if not connection.execute(update(runs).where(*owned).values(state=RunState.CANCELLING)).rowcount:
                raise OwnershipLostError(self._live.run_id)

        await self._writer.run(tx)

    async def finish(self, conclusion: RunConclusion, events: Sequence[ItemEvent] = ()) -> str:
        """End the run; see `RunAppender.finish`."""
        ending = Ending(conclusion)
        body = RunFinished(conclusion.end, conclusion.usage, conclusion.output_item_id)
        await self._run_log.append(self._live, [*events, (body, "")], [*tool_calls.writes_of(events), ending])
        await self._live.settled()
        self._run_log.end(self._live)
        return ending.next_run_id


class SqlWorkerStore:
    """Implements `WorkerStore`."""

    def __init__(self, writer: Writer, run_log: RunLog) -> None:
        self._writer = writer
        self._run_log = run_log

    async def take_over(self) -> tuple[list[InterruptedRun], list[StoredRun]]:
        """Become the owner of every unfinished run; see `WorkerStore.take_over`."""
        interrupted: list[InterruptedRun] = []
        unstarted: list[StoredRun] = []
        for left in await self._writer.run(_take_over):
            stored = stored_run_of(left.row)
            live = LiveRun(stored.run, stored.context.user_id, fencing_token=number(left.row, "fencing_token"))
            live.journal_ids.extend(left.journal_ids)
            self._run_log.open(live, left.events)
            if stored.run.state is RunState.QUEUED:
                unstarted.append(stored)
            else:
                decoded = tuple(self._run_log.codec.decode(event.payload) for event in left.events)
                interrupted.append(InterruptedRun(stored, decoded, tuple(left.calls)))
        return interrupted, unstarted

    def appender(self, run_id: str) -> RunAppender:
        """Return a run's pen; see `WorkerStore.appender`."""
        live = self._run_log.find(run_id)
        if live is None or live.ended:
            raise OwnershipLostError(run_id)
        return SqlRunAppender(live, self._run_log, self._writer)


@dataclass(slots=True)
class _Left:
    """An unfinished run as its dead owner left it."""

    row: Row
    events: list[StoredEvent] = field(default_factory=list)
    journal_ids: list[int] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)


def _take_over(connection: Connection) -> list[_Left]:
    connection.execute(update(runs).where(_UNFINISHED).values(fencing_token=runs.c.fencing_token + 1))
    finished = select(runs.c.run_id).where(runs.c.finish_time.is_not(None))
    connection.execute(delete(run_journal).where(run_journal.c.run_id.in_(finished)))
    left = {row["run_id"]: _Left(dict(row)) for row in connection.execute(_UNFINISHED_RUNS).mappings()}
    for row in connection.execute(select(run_journal).order_by(run_journal.c.journal_id)):
        run = left[row.run_id]
        run.journal_ids.append(row.journal_id)
        # A commit whose outcome nobody heard was tried again: its events are there twice.
        if row.first_seq == len(run.events) + 1:
            run.events.extend(frames.unpack(row.first_seq, row.frames))
    for run_id, call in tool_calls.unanswered_calls(connection):
        left[run_id].calls.append(call)
    return list(left.values())
