"""One run at work: the agent's task, its deadline, its cancel, and the end that is always written."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from parley_server.agents.base import Turn, TurnEnd
from parley_server.agents.registry import AgentRegistry
from parley_server.domain.approval import Approval
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ErrorKind, ErrorStatus, ParleyError, Reason
from parley_server.domain.run import Run, RunEnd, RunSpec, RunState, StopReason, UnattendedPolicy
from parley_server.domain.run_event import AttemptRestarted, EventBody, ItemEvent, RunResumed, RunStarted
from parley_server.domain.tool import CallRecord, CallsMade
from parley_server.metrics.recorder import Recorder
from parley_server.quotas.quotas import Quotas
from parley_server.runs.allowance import RunAllowance
from parley_server.runs.approval_requests import requests_for
from parley_server.runs.transcript import RunTranscript, dispatched_of
from parley_server.storage.repositories import UserStore
from parley_server.storage.run_log import OwnershipLostError, RunAppender
from parley_server.tools.approval_gate import ApprovalNeededError
from parley_server.tools.turn_plan import Job

CANCELLED = RunEnd(RunState.CANCELLED, StopReason.CANCEL_REQUESTED)
DISCONNECTED = RunEnd(RunState.CANCELLED, StopReason.DISCONNECTED)
INTERRUPTED = RunEnd(RunState.CANCELLED, StopReason.INTERRUPTED)
EXPIRED = RunEnd(RunState.EXPIRED, StopReason.DEADLINE)

_log = structlog.get_logger(__name__)


def failed(status: ErrorStatus) -> RunEnd:
    """Build the end of a run that an error stopped."""
    return RunEnd(RunState.FAILED, StopReason.ERROR, status)


def approval_needed(held: Sequence[Job]) -> RunEnd:
    """Build the end of a run that does not wait for its user."""
    tool_name = held[0].tool.spec.name
    message = f"a call of {tool_name} needs the user's approval, and the run does not wait for it"
    error = ErrorStatus(ErrorKind.FAILED_PRECONDITION, Reason.APPROVAL_NEEDED, message, {"tool_name": tool_name})
    return RunEnd(RunState.FAILED, StopReason.APPROVAL_NEEDED, error)


@dataclass(frozen=True, slots=True)
class RunJob:
    """A run to perform, with the context and the wishes it was accepted with.

    Of a run that was cut, or waited, `transcript` is what it has said, `tool_time_s` for how long its tools were at
    work, `calls` are those that have no result, `approvals` what it has asked its user. `cancel_reason` is why it was
    CANCELLING, `grace_end_time` when its caller, who is gone, has not come back.

    `expires_at` is the deadline by `time.monotonic`. What is stored is a time of the wall's clock, which is all that
    two processes share; each turns it into this once, so that a clock which is set while the run waits or works neither
    ends it early nor lets it live on.
    """

    run: Run
    context: RequestContext
    spec: RunSpec
    expires_at: float
    transcript: RunTranscript = field(default_factory=RunTranscript)
    tool_time_s: float = 0.0
    calls: tuple[CallRecord, ...] = ()
    approvals: tuple[Approval, ...] = ()
    cancel_reason: StopReason | None = None
    grace_end_time: datetime | None = None

    def is_of(self, context: RequestContext, conversation_id: str) -> bool:
        """Tell whether this is a run of a user's conversation."""
        return self.context.user_id == context.user_id and self.run.conversation_id == conversation_id


def _said_of(approvals: Sequence[Approval], calls: Sequence[CallRecord]) -> list[Approval]:
    """Return what the user was asked before about calls that are still open: one may ask more than once."""
    still_open = {record.call_id for record in calls}
    return [approval for approval in approvals if approval.call_id in still_open]


class RecordingSink:
    """Implements `EventSink`: every event goes to the log and into the transcript."""

    def __init__(self, appender: RunAppender, transcript: RunTranscript) -> None:
        self._appender = appender
        self._transcript = transcript

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        """Append one event; see `EventSink.emit`."""
        self._transcript.observe(body, item_id)
        await self._appender.append(body, item_id)

    async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        """Append events as one; see `EventSink.emit_all`."""
        self._transcript.observe_all(events)
        self._transcript.observe_dispatch(dispatched_of(calls))
        await self._appender.append_all(events, calls)

    async def dispatched(self, call_ids: Sequence[str]) -> None:
        """Note that calls happen from now on; see `EventSink.dispatched`."""
        await self._appender.dispatch(call_ids)
        self._transcript.observe_dispatch(call_ids)

    async def withdrawn(self, call_ids: Sequence[str]) -> None:
        """Note that calls have not begun and will not; see `EventSink.withdrawn`."""
        self._transcript.observe_withdrawal(call_ids)
        await self._appender.withdraw(call_ids)

    async def flush(self) -> None:
        """Wait for durability; see `EventSink.flush`."""
        await self._appender.flush()


