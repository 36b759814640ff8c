"""The run engine: accepts runs, performs each in a task of its own, and sees every one of them to an end.

A run belongs to the server, not to the call that started it: callers only watch its log.
"""

import asyncio
import contextvars
import time
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import structlog

from parley_server.agents.output_schema import read_output_schema
from parley_server.agents.registry import AgentRegistry
from parley_server.domain.approval import Approval, ApprovalAnswer
from parley_server.domain.call_errors import ServerDrainingError
from parley_server.domain.content import ContentPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import InvalidRequestError, ParleyError, StorageUnavailableError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.per_user import UserKey
from parley_server.domain.run import ConcurrencyPolicy, DisconnectPolicy, Run, RunEnd, RunSpec, RunState
from parley_server.llm.model_catalog import ModelCatalog
from parley_server.metrics.recorder import SILENT, Gauge, Recorder
from parley_server.quotas.quotas import Quotas
from parley_server.runs.approvals import WaitingRuns
from parley_server.runs.execution import CANCELLED, DISCONNECTED, EXPIRED, INTERRUPTED, Execution, RunJob, conclude
from parley_server.runs.presence import DISCONNECT_GRACE, Attendance, Presence
from parley_server.runs.recovery import end_of, job_of, job_of_stored
from parley_server.storage.repositories import Store
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.worker_store import WorkerStore

T = TypeVar("T")

PARK_S = 10.0
PARK_AGAIN_S = 1.0
_ANY_MODELS = ModelCatalog()
APPROVAL_EXPIRY = timedelta(minutes=15)
# How long a caller waits for what goes on without him.
PATIENCE_S = 8.0

_log = structlog.get_logger(__name__)


