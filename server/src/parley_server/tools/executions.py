"""The executions of one turn: eight at a time, each written down before it begins and answered when it is known."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventSink, ItemEvent
from parley_server.domain.tool import ToolCall, ToolResult
from parley_server.tools.errors import ToolError
from parley_server.tools.invocation import invoke
from parley_server.tools.progress import ProgressReports
from parley_server.tools.results import Answer, failed_result, finished_event, ok_result
from parley_server.tools.threads import ToolThreads
from parley_server.tools.tool import ToolContext
from parley_server.tools.turn_plan import Job

MAX_CONCURRENT_CALLS = 8
WRITE_GRACE_S = 10.0

_Task = asyncio.Task[None]


class Executions:
    """Performs the jobs of one turn. `dispatched` are those the journal knows as begun already."""

    def __init__(
        self,
        context: RequestContext,
        run_id: str,
        sink: EventSink,
        dispatched: Collection[Job],
        threads: ToolThreads,
    ) -> None:
        self._context = context
        self._run_id = run_id
        self._sink = sink
        self._threads = threads
        self._dispatched = {call_id for job in dispatched for call_id in job.call_ids}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._cancelled = asyncio.Event()
        self._begun: set[str] = set()
        self._results: dict[str, ToolResult] = {}

    async def perform(self, jobs: Sequence[Job]) -> dict[str, ToolResult]:
        """Perform the jobs and return their results by call id, durable with all that was emitted before.

        When this is cancelled, a WRITE that has begun is signalled and waited for, at most 10 s; what has not begun is
        not dispatched any more.
        """
        tasks: dict[_Task, Job] = {}
        try:
            # Nothing may happen before it is written down.
            await self._sink.flush()
            tasks = {asyncio.create_task(self._perform(job)): job for job in jobs}
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            await self._wind_down(tasks)
            raise
        finally:
            failures = _stop(tasks)
        if failures:
            raise failures[0]
        await self._sink.flush()
        return self._results

    async def _perform(self, job: Job) -> None:
        async with self._slots:
            await self._enter(job)
            calls = [(planned.call.call_id, planned.record.item_id) for planned in job.calls]
            async with ProgressReports(calls, self._sink.emit_all) as reports:
                told = await invoke(job.tool, self._tool_context(job, reports), job.arguments)
            await self._answer(job, told)

    def _tool_context(self, job: Job, reports: ProgressReports) -> ToolContext:
        first = job.calls[0]
        return ToolContext(
            request=self._context,
            run_id=self._run_id,
            call_id=first.call.call_id,
            idempotency_key=first.record.idempotency_key,
            deadline=asyncio.get_running_loop().time() + job.tool.spec.timeout_s,
            cancelled=self._cancelled,
            tool_name=job.tool.spec.name,
            report=reports.report,
            threads=self._threads,
        )

    async def _enter(self, job: Job) -> None:
        if not self._dispatched.issuperset(job.call_ids):
            self._dispatched.update(job.call_ids)
            await self._sink.dispatched(job.call_ids)
        self._begun.update(job.call_ids)

    async def _answer(self, job: Job, told: Answer | ToolError) -> None:
        events: list[ItemEvent] = []
        for planned in job.calls:
            result = _result(planned.call, told)
            self._results[result.call_id] = result
            events.append((finished_event(result), planned.record.item_id))
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


def _stop(tasks: Collection[_Task]) -> list[BaseException]:
    """Cancel what still runs; return what the others raised."""
    for task in tasks:
        task.cancel()
    raised = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    return [error for error in raised if error is not None]


def _result(call: ToolCall, told: Answer | ToolError) -> ToolResult:
    return failed_result(call, told) if isinstance(told, ToolError) else ok_result(call, told)
