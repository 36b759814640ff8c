"""The base of every agent: given a user's context and a turn, it emits events until the run has an end."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from parley_server.domain.approval import Approval
from parley_server.domain.context import RequestContext
from parley_server.domain.message import Message
from parley_server.domain.run import Limits, ModelOptions, RunEnd, UnattendedPolicy
from parley_server.domain.run_event import EventSink, ItemEvent
from parley_server.domain.tool import CallsMade, UnansweredCall
from parley_server.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class AgentDescription:
    """What callers may know of an agent."""

    agent_id: str
    display_name: str
    description: str
    default_model: str
    tool_names: tuple[str, ...] = ()
    prompt_name: str = ""


class Steering(Protocol):
    """What the user adds to a run under way."""

    async def apply(self) -> bool:
        """Tell what was added, as `steer_applied`, and return whether there was anything; it is in `said` then."""
        ...

    async def close(self) -> bool:
        """Let nothing more be added, and the run end; False, and it may not, when something was added meanwhile."""
        ...


class _NoSteering:
    """Of a run to which nothing can be added."""

    async def apply(self) -> bool:
        return False

    async def close(self) -> bool:
        return True


_NO_STEERING = _NoSteering()


class Allowance(Protocol):
    """What the run may spend on its model, by the quotas and budgets of whoever it is for."""

    async def reserve(self, model: str, estimate: Callable[[], Usage]) -> None:
        """Hold what one call of the model may come to; to be asked before each. The next `usage_updated` settles it.

        `estimate` is asked only where something limits the call.

        Raises:
            QuotaExceededError: a limit leaves no room, and the call must not be made.
        """
        ...

    def release(self) -> None:
        """Give back what is held for a call that the model did not answer."""
        ...


class _Unlimited:
    """Of a run that nothing limits."""

    async def reserve(self, model: str, estimate: Callable[[], Usage]) -> None:
        pass

    def release(self) -> None:
        pass


_UNLIMITED = _Unlimited()


def _nothing() -> tuple[Message, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One run, as an agent sees it: the conversation so far (the user's new message last) and the caller's wishes.

    The engine stops it at `deadline_time` (UTC).

    What earlier attempts of the run have left, and a first attempt has nothing of: its `usage` so far, all `calls_made`
    and those that are `unanswered`, and `said`, which returns the run's own finished items as they are when it is
    asked. `steering` is to be applied before every question to the model, and closed before a run succeeds. `warned`
    returns the reasons of the warnings that the run has given, whichever attempt gave them. `approvals` are what the
    user was asked, and `unattended_policy` what is done where he is needed. The `allowance` is to be asked before every
    call of the model.
    """

    run_id: str
    conversation_id: str
    history: tuple[Message, ...]
    sink: EventSink
    limits: Limits = Limits()
    deadline_time: datetime | None = None
    model_options: ModelOptions = ModelOptions()
    allowed_tools: tuple[str, ...] = ()
    disable_tools: bool = False
    output_schema_json: str = ""
    usage: Usage = Usage()
    calls_made: CallsMade = CallsMade()
    unanswered: tuple[UnansweredCall, ...] = ()
    said: Callable[[], tuple[Message, ...]] = _nothing
    warned: Callable[[], frozenset[str]] = frozenset
    steering: Steering = _NO_STEERING
    allowance: Allowance = _UNLIMITED
    unattended_policy: UnattendedPolicy = UnattendedPolicy.WAIT
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ended, and the events of its last answer.

    They become durable together with the run's end: after a crash a run has both or goes on without either.
    """

    end: RunEnd
    events: tuple[ItemEvent, ...] = ()


class BaseAgent(ABC):
    """Something a user can talk to. One instance serves all users at once and keeps nothing between turns."""

    @property
    @abstractmethod
    def description(self) -> AgentDescription:
        """What callers may know of this agent at the moment."""

    @abstractmethod
    def system_prompt(self, context: RequestContext) -> str:
        """Say what the model is told to be, for this user."""

    @abstractmethod
    async def run(self, context: RequestContext, turn: Turn) -> TurnEnd:
        """Work until the turn has an end, emitting to `turn.sink`; every item that is opened is also completed.

        The engine writes `run_started` and `run_finished`, enforces the deadline and closes what a cancel or an
        error leaves open. After a crash it asks again: whatever was emitted counts as done, so what means something
        only together is emitted together.

        Raises:
            ParleyError: the run failed; its reason becomes the run's error.
            ApprovalNeededError: some of its calls wait for the user; asked again once he has answered, it goes on.
        """
