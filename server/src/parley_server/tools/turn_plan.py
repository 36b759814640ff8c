"""Decides what is to be done with each call of a turn, before any of them runs."""

from collections.abc import Collection
from dataclasses import dataclass

from parley_server.domain.content import storable_text
from parley_server.domain.identifiers import new_id
from parley_server.domain.tool import ToolCall, ToolEffect
from parley_server.tools.arguments import Arguments, parse_arguments
from parley_server.tools.errors import (
    DuplicateCallError,
    FieldProblem,
    InvalidArgumentsError,
    ToolError,
    TooManyCallsError,
    UnknownToolError,
)
from parley_server.tools.fingerprint import fingerprint
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, Tool

MAX_NAME_CHARS = 256


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call with the item its events belong to. `call` is as it is told: its arguments always an object."""

    call: ToolCall
    item_id: str
    effect: ToolEffect | None


@dataclass(frozen=True, slots=True)
class Job:
    """One execution and the calls it answers: more than one when a READ was asked for twice."""

    tool: Tool
    arguments: JsonObject
    fingerprint: str
    calls: list[PlannedCall]


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """Every call of the turn in order, those that are refused, and the jobs that answer the rest."""

    calls: tuple[PlannedCall, ...]
    refused: tuple[tuple[PlannedCall, ToolError], ...]
    jobs: tuple[Job, ...]


def plan_turn(calls: Collection[ToolCall], tools: ToolRegistry, allowed: Collection[str], max_calls: int) -> TurnPlan:
    """Plan a turn: at most the first `max_calls` run, each execution once."""
    planner = _Planner(tools, allowed, max_calls)
    planned = tuple([planner.add(call) for call in calls])
    return TurnPlan(planned, tuple(planner.refused), tuple(planner.jobs.values()))


class _Planner:
    """The plan so far; jobs by fingerprint."""

    def __init__(self, tools: ToolRegistry, allowed: Collection[str], max_calls: int) -> None:
        self._tools = tools
        self._allowed = allowed
        self._left = self._max_calls = max_calls
        self.jobs: dict[str, Job] = {}
        self.refused: list[tuple[PlannedCall, ToolError]] = []

    def add(self, call: ToolCall) -> PlannedCall:
        tool = self._tools.get(call.name) if call.name in self._allowed else None
        arguments = parse_arguments(call.arguments_json)
        told = ToolCall(call.call_id, storable_text(call.name[:MAX_NAME_CHARS]), arguments.text)
        planned = PlannedCall(told, new_id("item"), tool.spec.effect if tool is not None else None)
        try:
            self._assign(planned, tool, arguments)
        except ToolError as error:
            self.refused.append((planned, error))
        return planned

    def _assign(self, planned: PlannedCall, tool: Tool | None, arguments: Arguments) -> None:
        if self._left <= 0:
            raise TooManyCallsError(self._max_calls)
        self._left -= 1
        if tool is None:
            raise UnknownToolError(planned.call.name, self._allowed)
        if arguments.problem:
            raise InvalidArgumentsError([FieldProblem("", arguments.problem)])
        key = fingerprint(tool.spec.name, arguments.value)
        job = self.jobs.setdefault(key, Job(tool, arguments.value, key, []))
        if job.calls and tool.spec.effect is not ToolEffect.READ:
            raise DuplicateCallError(job.calls[0].call.call_id)
        job.calls.append(planned)
