"""Decides what is to be done with each call of a turn, before any of them runs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from parley_server.domain.content import storable_text
from parley_server.domain.errors import NotFoundError
from parley_server.domain.identifiers import new_id
from parley_server.domain.tool import CallRecord, CallState, ToolCall, ToolEffect, UnansweredCall
from parley_server.tools.arguments import Arguments, parse_arguments
from parley_server.tools.errors import (
    DuplicateCallError,
    FieldProblem,
    InvalidArgumentsError,
    ToolError,
    TooManyCallsError,
    UnknownOutcomeError,
    UnknownToolError,
)
from parley_server.tools.fingerprint import fingerprint, idempotency_key
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, Tool

MAX_NAME_CHARS = 256


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call with what the journal keeps of it. `call` is as it is told: its arguments always an object."""

    call: ToolCall
    record: CallRecord


@dataclass(frozen=True, slots=True)
class Job:
    """One execution and the calls it answers: more than one when a READ was asked for twice."""

    tool: Tool
    arguments: JsonObject
    calls: list[PlannedCall]

    @property
    def is_write(self) -> bool:
        """Tell whether it may never be repeated: by what the tool is, or was when the call was planned."""
        effects = {self.tool.spec.effect, *(planned.record.effect for planned in self.calls)}
        return ToolEffect.WRITE in effects

    @property
    def call_ids(self) -> tuple[str, ...]:
        """The calls, by their ids."""
        return tuple(planned.call.call_id for planned in self.calls)


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """Every call of a run's turn in order, those that are refused, and the jobs that answer the rest."""

    run_id: str
    calls: tuple[PlannedCall, ...]
    refused: tuple[tuple[PlannedCall, ToolError], ...]
    jobs: tuple[Job, ...]


def plan_turn(
    run_id: str, calls: Collection[ToolCall], tools: ToolRegistry, allowed: Collection[str], max_calls: int
) -> TurnPlan:
    """Plan a turn: at most the first `max_calls` run, each execution once."""
    planner = _Planner(run_id, tools, allowed, max_calls)
    planned = tuple([planner.add(call) for call in calls])
    return TurnPlan(run_id, planned, tuple(planner.refused), tuple(planner.jobs.values()))


def plan_again(run_id: str, unanswered: Sequence[UnansweredCall], tools: ToolRegistry) -> TurnPlan:
    """Plan what is left of a turn that was cut: what can be done, or done again, and what must not be.

    A WRITE that had been dispatched is refused as of unknown outcome.

    Raises:
        NotFoundError: a tool is no longer there.
    """
    planned = tuple(PlannedCall(each.call, each.record) for each in unanswered)
    refused: list[tuple[PlannedCall, ToolError]] = []
    jobs: dict[str, Job] = {}
    for each in planned:
        tool = tools.get(each.call.name)
        if tool is None:
            raise NotFoundError("tool")
        job = Job(tool, parse_arguments(each.call.arguments_json).value, [each])
        if job.is_write and each.record.state is not CallState.PLANNED:
            refused.append((each, UnknownOutcomeError()))
        else:
            jobs.setdefault(fingerprint(tool.spec.name, job.arguments), replace(job, calls=[])).calls.append(each)
    return TurnPlan(run_id, planned, tuple(refused), tuple(jobs.values()))


class _Planner:
    """The plan so far; jobs by fingerprint."""

    def __init__(self, run_id: str, tools: ToolRegistry, allowed: Collection[str], max_calls: int) -> None:
        self._run_id = run_id
        self._tools = tools
        self._allowed = allowed
        self._left = self._max_calls = max_calls
        self.jobs: dict[str, Job] = {}
        self.refused: list[tuple[PlannedCall, ToolError]] = []

    def add(self, call: ToolCall) -> PlannedCall:
        tool = self._tools.get(call.name) if call.name in self._allowed else None
        arguments = parse_arguments(call.arguments_json)
        told = ToolCall(call.call_id, storable_text(call.name[:MAX_NAME_CHARS]), arguments.text)
        effect = tool.spec.effect if tool is not None else None
        planned = PlannedCall(told, CallRecord(call.call_id, new_id("item"), told.name, effect, CallState.PLANNED))
        try:
            return self._assign(planned, tool, arguments)
        except ToolError as error:
            self.refused.append((planned, error))
            return planned

    def _assign(self, planned: PlannedCall, tool: Tool | None, arguments: Arguments) -> PlannedCall:
        if self._left <= 0:
            raise TooManyCallsError(self._max_calls)
        self._left -= 1
        if tool is None:
            raise UnknownToolError(planned.call.name, self._allowed)
        if arguments.problem:
            raise InvalidArgumentsError([FieldProblem("", arguments.problem)])
        same = fingerprint(tool.spec.name, arguments.value)
        job = self.jobs.setdefault(same, Job(tool, arguments.value, []))
        if job.calls and tool.spec.effect is not ToolEffect.READ:
            raise DuplicateCallError(job.calls[0].call.call_id)
        key = idempotency_key(self._run_id, planned.call.call_id, same)
        keyed = replace(planned, record=replace(planned.record, fingerprint=same, idempotency_key=key))
        job.calls.append(keyed)
        return keyed
