"""Runs the tool calls of a turn: every one is told, written down before it happens, and answered exactly once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventSink, ItemEvent, ToolCallStarted
from parley_server.domain.tool import CallRecord, CallsMade, CallState, ToolCall, ToolResult, ToolSpec, UnansweredCall
from parley_server.tools.approval_gate import ApprovalGate, ApprovalNeededError, Asking
from parley_server.tools.caller_check import CallerCheck, let_in_for_good
from parley_server.tools.credentials.source import CredentialSource, NoCredentials
from parley_server.tools.executions import Executions, Workshop
from parley_server.tools.limits import MAX_CALLS_PER_TURN, CallLimits
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.results import finished_event, result_of
from parley_server.tools.so_far import SoFar
from parley_server.tools.threads import ToolThreads
from parley_server.tools.turn_plan import Job, PlannedCall, Terms, TurnPlan, plan_again, plan_turn

_ASKING = Asking()


class ToolCallManager:
    """Runs tool calls for all users at once; keeps nothing of a run between its turns.

    `threads` are for tools that block; `limits` hold for every run; the `gate` says which calls wait for the user;
    `credentials` keep the users' secrets; `check` tells before each WRITE whether the run's caller is still let in.
    """

    def __init__(
        self,
        tools: ToolRegistry,
        threads: ToolThreads | None = None,
        limits: CallLimits = CallLimits(),
        gate: ApprovalGate | None = None,
        credentials: CredentialSource | None = None,
        check: CallerCheck = let_in_for_good,
    ) -> None:
        self._tools = tools
        self._gate = gate or ApprovalGate()
        keeper = credentials or NoCredentials()
        self._workshop = Workshop(threads or ToolThreads(), limits=limits, credentials=keeper, check=check)

    def offered(self, context: RequestContext, names: Collection[str]) -> tuple[ToolSpec, ...]:
        """Return those of these tools that the caller has the scopes for, and that are there at the moment."""
        specs = self._tools.specs(names)
        return tuple(spec for spec in specs if not context.lacks(spec.required_scopes))

    def so_far(self, made: CallsMade = CallsMade()) -> SoFar:
        """Take up a run where its earlier attempts have left off; to be handed on with all its turns."""
        return SoFar.of(made, self._tools, self._workshop.limits)

    def plan(
        self,
        context: RequestContext,
        run_id: str,
        calls: Sequence[ToolCall],
        allowed: Collection[str],
        max_calls: int = MAX_CALLS_PER_TURN,
        so_far: SoFar | None = None,
    ) -> TurnPlan:
        """Plan the calls of one turn of a run, and count it as made.

        `allowed` names the tools this run may use; those that the caller lacks a scope for are denied. Calls beyond
        `max_calls`, and beyond the limit of a turn, are answered TOO_MANY_CALLS. When a call is one too many of its
        kind, `so_far.repetition.is_loop` is true and no call of the turn is run: the run is to end.
        """
        most = min(max_calls, self._workshop.limits.calls_per_turn)
        return plan_turn(run_id, calls, self._terms(context, allowed, most, so_far))

    async def run(
        self,
        context: RequestContext,
        plan: TurnPlan,
        sink: EventSink,
        said: Sequence[ItemEvent] = (),
        asking: Asking = _ASKING,
    ) -> tuple[ToolResult, ...]:
        """Run a turn and return the results in the order of the calls, durable.

        `said` is what the model said in the same step; it is told together with the calls.

        Cancelling this cancels the tools at once, but for a WRITE under way: that gets the signal and 10 s, and its
        result is emitted still. Calls may be left open.

        Raises:
            ApprovalNeededError: all calls are answered but those that wait for the user; `resume` answers them then.
        """
        plan = await self._gate.passed(context, asking, plan)
        refusals, results = _refusals(plan)
        told = [(_started(planned), planned.record.item_id) for planned in plan.calls]
        executions = Executions(context, plan, sink, self._workshop, asking.policy)
        # What has a place at once is dispatched by the commit that tells it.
        with executions.admitted(plan.jobs) as at_once:
            await sink.emit_all([*said, *told, *refusals], _records(plan.calls, at_once))
            results |= await executions.perform(plan.jobs)
        _require_none_held(plan, executions)
        return tuple(results[planned.call.call_id] for planned in plan.calls)

    async def resume(
        self,
        context: RequestContext,
        run_id: str,
        unanswered: Sequence[UnansweredCall],
        sink: EventSink,
        so_far: SoFar | None = None,
        asking: Asking = _ASKING,
    ) -> None:
        """Answer the calls that a cut attempt has left without a result: durable when this returns.

        What was only planned is done; a READ is done again, and an IDEMPOTENT call with the same key. A WRITE that
        had been dispatched is never repeated: it is answered UNKNOWN_OUTCOME. What the user was asked is done or
        refused as he said.

        Raises:
            ApprovalNeededError: as `run`.
        """
        if not unanswered:
            return
        plan = plan_again(run_id, unanswered, self._terms(context, (), 0, so_far))
        plan = await self._gate.passed(context, asking, plan)
        refusals, _ = _refusals(plan)
        await sink.emit_all(refusals)
        executions = Executions(context, plan, sink, self._workshop, asking.policy)
        await executions.perform(plan.jobs)
        _require_none_held(plan, executions)

    def _terms(self, context: RequestContext, allowed: Collection[str], max_calls: int, so_far: SoFar | None) -> Terms:
        return Terms(context, self._tools, allowed, max_calls, so_far or self.so_far())


def _require_none_held(plan: TurnPlan, executions: Executions) -> None:
    if held := (*plan.held, *executions.asking):
        raise ApprovalNeededError(held, plan.time.used_s)


def _refusals(plan: TurnPlan) -> tuple[list[ItemEvent], dict[str, ToolResult]]:
    """Return the answers of the calls that do not run: as events, and by call."""
    answered = [(planned, result_of(planned.call, error, planned.note)) for planned, error in plan.refused]
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
