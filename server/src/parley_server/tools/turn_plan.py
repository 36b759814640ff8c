"""Decides what is to be done with each call of a turn, before any of them runs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from parley_server.domain.approval import Confirmation
from parley_server.domain.content import storable_text
from parley_server.domain.context import RequestContext
from parley_server.domain.identifiers import new_id
from parley_server.domain.tool import CallRecord, CallState, ToolCall, ToolEffect, UnansweredCall
from parley_server.tools.arguments import Arguments, parse_arguments
from parley_server.tools.errors import (
    DuplicateCallError,
    FieldProblem,
    InvalidArgumentsError,
    LoopDetectedError,
    PermissionDeniedError,
    ToolError,
    ToolGoneError,
    ToolTimeUsedUpError,
    TooManyCallsError,
    UnknownOutcomeError,
    UnknownToolError,
)
from parley_server.tools.fingerprint import fingerprint, idempotency_key
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.so_far import SoFar, is_repeatable
from parley_server.tools.tool import JsonObject, Tool
from parley_server.tools.tool_time import ToolTime

MAX_NAME_CHARS = 256


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call with what the journal keeps of it. `call` is as it is told: its arguments always an object.

    `note` is told to the model with the call's answer, whatever that is.
    """

    call: ToolCall
    record: CallRecord
    note: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One execution and the calls it answers: more than one when a READ was asked for twice.

    `confirmed` is what the tool has asked the user so far and he has said yes to, `question` what he is asked now.
    It `is_approved` when he was asked about this very call, and said yes.
    """

    tool: Tool
    arguments: JsonObject
    calls: list[PlannedCall]
    confirmed: tuple[Confirmation, ...] = ()
    question: Confirmation | None = None
    is_approved: bool = False

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
    """Every call of a run's turn in order, those that are refused, and the jobs that answer the rest.

    `time` is what the tools of the run have left. The jobs that are `held` wait for the user.
    """

    run_id: str
    calls: tuple[PlannedCall, ...]
    refused: tuple[tuple[PlannedCall, ToolError], ...]
    jobs: tuple[Job, ...]
    time: ToolTime
    held: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the calls of a turn are held to: the context's scopes, the run's tools, what it has had already."""

    context: RequestContext
    tools: ToolRegistry
    allowed: Collection[str]
    max_calls: int
    so_far: SoFar

    def permitted(self) -> list[str]:
        """Return the tools that a call may be of, by name."""
        found = [(name, self.tools.get(name)) for name in self.allowed]
        return [name for name, tool in found if tool and not self.context.lacks(tool.spec.required_scopes)]

    def tool(self, name: str) -> Tool:
        """Return the tool that is called. Raises UnknownToolError, PermissionDeniedError."""
        tool = self.tools.get(name) if name in self.allowed else None
        if tool is None:
            raise UnknownToolError(name, self.permitted())
        require_scopes(self.context, tool)
        return tool


def require_scopes(context: RequestContext, tool: Tool) -> None:
    """Let the caller use a tool. Raises PermissionDeniedError."""
    if missing := context.lacks(tool.spec.required_scopes):
        raise PermissionDeniedError(tool.spec.name, missing)


def plan_turn(run_id: str, calls: Collection[ToolCall], terms: Terms) -> TurnPlan:
    """Plan a turn, which is added to what the run has called so far: each execution once, and within all limits."""
    asked = [_Asked.read(call) for call in calls]
    terms.so_far.repetition.add({each.fingerprint for each in asked if not is_repeatable(each.told.name, terms.tools)})
    planner = _Planner(run_id, terms)
    planned = tuple([planner.add(each) for each in asked])
    return planner.plan(planned)


