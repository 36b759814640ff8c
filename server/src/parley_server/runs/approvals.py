"""The runs that wait for their users: no task is at work on one, and no connection is held.

An answer is durable before the run hears of it; what a crash kept from a run's log is told when the run is taken over.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from parley_server.domain.approval import Approval, ApprovalAnswer
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.run import RunEnd
from parley_server.domain.run_event import ApprovalResolved
from parley_server.runs.execution import EXPIRED, RunJob
from parley_server.storage.repositories import ApprovalRepository
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.worker_store import WorkerStore

RETRY_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    """One run. The lock is held while what became of an approval is stored and told, and while the run is ended."""

    job: RunJob
    pending: dict[str, Approval]
    settled: list[Approval] = field(default_factory=list)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    # What may be answered in the store without the run's having heard of it.
    unheard: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Once it is to end no answer lets it go on.
    is_ending: bool = False

    @property
    def run_id(self) -> str:
        return self.job.run.run_id


class WaitingRuns:
    """All of this process.

    `resume` lets a run go on, `end` ends one, `spawn` starts work that outlives the call.
    """

    def __init__(
        self,
        worker_store: WorkerStore,
        resume: Callable[[RunJob], None],
        end: Callable[[RunJob, RunEnd], Awaitable[None]],
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._worker_store = worker_store
        self._resume = resume
        self._end = end
        self._spawn = spawn
        self._runs: dict[str, _Waiting] = {}
        self._is_stopped = False

    @property
    def pending(self) -> int:
        """The approvals that are asked for, of all users; may be read from any thread."""
        return sum(len(waiting.pending) for waiting in tuple(self._runs.values()))

    def hold(self, job: RunJob) -> None:
        """Keep a run until its pending approvals are settled, or its deadline comes; one that has none goes on."""
        pending = {approval.approval_id: approval for approval in job.approvals if approval.is_pending}
        settled = [approval for approval in job.approvals if not approval.is_pending]
        waiting = self._runs[job.run.run_id] = _Waiting(job, pending, settled)
        if not pending:
            self._go_on(waiting)
            return
        _log.info("run_waiting", run_id=waiting.run_id, approvals=len(pending))
        delay_s = job.expires_at - time.monotonic()
        waiting.timers.append(asyncio.get_running_loop().call_later(delay_s, self.end_soon, waiting.run_id, EXPIRED))
        self._await_expiry(waiting)

    async def catch_up(self, job: RunJob) -> None:
        """Tell a run that is taken over what became of its approvals while nobody could."""
        settled = {approval.approval_id: approval for approval in job.approvals if not approval.is_pending}
        for approval_id in job.transcript.open_approvals:
            if approval_id in settled:
                await self._tell_one(job, settled[approval_id])

    async def decide(self, approvals: ApprovalRepository, asked: Approval, answer: ApprovalAnswer) -> Approval:
        """Answer an approval, and let the run go on if it was the last one; return it as it stands then, durable.

        Raises:
            StorageUnavailableError: it is not answered, or nobody knows yet; the same answer again says which.
        """
        if (waiting := self._runs.get(asked.run_id)) is None:
            # The run has gone on since, or ended.
            approval = await approvals.get(asked.approval_id)
            if approval.is_pending:
                # Or it waits in a process that is not known here (yet).
                raise StorageUnavailableError
            return approval
        async with waiting.lock:
            try:
                approval = await approvals.decide(asked.approval_id, answer)
                await self._tell(waiting, [approval])
            except StorageUnavailableError:
                if asked.approval_id not in waiting.unheard:
                    waiting.unheard.add(asked.approval_id)
                    self._look_later(waiting, approvals, asked.approval_id)
                raise
        return approval

    def undecided(self, context: RequestContext, conversation_id: str) -> AbstractAsyncContextManager[bool] | None:
        """Find a run of a user's conversation that waits; return what keeps it from going on. See `Execution`."""
        for waiting in self._runs.values():
            if waiting.job.is_of(context, conversation_id) and not waiting.is_ending:
                return self._undecided(waiting)
        return None

    @asynccontextmanager
    async def _undecided(self, waiting: _Waiting) -> AsyncIterator[bool]:
        async with waiting.lock:
            yield self._runs.get(waiting.run_id) is waiting

    async def end(self, run_id: str, end: RunEnd) -> None:
        """End a run that waits, durable when this returns; nothing where none of this id does."""
        if (waiting := self._runs.get(run_id)) is None:
            return
        waiting.is_ending = True
        async with waiting.lock:
            if self._runs.get(run_id) is not waiting:
                return
            try:
                await self._end(waiting.job, end)
            finally:
                self._let_go(waiting)

    def end_soon(self, run_id: str, end: RunEnd) -> None:
        """End a run that waits; no answer that comes after this lets it go on."""
        if (waiting := self._runs.get(run_id)) is not None:
            waiting.is_ending = True
            self._spawn(self.end(run_id, end))

    def stop(self) -> None:
        """End none of them any more: they are for the next start. Answers are still taken."""
        self._is_stopped = True
        for waiting in self._runs.values():
            _cancel(waiting.timers)

    def _await_expiry(self, waiting: _Waiting, delay_s: float = 0.0) -> None:
        first = min(waiting.pending.values(), key=lambda approval: approval.expire_time)
        # Not more than its whole time: the clock may have been set back since.
        left = min(first.expire_time - datetime.now(UTC), first.expire_time - first.create_time)
        delay_s = max(left.total_seconds(), delay_s)
        expire = self._expire_soon
        waiting.timers.append(asyncio.get_running_loop().call_later(delay_s, expire, waiting, first.expire_time))

    def _expire_soon(self, waiting: _Waiting, due: datetime) -> None:
        self._spawn(self._expire(waiting, due))

    async def _expire(self, waiting: _Waiting, due: datetime) -> None:
        """Settle what nobody has answered until then. What is answered at this moment stays answered."""
        async with waiting.lock:
            over = [approval.approval_id for approval in waiting.pending.values() if approval.expire_time <= due]
            if not over:
                return
            try:
                appender = self._worker_store.appender(waiting.run_id)
                await self._tell(waiting, await appender.expire_approvals(over))
            except StorageUnavailableError:
                _log.warning("approvals_not_expired", run_id=waiting.run_id)
            if waiting.pending and not self._is_stopped:
                self._await_expiry(waiting, RETRY_S)

    def _look_later(self, waiting: _Waiting, approvals: ApprovalRepository, approval_id: str) -> None:
        if not self._is_stopped:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(RETRY_S, lambda: self._spawn(self._look(waiting, approvals, approval_id)))
            waiting.timers.append(timer)

    async def _look(self, waiting: _Waiting, approvals: ApprovalRepository, approval_id: str) -> None:
        """Find out whether an answer is stored that nobody heard of: its user may not give it again."""
        async with waiting.lock:
            if approval_id not in waiting.pending:
                return
            try:
                await self._tell(waiting, [await approvals.get(approval_id)])
                waiting.unheard.discard(approval_id)
            except StorageUnavailableError:
                self._look_later(waiting, approvals, approval_id)

    async def _tell(self, waiting: _Waiting, settled: Sequence[Approval]) -> None:
        """Tell the run what became of approvals, and let it go on when none is left."""
        for approval in settled:
            if approval.approval_id in waiting.pending and not approval.is_pending:
                await self._tell_one(waiting.job, approval)
                del waiting.pending[approval.approval_id]
                waiting.settled.append(approval)
        if not waiting.pending and not waiting.is_ending and self._runs.get(waiting.run_id) is waiting:
            self._go_on(waiting)

    async def _tell_one(self, job: RunJob, approval: Approval) -> None:
        body = ApprovalResolved(approval.approval_id, approval.call_id, approval.state, approval.reason)
        item_id, _ = job.transcript.open_approvals[approval.approval_id]
        try:
            await self._worker_store.appender(job.run.run_id).append(body, item_id)
        except OwnershipLostError as error:
            raise StorageUnavailableError from error
        job.transcript.observe(body, item_id)
        _log.info("approval_resolved", run_id=job.run.run_id, tool=approval.tool_name, state=approval.state)

    def _go_on(self, waiting: _Waiting) -> None:
        self._let_go(waiting)
        self._resume(replace(waiting.job, approvals=tuple(waiting.settled)))

    def _let_go(self, waiting: _Waiting) -> None:
        _cancel(waiting.timers)
        waiting.pending.clear()
        del self._runs[waiting.run_id]


def _cancel(timers: Sequence[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()
