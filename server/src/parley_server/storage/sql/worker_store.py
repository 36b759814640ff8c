"""The worker's door on any SQL engine: taking over what a dead owner left, and the pen of each run."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from parley_server.domain.approval import Approval
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.identifiers import new_id
from parley_server.domain.quota import Consumer, Limit
from parley_server.domain.run import RunState, Steer, StopReason
from parley_server.domain.run_event import (
    AttemptRestarted,
    EventBody,
    ItemEvent,
    RunFinished,
    RunResumed,
    RunStarted,
    SteerApplied,
    StoredEvent,
)
from parley_server.domain.tool import CallRecord
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import OwnershipLostError, RunAppender, RunConclusion
from parley_server.storage.sql import approval_writes, archive, frames, quota_holds, steers, tool_calls
from parley_server.storage.sql.conclusion import Ending, set_attempt, set_running
from parley_server.storage.sql.database import Row, to_micros
from parley_server.storage.sql.live_run import LiveRun, Tx
from parley_server.storage.sql.quota_holds import Holding
from parley_server.storage.sql.rows import number, stored_run_of
from parley_server.storage.sql.run_log import RETRY_S, RunLog
from parley_server.storage.sql.tables import conversations, run_journal, runs
from parley_server.storage.sql.writer import Writes
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

    def __init__(self, live: LiveRun, run_log: RunLog, writes: Writes) -> None:
        self._live = live
        self._run_log = run_log
        self._writes = writes

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

    async def withdraw(self, call_ids: Sequence[str]) -> None:
        """Set calls PLANNED again; see `RunAppender.withdraw`."""
        await self._run_log.append(self._live, (), [tool_calls.withdrawn(call_ids)])

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

    async def suspend(self, approvals: Sequence[Approval], events: Sequence[ItemEvent]) -> None:
        """Begin to wait; see `RunAppender.suspend`."""
        await self._run_log.append(self._live, events, [approval_writes.suspension(approvals)])
        await self._live.settled()

    async def expire_approvals(self, approval_ids: Sequence[str]) -> tuple[Approval, ...]:
        """Set what is pending EXPIRED; see `RunAppender.expire_approvals`."""
        return await self._writes.run(lambda connection: approval_writes.expire(connection, approval_ids))

    async def resume(self) -> None:
        """Append `run_resumed`; see `RunAppender.resume`."""
        await self._run_log.append(self._live, [(RunResumed(), "")], [approval_writes.resumption])

    async def apply_steers(self) -> tuple[SteerApplied, ...]:
        """Append what was added; see `RunAppender.apply_steers`."""
        added, self._live.steers = self._live.steers, []
        applied = tuple(SteerApplied(steer.steer_id, steer.message_id, steer.input) for steer in added)
        if applied:
            await self._run_log.append(
                self._live, [(body, body.message_id) for body in applied], [steers.removal(added)]
            )
        return applied

    async def close_steering(self) -> bool:
        """Let nothing more be added; see `RunAppender.close_steering`."""
        async with self._live.gate:
            self._live.is_closing = not self._live.steers
            return self._live.is_closing

    async def hold(self, model: str, estimate: Usage, limits: Sequence[Limit]) -> None:
        """Hold what a call may use; see `RunAppender.hold`."""
        live, hold_id = self._live, new_id("hold")
        live.has_held = True
        released = tuple(live.released)
        try:
            await self._patiently(
                lambda: Holding(live, hold_id, released, model, estimate, limits, self._run_log.clock())
            )
        except BaseException:
            # It may be stored by now, or be about to, and its call is not made.
            live.released.append(hold_id)
            raise
        live.hold_id = hold_id
        live.released = live.released[len(released) :]

    def release_hold(self) -> None:
        """Give back what is held; see `RunAppender.release_hold`."""
        hold_id, self._live.hold_id = self._live.hold_id, ""
        if hold_id:
            self._live.released.append(hold_id)

    async def _patiently(self, tx_of: Callable[[], Callable[[Connection], None]]) -> None:
        """Write, again and again while the store is away, as what the run appends is."""
        while True:
            try:
                return await self._writes.run(tx_of(), patient=True)
            except StorageUnavailableError:
                await asyncio.sleep(RETRY_S)

    async def set_grace(self, end_time: datetime | None) -> None:
        """Store the end of the grace; see `RunAppender.set_grace`."""
        await self._update(grace_end_time=None if end_time is None else to_micros(end_time))

    async def mark_cancelling(self, reason: StopReason) -> None:
        """Set the run CANCELLING; see `RunAppender.mark_cancelling`."""
        await self._update(state=RunState.CANCELLING, cancel_reason=func.coalesce(runs.c.cancel_reason, reason.value))

    async def finish(self, conclusion: RunConclusion, events: Sequence[ItemEvent] = ()) -> str:
        """End the run; see `RunAppender.finish`."""
        async with self._live.gate:
            self._live.is_closing = True
        left, self._live.steers = self._live.steers, []
        unapplied = tuple(steer.steer_id for steer in left)
        body = RunFinished(conclusion.end, conclusion.usage, conclusion.output_item_id, unapplied)
        ending = Ending(conclusion)
        writes: list[Tx] = [
            *tool_calls.writes_of(events),
            *approval_writes.cancellations_of(events),
            *([steers.remove_all] if self._live.may_have_steers else []),
            ending,
        ]
        await self._run_log.append(self._live, [*events, (body, "")], writes)
        await self._live.settled()
        self._run_log.end(self._live)
        return ending.next_run_id

    async def _update(self, **values: object) -> None:
        """Change columns of the run, if it is still ours and under way."""
        owned = (
            runs.c.run_id == self._live.run_id,
            runs.c.fencing_token == self._live.fencing_token,
            runs.c.finish_time.is_(None),
        )

        def tx(connection: Connection) -> None:
            if not connection.execute(update(runs).where(*owned).values(**values)).rowcount:
                raise OwnershipLostError(self._live.run_id)

        await self._writes.run(tx)


class SqlWorkerStore:
    """Implements `WorkerStore`; to take over takes more than to write the log on, so it is done by other `writes`."""

    def __init__(self, writes: Writes, log_writes: Writes, run_log: RunLog) -> None:
        self._writes = writes
        self._log_writes = log_writes
        self._run_log = run_log

    async def take_over(self) -> tuple[list[InterruptedRun], list[StoredRun]]:
        """Become the owner of every unfinished run; see `WorkerStore.take_over`."""
        interrupted: list[InterruptedRun] = []
        unstarted: list[StoredRun] = []
        for left in await self._writes.run(_take_over, patient=True):
            stored = stored_run_of(left.row)
            live = LiveRun(stored.run, Consumer.of(stored.context), fencing_token=number(left.row, "fencing_token"))
            live.tail.begin_after(left.archived_seq)
            live.tail.extend(left.events[left.archived_seq :], left.journal_ids)
            for steer in left.steers:
                live.add_steer(steer)
            self._run_log.open(live)
            if stored.run.state is RunState.QUEUED:
                unstarted.append(stored)
            else:
                decoded = tuple(self._run_log.codec.decode(event.payload) for event in left.events)
                live.go_on_from(decoded)
                interrupted.append(InterruptedRun(stored, decoded, tuple(left.calls), tuple(left.approvals)))
        return interrupted, unstarted

    def appender(self, run_id: str) -> RunAppender:
        """Return a run's pen; see `WorkerStore.appender`."""
        live = self._run_log.find(run_id)
        if live is None or live.ended:
            raise OwnershipLostError(run_id)
        return SqlRunAppender(live, self._run_log, self._log_writes)


