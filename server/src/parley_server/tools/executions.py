"""The executions of one turn: so many at a time, each written down before it begins, answered when it is known."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from parley_server.domain.context import RequestContext
from parley_server.domain.run import UnattendedPolicy
from parley_server.domain.run_event import EventSink, ItemEvent
from parley_server.domain.tool import ToolResult
from parley_server.tools.caller_check import CallerCheck, let_in_for_good, refusal_of
from parley_server.tools.confirmations import asking, refusal
from parley_server.tools.credentials.source import CredentialSource, NoCredentials
from parley_server.tools.errors import ConfirmationNeededError, ToolError, ToolTimeUsedUpError
from parley_server.tools.invocation import invoke
from parley_server.tools.limits import CallLimits
from parley_server.tools.places import RunPlaces, UserPlaces
from parley_server.tools.progress import ProgressReports
from parley_server.tools.results import Answer, finished_event, result_of
from parley_server.tools.retries import retries_of
from parley_server.tools.threads import ToolThreads
from parley_server.tools.tool import ToolContext
from parley_server.tools.turn_plan import Job, TurnPlan

WRITE_GRACE_S = 10.0

_Task = asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the calls of all runs share: threads for tools that block, users' places and credentials, limits of runs.

    `check` tells whether a run's caller is still let in.
    """

    threads: ToolThreads = field(default_factory=ToolThreads)
    users: UserPlaces = field(default_factory=UserPlaces)
    limits: CallLimits = CallLimits()
    credentials: CredentialSource = field(default_factory=NoCredentials)
    check: CallerCheck = let_in_for_good


