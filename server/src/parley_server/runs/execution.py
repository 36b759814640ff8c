"""One run at work: the agent's task, its deadline, its cancel, and the end that is always written."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from parley_server.agents.base import Turn
from parley_server.agents.registry import AgentRegistry
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ErrorKind, ErrorStatus, ParleyError, Reason
from parley_server.domain.run import Run, RunEnd, RunSpec, RunState, StopReason
from parley_server.domain.run_event import EventBody, RunStarted
from parley_server.runs.transcript import RunTranscript
from parley_server.storage.repositories import UserStore
from parley_server.storage.run_log import OwnershipLostError, RunAppender

CANCELLED = RunEnd(RunState.CANCELLED, StopReason.CANCEL_REQUESTED)
EXPIRED = RunEnd(RunState.EXPIRED, StopReason.DEADLINE)

_log = structlog.get_logger(__name__)


def failed(status: ErrorStatus) -> RunEnd:
    """Build the end of a run that an error stopped."""
    return RunEnd(RunState.FAILED, StopReason.ERROR, status)


@dataclass(frozen=True, slots=True)
class RunJob:
    """A run to perform, with the context and the wishes it was accepted with."""

    run: Run
    context: RequestContext
    spec: RunSpec


class RecordingSink:
    """Implements `EventSink`: every event goes to the log and into the transcript."""

    def __init__(self, appender: RunAppender, transcript: RunTranscript) -> None:
        self._appender = appender
        self._transcript = transcript

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        """Append one event; see `EventSink.emit`."""
        self._transcript.observe(body, item_id)
        await self._appender.append(body, item_id)

    async def flush(self) -> None:
        """Wait for durability; see `EventSink.flush`."""
        await self._appender.flush()


async def conclude(appender: RunAppender, transcript: RunTranscript, end: RunEnd) -> str:
    """Close what is open and end the run; return the id of the conversation's next waiting run, if any."""
    sink = RecordingSink(appender, transcript)
    for body, item_id in transcript.closing_events():
        await sink.emit(body, item_id)
    next_run_id = await appender.finish(transcript.conclusion(end))
    error = end.error.reason if end.error else None
    _log.info("run_finished", run_id=appender.run_id, state=end.state, stop_reason=end.stop_reason, error=error)
    return next_run_id


class Execution:
    """Performs one run. `cancel` and `park` may be called at any time from the same loop."""

    def __init__(self, job: RunJob, agents: AgentRegistry, appender: RunAppender, store: UserStore) -> None:
        self._job = job
        self._agents = agents
        self._appender = appender
        self._store = store
        self._task: asyncio.Task[None] | None = None
        # Held while the end is being decided: by a cancel until it is durable, by the work once it is done.
        self._deciding = asyncio.Lock()
        self._over = asyncio.Event()
        self._working = False
        self._concluding = False
        self._cancelled = False
        self._parked = False

    def performed_by(self, task: asyncio.Task[None]) -> None:
        """Learn the task to stop on `cancel` and `park`."""
        self._task = task

    async def cancel(self) -> None:
        """Make the wish durable, then stop the work; the run ends CANCELLED. Too late, it waits for the end.

        Raises:
            StorageUnavailableError: the wish is not stored, and the run goes on.
        """
        async with self._deciding:
            if not self._concluding:
                await self._appender.mark_cancelling()
                self._cancelled = True
                self._interrupt()
                return
        await self._over.wait()

    def park(self) -> None:
        """Stop the work; a run that was not cancelled stays unfinished in the store, for whoever owns it next."""
        self._parked = True
        self._interrupt()

    def _interrupt(self) -> None:
        if self._working and self._task is not None:
            self._task.cancel()

    async def perform(self) -> str:
        """Work to the end; return the id of the conversation's next waiting run, if any.

        Raises:
            CancelledError: the run was parked; it has no end yet.
            OwnershipLostError: another process owns the run now.
        """
        transcript = RunTranscript()
        end = await self._work(RecordingSink(self._appender, transcript))
        async with self._deciding:
            self._concluding = True
        try:
            return await conclude(self._appender, transcript, CANCELLED if self._cancelled else end)
        finally:
            self._over.set()

    async def _work(self, sink: RecordingSink) -> RunEnd:
        deadline = asyncio.timeout((self._job.run.deadline_time - datetime.now(UTC)).total_seconds())
        self._working = True
        try:
            self._require_wanted()
            async with deadline:
                return await self._ask_agent(sink)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cancelled or task is None:
                raise
            task.uncancel()
            return CANCELLED
        except OwnershipLostError:
            raise
        except ParleyError as error:
            return failed(error.status)
        except Exception as error:  # noqa: BLE001  # an agent's fault must end the run, and must not reach the client
            if deadline.expired():
                return EXPIRED
            _log.error("agent_failed", run_id=self._job.run.run_id, agent_id=self._job.run.agent_id, exc_info=error)
            return failed(ErrorStatus(ErrorKind.INTERNAL, Reason.AGENT_FAILED, "the agent failed"))
        finally:
            self._working = False

    def _require_wanted(self) -> None:
        """Stop what was to be stopped before its task had begun: a task that has not begun cannot catch a cancel."""
        if self._cancelled or self._parked:
            raise asyncio.CancelledError

    async def _ask_agent(self, sink: RecordingSink) -> RunEnd:
        run, spec = self._job.run, self._job.spec
        agent = self._agents.get(run.agent_id)
        await self._appender.begin(RunStarted(spec.model_options.model or agent.description.default_model))
        turn = Turn(
            run_id=run.run_id,
            conversation_id=run.conversation_id,
            history=await self._store.conversations.history(run.conversation_id, run.run_id),
            sink=sink,
            limits=spec.limits,
            model_options=spec.model_options,
            allowed_tools=spec.allowed_tools,
            disable_tools=spec.disable_tools,
        )
        return await agent.run(self._job.context, turn)