@dataclass(slots=True)
class _Left:
    """An unfinished run as its dead owner left it."""

    row: Row
    events: list[StoredEvent] = field(default_factory=list)
    archived_seq: int = 0
    journal_ids: list[int] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    steers: list[Steer] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)


def _take_over(connection: Connection) -> list[_Left]:
    connection.execute(update(runs).where(_UNFINISHED).values(fencing_token=runs.c.fencing_token + 1))
    # Said so because there are few of these and an index of them; the finished ones are all there ever were.
    unfinished = select(runs.c.run_id).where(_UNFINISHED)
    connection.execute(delete(run_journal).where(run_journal.c.run_id.not_in(unfinished)))
    quota_holds.give_back_all(connection)
    left = {row["run_id"]: _Left(dict(row)) for row in connection.execute(_UNFINISHED_RUNS).mappings()}
    for run_id, events in archive.of_unfinished_runs(connection):
        left[run_id].events.extend(events)
        left[run_id].archived_seq = events[-1].seq
    for row in connection.execute(select(run_journal).order_by(run_journal.c.journal_id)):
        run = left[row.run_id]
        run.journal_ids.append(row.journal_id)
        # A commit whose outcome nobody heard was tried again: its events are there twice. So are those of a page of
        # the archive until its rows are swept.
        if row.first_seq == len(run.events) + 1:
            run.events.extend(frames.unpack(row.first_seq, row.frames))
    for run_id, call in tool_calls.unanswered_calls(connection):
        left[run_id].calls.append(call)
    for run_id, steer in steers.pending_steers(connection):
        left[run_id].steers.append(steer)
    for approval in approval_writes.of_unfinished_runs(connection):
        left[approval.run_id].approvals.append(approval)
    return list(left.values())