class Executions:
    """Performs the jobs of one turn of a run."""

    def __init__(
        self, context: RequestContext, plan: TurnPlan, sink: EventSink, workshop: Workshop, policy: UnattendedPolicy
    ) -> None:
        self._context = context
        self._run_id = plan.run_id
        self._sink = sink
        self._policy = policy
        self._threads = workshop.threads
        self._credentials = workshop.credentials
        self._check = workshop.check
        self._time = plan.time
        self._places = RunPlaces(context, workshop.users, workshop.limits.parallel_calls)
        # Whose places are taken, though they have not begun.
        self._admitted: dict[str, Job] = {}
        self._dispatched: set[str] = set()
        self._cancelled = asyncio.Event()
        self._begun: set[str] = set()
        self._results: dict[str, ToolResult] = {}
        self._asking: list[Job] = []

    @property
    def asking(self) -> tuple[Job, ...]:
        """The jobs whose tools ask the user before they do anything; the journal has them as not dispatched."""
        return tuple(self._asking)

    @contextmanager
    def admitted(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Take the places of what can begin at once, and yield that: the caller makes it known as dispatched."""
        first = next(_together(jobs), [])
        try:
            self._admitted = {job.call_ids[0]: job for job in first if self._places.take(job.tool.spec)}
            admitted = list(self._admitted.values())
            self._dispatched = {call_id for job in admitted for call_id in job.call_ids}
            yield admitted
        finally:
            for job in self._admitted.values():
                self._places.leave(job.tool.spec)

    async def perform(self, jobs: Sequence[Job]) -> dict[str, ToolResult]:
        """Perform the jobs and return their results by call id, durable with all that was emitted before.

        Those that are `asking` then have none.

        A job of a `sequential` tool is alone: those before it have ended, those behind it have not begun. When this is
        cancelled, a WRITE that has begun is signalled and waited for, at most 10 s; what has not begun is not
        dispatched any more.
        """
        with self._time.spent():
            # Nothing may happen before it is written down.
            await self._flush()
            for together in _together(jobs):
                await self._perform_all(together)
        await self._sink.flush()
        return self._results

    async def _flush(self) -> None:
        try:
            await self._sink.flush()
        except asyncio.CancelledError:
            await self._wind_down({})
            raise

    async def _perform_all(self, jobs: Sequence[Job]) -> None:
        tasks = {asyncio.create_task(self._perform(job)): job for job in jobs}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            await self._wind_down(tasks)
            raise
        finally:
            failures = _stop(tasks)
        if failures:
            raise failures[0]

    async def _perform(self, job: Job) -> None:
        if not await self._has_place(job):
            await self._answer(job, ToolTimeUsedUpError(self._time.limit_s))
            return
        try:
            told = await self._refusal(job) or await self._execute(job)
        finally:
            self._places.leave(job.tool.spec)
        if not isinstance(told, ConfirmationNeededError):
            await self._answer(job, told)
            return
        # The tool says that it has done nothing: from here on a crash leaves no doubt of that.
        await self._sink.withdrawn(job.call_ids)
        if refused := refusal(job, told, self._policy):
            await self._answer(job, refused)
        else:
            self._asking.append(asking(job, told))

    async def _refusal(self, job: Job) -> ToolError | None:
        """Return why a WRITE may not begin: its caller is let in no more, and the user has not approved it himself."""
        if not job.is_write or job.is_approved:
            return None
        refused = await refusal_of(self._check, self._context.principal)
        if refused is not None and self._dispatched.issuperset(job.call_ids):
            # The journal has it as begun; a crash now must not leave a doubt.
            self._dispatched.difference_update(job.call_ids)
            await self._sink.withdrawn(job.call_ids)
        return refused

    async def _has_place(self, job: Job) -> bool:
        """Wait for the job's places; False, without them, when the time of the run's tools ends before."""
        if self._admitted.pop(job.call_ids[0], None) is None:
            try:
                async with asyncio.timeout_at(self._time.end):
                    await self._places.wait(job.tool.spec)
            except TimeoutError:
                return False
        if self._time.is_over:
            self._places.leave(job.tool.spec)
            return False
        return True

    async def _execute(self, job: Job) -> Answer | ToolError:
        await self._enter(job)
        calls = [(planned.call.call_id, planned.record.item_id) for planned in job.calls]
        async with ProgressReports(calls, self._sink.emit_all) as reports:
            retries = 0 if job.is_write else retries_of(job.tool.spec)
            return await invoke(job.tool, self._tool_context(job, reports), job.arguments, retries)

    def _tool_context(self, job: Job, reports: ProgressReports) -> ToolContext:
        first = job.calls[0]
        return ToolContext(
            request=self._context,
            run_id=self._run_id,
            call_id=first.call.call_id,
            idempotency_key=first.record.idempotency_key,
            deadline=min(asyncio.get_running_loop().time() + job.tool.spec.timeout_s, self._time.end),
            cancelled=self._cancelled,
            tool_name=job.tool.spec.name,
            report=reports.report,
            threads=self._threads,
            credential_slots=job.tool.spec.credential_slots,
            credentials=self._credentials,
            confirmed=job.confirmed,
        )

    async def _enter(self, job: Job) -> None:
        if not self._dispatched.issuperset(job.call_ids):
            self._dispatched.update(job.call_ids)
            await self._sink.dispatched(job.call_ids)
        self._begun.update(job.call_ids)

    async def _answer(self, job: Job, told: Answer | ToolError) -> None:
        events: list[ItemEvent] = []
        for planned in job.calls:
            result = result_of(planned.call, told, planned.note)
            events.append((finished_event(result), planned.record.item_id))
            # The store has it from here on; of a whole turn it may be a lot.
            self._results[result.call_id] = replace(result, whole_json="")
        await self._sink.emit_all(events)

    async def _wind_down(self, tasks: Mapping[_Task, Job]) -> None:
        """Stop what may be stopped at once, and give a WRITE under way the time to become a known one."""
        self._cancelled.set()
        writes = [task for task, job in tasks.items() if job.is_write and self._begun.issuperset(job.call_ids)]
        for task in tasks:
            if task not in writes:
                task.cancel()
        # The journal counts as done what it calls dispatched: here it is known better.
        if never_begun := self._dispatched - self._begun:
            await self._sink.withdrawn(sorted(never_begun))
        if writes:
            await asyncio.wait(writes, timeout=WRITE_GRACE_S)


def _together(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Yield the jobs in the parts that one after the other may run: a sequential one alone, the others between."""
    part: list[Job] = []
    for job in jobs:
        if job.tool.spec.sequential:
            yield from ([part] if part else [])
            yield [job]
            part = []
        else:
            part.append(job)
    yield from ([part] if part else [])


def _stop(tasks: Collection[_Task]) -> list[BaseException]:
    """Cancel what still runs; return what the others raised."""
    for task in tasks:
        task.cancel()
    raised = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    return [error for error in raised if error is not None]
