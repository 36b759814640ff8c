"""Runs the tool calls of a turn: every one is told, written down before it happens, and answered exactly once."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing

from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventSink, ToolCallFinished, ToolCallStarted
from parley_server.domain.tool import ToolCall, ToolResult
from parley_server.tools.errors import ToolError
from parley_server.tools.fingerprint import idempotency_key
from parley_server.tools.invocation import invoke
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.results import Answer, failed_result, ok_result
from parley_server.tools.tool import ToolContext
from parley_server.tools.turn_plan import Job, PlannedCall, plan_turn

MAX_CALLS_PER_TURN = 32
MAX_CONCURRENT_CALLS = 8

Told = Answer | ToolError


class ToolCallManager:
    """Runs tool calls for all users at once; keeps nothing between turns."""

    def __init__(self, tools: ToolRegistry) -> None:
        self._tools = tools

    async def run(
        self,
        context: RequestContext,
        run_id: str,
        calls: Sequence[ToolCall],
        allowed: Collection[str],
        sink: EventSink,
        *,
        max_calls: int = MAX_CALLS_PER_TURN,
    ) -> tuple[ToolResult, ...]:
        """Run the calls of one turn and return their results in the order of the calls, durable.

        `allowed` names the tools this run may use. Calls beyond `max_calls`, and never more than 32, are answered
        TOO_MANY_CALLS. Cancelling this cancels the tools at once; nothing is emitted after that, so calls may be
        left open.
        """
        plan = plan_turn(calls, self._tools, allowed, min(max_calls, MAX_CALLS_PER_TURN))
        for planned in plan.calls:
            await sink.emit(_started(planned), planned.item_id)
        await sink.flush()
        results: dict[str, ToolResult] = {}
        async with aclosing(_answers(context, run_id, plan.refused, plan.jobs)) as answers:
            async for planned, told in answers:
                result = _result(planned, told)
                results[planned.item_id] = result
                await sink.emit(_finished(result), planned.item_id)
        await sink.flush()
        return tuple(results[planned.item_id] for planned in plan.calls)


async def _answers(
    context: RequestContext,
    run_id: str,
    refused: Sequence[tuple[PlannedCall, ToolError]],
    jobs: Sequence[Job],
) -> AsyncGenerator[tuple[PlannedCall, Told]]:
    """Yield what each call came to, as it is known; closing this cancels what still runs."""
    slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
    tasks = [asyncio.create_task(_run_job(context, run_id, job, slots)) for job in jobs]
    try:
        for planned, error in refused:
            yield planned, error
        for next_done in asyncio.as_completed(tasks):
            job, told = await next_done
            for planned in job.calls:
                yield planned, told
    finally:
        for task in tasks:
            task.cancel()


async def _run_job(context: RequestContext, run_id: str, job: Job, slots: asyncio.Semaphore) -> tuple[Job, Told]:
    async with slots:
        call_id = job.calls[0].call.call_id
        tool_context = ToolContext(
            request=context,
            run_id=run_id,
            call_id=call_id,
            idempotency_key=idempotency_key(run_id, call_id, job.fingerprint),
            deadline=asyncio.get_running_loop().time() + job.tool.spec.timeout_s,
        )
        return job, await invoke(job.tool, tool_context, job.arguments)


def _result(planned: PlannedCall, told: Told) -> ToolResult:
    if isinstance(told, ToolError):
        return failed_result(planned.call, told)
    return ok_result(planned.call, told)


def _started(planned: PlannedCall) -> ToolCallStarted:
    call = planned.call
    return ToolCallStarted(call.call_id, call.name, call.arguments_json, planned.effect)


def _finished(result: ToolResult) -> ToolCallFinished:
    return ToolCallFinished(
        call_id=result.call_id,
        name=result.name,
        status=result.status,
        result_json=result.result_json,
        truncated=result.truncated,
        error_code=result.error_code,
        error_message=result.error_message,
        original_call_id=result.original_call_id,
    )
