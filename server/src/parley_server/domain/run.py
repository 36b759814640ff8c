"""Runs: one execution of an agent, from acceptance to exactly one end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from parley_server.domain.content import ContentPart
from parley_server.domain.errors import ErrorStatus
from parley_server.domain.usage import Usage


class RunState(StrEnum):
    """Where a run stands, by the contract's names."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING_APPROVAL = "waiting_approval"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Tell whether the run is over."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.EXPIRED})


class StopReason(StrEnum):
    """Why a run ended, by the contract's names."""

    ANSWERED = "answered"
    OUTPUT_LENGTH = "output_length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    MAX_STEPS = "max_steps"
    MAX_TOOL_CALLS = "max_tool_calls"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    DEADLINE = "deadline"
    CANCEL_REQUESTED = "cancel_requested"
    DISCONNECTED = "disconnected"
    INTERRUPTED = "interrupted"
    APPROVAL_NEEDED = "approval_needed"
    LOOP_DETECTED = "loop_detected"
    ERROR = "error"


class ConcurrencyPolicy(StrEnum):
    """What a new run does when its conversation is busy."""

    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


class DisconnectPolicy(StrEnum):
    """What the loss of the caller who follows a run means for it."""

    CONTINUE = "continue"
    CANCEL = "cancel"


class UnattendedPolicy(StrEnum):
    """What a run does when a call needs the user's approval: wait for it, take it as refused, or end."""

    WAIT = "wait"
    DENY = "deny"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What the caller asks of the model; None leaves it to the model."""

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The ceilings of one run, counted over all its attempts; the defaults are the contract's."""

    deadline: timedelta = timedelta(minutes=10)
    max_steps: int = 25
    max_tool_calls: int = 128
    max_output_tokens: int | None = None


MAX_DEADLINE = timedelta(hours=24)
MAX_STEPS = 100
MAX_TOOL_CALLS = 1000
MAX_QUEUED_RUNS = 4
MAX_PENDING_STEERS = 16


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What the caller asks for."""

    agent_id: str
    conversation_id: str
    input: tuple[ContentPart, ...]
    model_options: ModelOptions = ModelOptions()
    allowed_tools: tuple[str, ...] = ()
    disable_tools: bool = False
    output_schema_json: str = ""
    limits: Limits = Limits()
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.QUEUE
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.CONTINUE
    unattended_policy: UnattendedPolicy = UnattendedPolicy.WAIT
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Steer:
    """Words the user added to a run under way; `message_id` is that of the message they become once applied."""

    steer_id: str
    message_id: str
    input: tuple[ContentPart, ...]


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended; `error` is set exactly when `state` is FAILED."""

    state: RunState
    stop_reason: StopReason
    error: ErrorStatus | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands. Times are UTC; `last_seq` is the seq of its newest durable event."""

    run_id: str
    conversation_id: str
    agent_id: str
    state: RunState
    attempt: int
    create_time: datetime
    deadline_time: datetime
    last_seq: int
    labels: Mapping[str, str] = field(default_factory=dict)
    usage: Usage = Usage()
    start_time: datetime | None = None
    finish_time: datetime | None = None
    end: RunEnd | None = None
    output_text: str = ""
    output_json: str = ""