def plan_again(run_id: str, unanswered: Sequence[UnansweredCall], terms: Terms) -> TurnPlan:
    """Plan what is left of a turn that was cut: what can be done, or done again, and what must not be.

    A WRITE that had been dispatched is refused as of unknown outcome; so is an IDEMPOTENT call whose tool is gone.
    """
    planner = _Planner(run_id, terms)
    planned = tuple([planner.add_again(each) for each in unanswered])
    return planner.plan(planned)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call as the model made it, read."""

    name: str
    told: ToolCall
    arguments: Arguments
    fingerprint: str

    @classmethod
    def read(cls, call: ToolCall) -> "_Asked":
        arguments = parse_arguments(call.arguments_json)
        told = ToolCall(call.call_id, storable_text(call.name[:MAX_NAME_CHARS]), arguments.text)
        return cls(call.name, told, arguments, fingerprint(told.name, arguments.value))


class _Planner:
    """The plan so far; jobs by what makes two calls one."""

    def __init__(self, run_id: str, terms: Terms) -> None:
        self._run_id = run_id
        self._terms = terms
        self._left = terms.max_calls
        self._is_loop = terms.so_far.repetition.is_loop
        self._jobs: dict[str, Job] = {}
        self._refused: list[tuple[PlannedCall, ToolError]] = []

    def plan(self, calls: tuple[PlannedCall, ...]) -> TurnPlan:
        jobs = tuple(self._jobs.values())
        return TurnPlan(self._run_id, calls, tuple(self._refused), jobs, self._terms.so_far.time)

    def add(self, asked: _Asked) -> PlannedCall:
        tool = self._terms.tools.get(asked.name) if asked.name in self._terms.allowed else None
        effect = None if tool is None else tool.spec.effect
        record = CallRecord(asked.told.call_id, new_id("item"), asked.told.name, effect, CallState.PLANNED)
        planned = PlannedCall(asked.told, record, self._terms.so_far.repetition.note(asked.fingerprint))
        try:
            return self._assign(planned, asked)
        except ToolError as error:
            self._refused.append((planned, error))
            return planned

    def add_again(self, left: UnansweredCall) -> PlannedCall:
        asked = _Asked.read(left.call)
        planned = PlannedCall(left.call, left.record, self._terms.so_far.repetition.note(asked.fingerprint))
        try:
            self._assign_again(planned, asked)
        except ToolError as error:
            self._refused.append((planned, error))
        return planned

    def _assign(self, planned: PlannedCall, asked: _Asked) -> PlannedCall:
        self._require_room()
        tool = self._terms.tool(asked.name)
        if asked.arguments.problem:
            raise InvalidArgumentsError([FieldProblem("", asked.arguments.problem)])
        job = self._job(tool, asked)
        if job.calls and tool.spec.effect is not ToolEffect.READ:
            raise DuplicateCallError(job.calls[0].call.call_id)
        key = idempotency_key(self._run_id, planned.call.call_id, asked.fingerprint)
        keyed = replace(planned, record=replace(planned.record, fingerprint=asked.fingerprint, idempotency_key=key))
        job.calls.append(keyed)
        return keyed

    def _assign_again(self, planned: PlannedCall, asked: _Asked) -> None:
        tool = self._terms.tools.get(asked.name)
        was_dispatched = planned.record.state is not CallState.PLANNED
        if tool is None:
            may_have_happened = was_dispatched and planned.record.effect is not ToolEffect.READ
            raise UnknownOutcomeError if may_have_happened else ToolGoneError
        if was_dispatched and Job(tool, {}, [planned]).is_write:
            raise UnknownOutcomeError
        if not was_dispatched:
            require_scopes(self._terms.context, tool)
        self._job(tool, asked).calls.append(planned)

    def _require_room(self) -> None:
        """Raise what keeps any further call of the turn from being run."""
        if self._is_loop:
            raise LoopDetectedError
        if self._left <= 0:
            raise TooManyCallsError(self._terms.max_calls)
        self._left -= 1
        if self._terms.so_far.time.is_used_up:
            raise ToolTimeUsedUpError(self._terms.so_far.time.limit_s)

    def _job(self, tool: Tool, asked: _Asked) -> Job:
        """Return the job that such a call joins, or begins: its own where it may be repeated."""
        is_own = tool.spec.repeatable and tool.spec.effect is not ToolEffect.READ
        same = asked.told.call_id if is_own else asked.fingerprint
        return self._jobs.setdefault(same, Job(tool, asked.arguments.value, []))