class RecordedSteering:
    """Implements `Steering`: what is applied is in the transcript."""

    def __init__(self, appender: RunAppender, transcript: RunTranscript) -> None:
        self._appender = appender
        self._transcript = transcript

    async def apply(self) -> bool:
        """Tell what was added; see `Steering.apply`."""
        applied = await self._appender.apply_steers()
        self._transcript.observe_all((body, body.message_id) for body in applied)
        return bool(applied)

    async def close(self) -> bool:
        """Let nothing more be added; see `Steering.close`."""
        return await self._appender.close_steering()


async def conclude(
    appender: RunAppender, transcript: RunTranscript, end: RunEnd, recorder: Recorder, last: Sequence[ItemEvent] = ()
) -> str:
    """Add the last events, close what is open then, and end the run, all at once.

    Returns:
        The id of the conversation's next waiting run; empty if there is none.
    """
    transcript.observe_all(last)
    closing = transcript.closing_events()
    transcript.observe_all(closing)
    next_run_id = await appender.finish(transcript.conclusion(end), [*last, *closing])
    recorder.run_ended(end.state.value)
    error = end.error.reason if end.error else None
    _log.info("run_finished", run_id=appender.run_id, state=end.state, stop_reason=end.stop_reason, error=error)
    return next_run_id