class RunEngine:
    """One per process. Call `recover` before the first `start`, `park` before the store is closed."""

    def __init__(  # noqa: PLR0913  # all that runs depend on
        self,
        store: Store,
        worker_store: WorkerStore,
        agents: AgentRegistry,
        recorder: Recorder = SILENT,
        disconnect_grace: timedelta = DISCONNECT_GRACE,
        models: ModelCatalog = _ANY_MODELS,
        *,
        approval_expiry: timedelta = APPROVAL_EXPIRY,
        quotas: Quotas | None = None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._worker_store = worker_store
        self._agents = agents
        self._models = models
        self._quotas = quotas or Quotas()
        self._executions: dict[str, Execution] = {}
        self._waiting: dict[str, tuple[RunJob, asyncio.TimerHandle]] = {}
        self._cancels: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._draining = False
        self._approval_expiry = approval_expiry
        self._approvals = WaitingRuns(worker_store, self._launch, self._end, self._spawn)
        self._presence = Presence(worker_store, self._abandon, self._spawn, disconnect_grace)
        recorder.watch(Gauge.RUNS_LIVE, lambda: len(self._executions))
        recorder.watch(Gauge.RUNS_QUEUED, lambda: len(self._waiting))
        recorder.watch(Gauge.APPROVALS_PENDING, lambda: self._approvals.pending)

    async def start(self, context: RequestContext, spec: RunSpec, idempotency: Idempotency | None) -> Run:
        """Accept a run and set it to work, or to wait for its conversation; durable when this returns.

        Raises:
            NotFoundError: no such agent, or no such conversation for this user.
            InvalidRequestError: a tool is named that the agent does not have, or the schema for the answer is none.
            UnknownModelError: a model is named that callers may not name.
            ConversationBusyError, QueueFullError, RequestIdReusedError: as `RunRepository.accept` says.
            QuotaExceededError: a quota or a budget leaves no room for a run of this caller.
            ServerDrainingError: the server is stopping.
            StorageUnavailableError: it is not accepted, or nobody knows yet; the same request again says which.
        """
        try:
            spec = await self._checked(spec)
        except ParleyError:
            # What may be asked for changes with the settings; what was accepted before they changed is the same run.
            if (accepted := await self._store.for_user(context).runs.accepted(idempotency)) is None:
                raise
            return accepted
        if self._draining:
            raise ServerDrainingError
        # A caller who goes away must not leave a run accepted and never started.
        return await _answer_of(self._spawn(self._accept(context, spec, idempotency)))

    async def cancel(self, context: RequestContext, run_id: str, reason: str) -> Run:
        """Ask for a run's end; durable when this returns, and no error when it has ended or is asked again.

        Raises:
            NotFoundError: no such run for this user.
            StorageUnavailableError: the wish could not be stored; the run goes on.
        """
        runs = self._store.for_user(context).runs
        run = await runs.get(run_id)
        if run.state.is_terminal:
            return run
        _log.info("run_cancel_requested", run_id=run_id, has_reason=bool(reason))
        await self._cancel_once(run_id, CANCELLED)
        return await runs.get(run_id)

    async def stop(self, run_id: str) -> None:
        """Do as `cancel` does, whoever's the run is; for work that no caller asked for.

        Raises:
            StorageUnavailableError: the wish could not be stored.
        """
        await self._cancel_once(run_id, CANCELLED)

    async def steer(
        self, context: RequestContext, run_id: str, parts: tuple[ContentPart, ...], idempotency: Idempotency | None
    ) -> tuple[str, Run]:
        """Add the user's words to a run; durable when this returns the id of the addition and the run.

        Raises:
            NotFoundError, RunNotSteerableError, QueueFullError, InvalidRequestError, RequestIdReusedError: as
                `RunRepository.steer` says.
        """
        runs = self._store.for_user(context).runs
        # A caller who goes away must not leave words accepted that the run does not know of.
        steer_id = await _answer_of(self._spawn(runs.steer(run_id, parts, idempotency)))
        return steer_id, await runs.get(run_id)

    async def decide(self, context: RequestContext, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """Answer an approval; durable when this returns it as it stands then. The same answer again is no error.

        Raises:
            NotFoundError: no such approval for this user.
            InvalidRequestError: the answer to a tool's own question is to be remembered.
            ApprovalDecidedError, ApprovalExpiredError, ApprovalCancelledError: it is not answered so, and will not be.
            StorageUnavailableError: it is not answered, or nobody knows yet; the same answer again says which.
        """
        approvals = self._store.for_user(context).approvals
        asked = await approvals.get(approval_id)
        asked.require_answerable(answer)
        # A caller who goes away must not leave a run waiting for an answer that is there.
        approval = await _answer_of(self._spawn(self._approvals.decide(approvals, asked, answer)))
        approval.require(answer)
        return approval

    async def attend(self, context: RequestContext, run_id: str, *, is_caller: bool) -> Attendance:
        """Note a call that follows a run; see `Presence.attend`."""
        return await self._presence.attend(context, run_id, is_caller=is_caller)

    async def recover(self) -> None:
        """Take over what the former process left: go on with the runs that were under way, and those that wait."""
        interrupted, unstarted = await self._worker_store.take_over()
        for stored in unstarted:
            job = job_of_stored(stored)
            self._expect(job)
            if stored.is_active:
                self._launch(job)
            else:
                self._wait(job)
        for left in interrupted:
            job = job_of(left)
            await self._approvals.catch_up(job)
            self._expect(job)
            await self._go_on(job)
        if interrupted or unstarted:
            _log.info("runs_recovered", interrupted=len(interrupted), unstarted=len(unstarted))

    async def park(self) -> None:
        """Take no more runs and stop the work; what has no end stays unfinished in the store for the next start.

        A WRITE under way has PARK_S to end and to have its result stored; after that it counts as of unknown outcome.
        What the store does not take by then is given up too.
        """
        self._draining = True
        for job, timer in self._waiting.values():
            timer.cancel()
            self._presence.forget(UserKey(job.context), job.run.run_id)
        self._approvals.stop()
        for execution in tuple(self._executions.values()):
            execution.park()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PARK_S)
        if self._tasks:
            _log.warning("runs_given_up", tasks=len(self._tasks))
        while self._tasks:
            # Again and again: work that is about to end for a reason of its own takes the first one for that.
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=PARK_AGAIN_S)

    async def _checked(self, spec: RunSpec) -> RunSpec:
        """Return the spec with its agent's id. Raises as `start` says of what it names."""
        agent = self._agents.get(spec.agent_id)
        unknown = set(spec.allowed_tools) - set(agent.description.tool_names)
        if unknown:
            raise InvalidRequestError.of("run.allowed_tools", "names a tool the agent does not have")
        if spec.model_options.model not in {"", agent.description.default_model}:
            self._models.check(spec.model_options.model)
        if spec.output_schema_json:
            # A schema may be large, with many patterns in it.
            await asyncio.to_thread(read_output_schema, spec.output_schema_json)
        return replace(spec, agent_id=agent.description.agent_id)

    async def _cancel_once(self, run_id: str, end: RunEnd) -> None:
        """Cancel a run; whoever asks again waits for the same wish to become durable."""
        if run_id not in self._cancels:
            self._cancels[run_id] = self._spawn(self._cancel(run_id, end))
        await asyncio.shield(self._cancels[run_id])

    async def _abandon(self, run_id: str) -> None:
        await self._cancel_once(run_id, DISCONNECTED)

    async def _cancel(self, run_id: str, end: RunEnd) -> None:
        try:
            if (execution := self._executions.get(run_id)) is not None:
                await execution.cancel(end)
            elif (job := self._stop_waiting(run_id)) is not None:
                await self._end(job, end)
            # Also where it was at work a moment ago.
            await self._approvals.end(run_id, end)
        except OwnershipLostError as error:
            raise StorageUnavailableError from error
        finally:
            del self._cancels[run_id]

    async def _accept(self, context: RequestContext, spec: RunSpec, idempotency: Idempotency | None) -> Run:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            while (undecided := self._to_interrupt(context, spec)) is not None:
                # Too late for that one; then for the one that follows it.
                if await stack.enter_async_context(undecided):
                    break
            limits = self._quotas.run_limits(context, self._model_of(spec))
            acceptance = await self._store.for_user(context).runs.accept(spec, idempotency, limits)
            if acceptance.interrupted_run_id:
                self._interrupt(acceptance.interrupted_run_id)
        job = RunJob(acceptance.run, context, spec, began + spec.limits.deadline.total_seconds())
        if acceptance.created:
            self._recorder.run_accepted()
            self._expect(job)
        if acceptance.starts_now:
            self._launch(job)
        elif acceptance.created:
            self._wait(job)
        return acceptance.run

    def _model_of(self, spec: RunSpec) -> str:
        return spec.model_options.model or self._agents.get(spec.agent_id).description.default_model

    def _to_interrupt(self, context: RequestContext, spec: RunSpec) -> AbstractAsyncContextManager[bool] | None:
        """Find what a user's new run is going to interrupt, so that it neither ends by itself meanwhile nor goes on."""
        if spec.concurrency_policy is not ConcurrencyPolicy.INTERRUPT or not spec.conversation_id:
            return None
        for execution in self._executions.values():
            if execution.is_of(context, spec.conversation_id):
                return execution.undecided()
        return self._approvals.undecided(context, spec.conversation_id)

    def _interrupt(self, run_id: str) -> None:
        """Stop a run that is CANCELLING for the sake of another."""
        if (execution := self._executions.get(run_id)) is not None:
            execution.stop(INTERRUPTED)
        elif (job := self._stop_waiting(run_id)) is not None:
            task = self._spawn(self._end(job, INTERRUPTED))
            del task  # held by `_tasks`
        else:
            self._approvals.end_soon(run_id, INTERRUPTED)

    def _expect(self, job: RunJob) -> None:
        """Have the run cancelled when its caller is gone, if that is its policy."""
        if job.spec.disconnect_policy is DisconnectPolicy.CANCEL:
            self._presence.expect(job.context, job.run.run_id, job.grace_end_time)

    def _launch(self, job: RunJob) -> None:
        if self._draining:
            return
        run_id = job.run.run_id
        appender = self._worker_store.appender(run_id)
        store = self._store.for_user(job.context)
        execution = Execution(
            job, self._agents, appender, store, self._recorder, self._approval_expiry, quotas=self._quotas
        )
        self._executions[run_id] = execution
        execution.performed_by(self._spawn(self._perform(UserKey(job.context), run_id, execution)))

    async def _perform(self, user: UserKey, run_id: str, execution: Execution) -> None:
        outcome: str | RunJob = ""
        try:
            outcome = await execution.perform()
        except OwnershipLostError:
            _log.warning("run_ownership_lost", run_id=run_id)
            return
        finally:
            del self._executions[run_id]
            if isinstance(outcome, str):
                self._presence.forget(user, run_id)
        if isinstance(outcome, str):
            self._launch_next(outcome)
        elif not self._draining:
            self._approvals.hold(outcome)

    def _launch_next(self, run_id: str) -> None:
        if (job := self._stop_waiting(run_id)) is not None:
            self._launch(job)

    def _wait(self, job: RunJob) -> None:
        """Let a run wait for its conversation, and for its deadline if that comes first."""
        delay_s = job.expires_at - time.monotonic()
        timer = asyncio.get_running_loop().call_later(delay_s, self._expire, job.run.run_id)
        self._waiting[job.run.run_id] = (job, timer)

    def _stop_waiting(self, run_id: str) -> RunJob | None:
        """Claim a waiting run for whoever asks first: its turn, its deadline or a cancel."""
        job, timer = self._waiting.pop(run_id, (None, None))
        if timer is not None:
            timer.cancel()
        return job

    def _expire(self, run_id: str) -> None:
        if (job := self._stop_waiting(run_id)) is not None:
            task = self._spawn(self._end(job, EXPIRED))
            del task  # held by `_tasks`

    async def _go_on(self, job: RunJob) -> None:
        """Give a run that was cut its next attempt, or the end it is due."""
        if (end := end_of(job)) is not None:
            await self._end(job, end)
        elif job.run.state is RunState.WAITING_APPROVAL:
            self._approvals.hold(job)
        else:
            self._launch(job)

    async def _end(self, job: RunJob, end: RunEnd) -> None:
        """End a run that is not at work."""
        appender = self._worker_store.appender(job.run.run_id)
        next_run_id = await conclude(appender, job.transcript, end, self._recorder)
        self._presence.forget(UserKey(job.context), job.run.run_id)
        self._launch_next(next_run_id)

    def _spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Start work that outlives the call; it begins with no ambient context of the caller."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ParleyError):
            _log.error("run_task_failed", exc_info=error)


async def _answer_of(work: asyncio.Task[T]) -> T:
    """Wait for work that goes on whoever waits. Raises StorageUnavailableError after PATIENCE_S."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(work)
    except TimeoutError:
        raise StorageUnavailableError from None
