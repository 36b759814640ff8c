"""Runs the tool calls of a turn: every one is told, written down before it happens, and answered exactly once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventSink, ItemEvent, ToolCallStarted
from parley_server.domain.tool import CallRecord, CallState, ToolCall, ToolResult, UnansweredCall
from parley_server.tools.executions import MAX_CONCURRENT_CALLS, Executions
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.results import failed_result, finished_event
from parley_server.tools.threads import ToolThreads
from parley_server.tools.turn_plan import Job, PlannedCall, TurnPlan, plan_again, plan_turn

MAX_CALLS_PER_TURN = 32


class ToolCallManager:
    """Runs tool calls for all users at once; keeps nothing between turns. `threads` are for tools that block."""

    def __init__(self, tools: ToolRegistry, threads: ToolThreads | None = None) -> None:
        self._tools = tools
        self._threads = threads or ToolThreads()

    def plan(
        self, run_id: str, calls: Sequence[ToolCall], allowed: Collection[str], max_calls: int = MAX_CALLS_PER_TURN
    ) -> TurnPlan:
        """Plan the calls of one turn of a run.

        `allowed` names the tools this run may use. Calls beyond `max_calls`, and never more than 32, are answered
        TOO_MANY_CALLS.
        """
        return plan_turn(run_id, calls, self._tools, allowed, min(max_calls, MAX_CALLS_PER_TURN))

    async def run(
        self, context: RequestContext, plan: TurnPlan, sink: EventSink, said: Sequence[ItemEvent] = ()
    ) -> tuple[ToolResult, ...]:
        """Run a turn and return the results in the order of the calls, durable.

        `said` is what the model said in the same step; it is told together with the calls.

        Cancelling this cancels the tools at once, but for a WRITE under way: that gets the signal and 10 s, and its
        result is emitted still. Calls may be left open.
        """
        # What has a slot at once is dispatched by the commit that tells it.
        at_once = plan.jobs[:MAX_CONCURRENT_CALLS]
        refusals, results = _refusals(plan)
        told = [(_started(planned), planned.record.item_id) for planned in plan.calls]
        await sink.emit_all([*said, *told, *refusals], _records(plan.calls, at_once))
        results |= await Executions(context, plan.run_id, sink, at_once, self._threads).perform(plan.jobs)
        return tuple(results[planned.call.call_id] for planned in plan.calls)

    async def resume(
        self, context: RequestContext, run_id: str, unanswered: Sequence[UnansweredCall], sink: EventSink
    ) -> None:
        """Answer the calls that a cut attempt has left without a result: durable when this returns.

        What was only planned is done; a READ is done again, and an IDEMPOTENT call with the same key. A WRITE that
        had been dispatched is never repeated: it is answered UNKNOWN_OUTCOME.

        Raises:
            NotFoundError: a tool is no longer there.
        """
        if not unanswered:
            return
        plan = plan_again(run_id, unanswered, self._tools)
        refusals, _ = _refusals(plan)
        await sink.emit_all(refusals)
        await Executions(context, run_id, sink, (), self._threads).perform(plan.jobs)


def _refusals(plan: TurnPlan) -> tuple[list[ItemEvent], dict[str, ToolResult]]:
    """Return the answers of the calls that do not run: as events, and by call."""
    answered = [(planned, failed_result(planned.call, error)) for planned, error in plan.refused]
    events: list[ItemEvent] = [(finished_event(result), planned.record.item_id) for planned, result in answered]
    return events, {result.call_id: result for _, result in answered}


def _records(calls: Iterable[PlannedCall], dispatched: Iterable[Job]) -> list[CallRecord]:
    at_once = {call_id for job in dispatched for call_id in job.call_ids}
    return [
        replace(planned.record, state=CallState.DISPATCHED) if planned.call.call_id in at_once else planned.record
        for planned in calls
    ]


def _started(planned: PlannedCall) -> ToolCallStarted:
    call = planned.call
    return ToolCallStarted(call.call_id, call.name, call.arguments_json, planned.record.effect)