class Execution:
    """Performs one run. `cancel` and `park` may be called at any time from the same loop."""

    def __init__(  # noqa: PLR0913  # all that a run depends on
        self,
        job: RunJob,
        agents: AgentRegistry,
        appender: RunAppender,
        store: UserStore,
        recorder: Recorder,
        approval_expiry: timedelta,
        *,
        quotas: Quotas,
    ) -> None:
        self._job = job
        self._quotas = quotas
        self._approval_expiry = approval_expiry
        self._recorder = recorder
        self._agents = agents
        self._appender = appender
        self._store = store
        self._transcript = job.transcript
        self._task: asyncio.Task[None] | None = None
        self._deadline = asyncio.timeout(None)
        # Held while the end is being decided: by a cancel until it is durable, by the work once it is done.
        self._deciding = asyncio.Lock()
        self._over = asyncio.Event()
        self._working = False
        self._stopping = False
        self._concluding = False
        self._wish: RunEnd | None = None
        self._parked = False

    def is_of(self, context: RequestContext, conversation_id: str) -> bool:
        """Tell whether this performs a run of a user's conversation."""
        return self._job.is_of(context, conversation_id)

    def performed_by(self, task: asyncio.Task[None]) -> None:
        """Learn the task to stop on `cancel` and `park`."""
        self._task = task

    async def cancel(self, end: RunEnd) -> None:
        """Make the wish durable, then stop the work; the run ends so. Too late, it waits for the end.

        Raises:
            StorageUnavailableError: the wish is not stored, and the run goes on.
            OwnershipLostError: another process owns the run now.
        """
        async with self.undecided() as is_under_way:
            if is_under_way:
                await self._appender.mark_cancelling(end.stop_reason)
                self.stop(end)

    @asynccontextmanager
    async def undecided(self) -> AsyncIterator[bool]:
        """Keep the run from ending by itself for a block, whose value is True; too late, wait for the end before it."""
        async with self._deciding:
            if not self._concluding:
                yield True
                return
        await self._over.wait()
        yield False

    def stop(self, end: RunEnd) -> None:
        """Stop the work: the wish for this end is durable. The first wish counts."""
        self._wish = self._wish or end
        self._interrupt()

    def park(self) -> None:
        """Stop the work; a run that was not cancelled stays unfinished in the store, for whoever owns it next."""
        self._parked = True
        self._interrupt()

    def _interrupt(self) -> None:
        """Stop the work, once: a WRITE that is given time to end must not lose it to whoever asks again."""
        if self._working and self._task is not None and not self._stopping and not self._deadline.expired():
            self._stopping = True
            self._task.cancel()

    async def perform(self) -> str | RunJob:
        """Work to the end; return the id of the conversation's next waiting run, if any.

        Where the user is needed before the run can go on, return the run: as a job that waits for his answers.

        Raises:
            CancelledError: the run was parked; it has no end yet.
            OwnershipLostError: another process owns the run now.
        """
        turn = await self._work()
        async with self._deciding:
            self._concluding = True
        try:
            if isinstance(turn, ApprovalNeededError):
                if self._wish is None:
                    return await self._suspend(turn)
                turn = TurnEnd(self._wish)
            end = self._wish or turn.end
            return await conclude(self._appender, self._transcript, end, self._recorder, turn.events)
        finally:
            self._over.set()

    async def _suspend(self, needed: ApprovalNeededError) -> RunJob:
        """Begin to wait, durably; nothing of the run is at work then."""
        job = self._job
        asked = requests_for(job.run, job.context.user_id, needed.held, self._approval_expiry)
        self._transcript.observe_all(asked.events)
        await self._appender.suspend(asked.approvals, asked.events)
        return replace(
            job,
            run=replace(job.run, state=RunState.WAITING_APPROVAL),
            tool_time_s=needed.tool_time_s,
            calls=asked.calls,
            approvals=(*_said_of(job.approvals, asked.calls), *asked.approvals),
        )

    async def _work(self) -> TurnEnd | ApprovalNeededError:
        self._deadline = asyncio.timeout(self._job.expires_at - time.monotonic())
        self._working = True
        try:
            self._require_wanted()
            async with self._deadline:
                return await self._ask_agent()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._wish is None or task is None:
                raise
            task.uncancel()
            return TurnEnd(self._wish)
        except OwnershipLostError:
            raise
        except ApprovalNeededError as needed:
            wants_to_wait = self._job.spec.unattended_policy is not UnattendedPolicy.FAIL
            return needed if wants_to_wait else TurnEnd(approval_needed(needed.held))
        except ParleyError as error:
            return TurnEnd(failed(error.status))
        except Exception as error:  # noqa: BLE001  # an agent's fault must end the run, and must not reach the client
            if self._deadline.expired():
                return TurnEnd(EXPIRED)
            _log.error("agent_failed", run_id=self._job.run.run_id, agent_id=self._job.run.agent_id, exc_info=error)
            return TurnEnd(failed(ErrorStatus(ErrorKind.INTERNAL, Reason.AGENT_FAILED, "the agent failed")))
        finally:
            self._working = False

    def _require_wanted(self) -> None:
        """Stop what was to be stopped before its task had begun: a task that has not begun cannot catch a cancel."""
        if self._wish or self._parked:
            raise asyncio.CancelledError

    async def _ask_agent(self) -> TurnEnd:
        run, spec = self._job.run, self._job.spec
        agent = self._agents.get(run.agent_id)
        await self._begin(spec.model_options.model or agent.description.default_model)
        turn = Turn(
            run_id=run.run_id,
            conversation_id=run.conversation_id,
            history=await self._store.conversations.history(run.conversation_id, run.run_id),
            sink=RecordingSink(self._appender, self._transcript),
            limits=spec.limits,
            deadline_time=run.deadline_time,
            model_options=spec.model_options,
            allowed_tools=spec.allowed_tools,
            disable_tools=spec.disable_tools,
            output_schema_json=spec.output_schema_json,
            usage=self._transcript.usage,
            calls_made=CallsMade(self._transcript.turns, self._job.tool_time_s),
            unanswered=self._transcript.unanswered(self._job.calls),
            said=partial(self._transcript.messages, run),
            warned=lambda: frozenset(self._transcript.warned),
            steering=RecordedSteering(self._appender, self._transcript),
            allowance=RunAllowance(self._quotas, self._job.context, self._appender),
            unattended_policy=spec.unattended_policy,
            approvals=self._job.approvals,
        )
        return await agent.run(self._job.context, turn)

    async def _begin(self, model: str) -> None:
        """Begin the first attempt; or the next one, which counts from before it does anything.

        A run that waited has nothing to begin again: the attempt that asked goes on, whoever had the run meanwhile.
        """
        if self._job.run.state is RunState.WAITING_APPROVAL:
            self._transcript.observe(RunResumed(), "")
            await self._appender.resume()
            return
        if not self._transcript.is_begun:
            started = RunStarted(model)
            self._transcript.observe(started, "")
            await self._appender.begin(started)
            return
        attempt = self._job.run.attempt + 1
        restarted = AttemptRestarted(attempt, self._transcript.open_item_ids, Reason.SERVER_RESTARTED)
        self._transcript.observe(restarted, "")
        await self._appender.restart(restarted)
        _log.info("run_restarted", run_id=self._job.run.run_id, attempt=attempt)
