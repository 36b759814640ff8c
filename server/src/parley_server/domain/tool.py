"""Tools as data: what one is called, takes and does to the world; and what became of a call."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum


class ToolEffect(StrEnum):
    """What a call does to the world, and so what may be done with it after a crash.

    READ changes nothing and may be repeated; IDEMPOTENT may be repeated with its key; WRITE never.
    """

    READ = "read"
    IDEMPOTENT = "idempotent"
    WRITE = "write"


class ToolCallStatus(StrEnum):
    """How a call ended, by the contract's names."""

    OK = "ok"
    ERROR = "error"
    INVALID_ARGUMENTS = "invalid_arguments"
    UNKNOWN_TOOL = "unknown_tool"
    DENIED = "denied"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"
    TOO_MANY_CALLS = "too_many_calls"
    UNKNOWN_OUTCOME = "unknown_outcome"


class CallState(StrEnum):
    """How far a call has come, as the journal of effects knows it.

    From DISPATCHED on it may have taken effect; a PLANNED one certainly has not.
    """

    PLANNED = "planned"
    DISPATCHED = "dispatched"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as the journal of effects knows it: written before it happens, so that a crash leaves no doubt unmarked.

    `effect` is None for a tool the agent does not have; `fingerprint` and `idempotency_key` are empty for a call
    that is refused without being dispatched.
    """

    call_id: str
    item_id: str
    name: str
    effect: ToolEffect | None
    state: CallState
    fingerprint: str = ""
    idempotency_key: str = ""


class ApprovalRule(StrEnum):
    """Whether the user is asked before a call is dispatched; POLICY leaves it to the server's settings."""

    NEVER = "never"
    ALWAYS = "always"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it, and the rules its calls follow.

    `input_schema_json` is a JSON Schema of an object. A caller must have every one of `required_scopes`.
    `credential_slots` name the secrets of the user it asks for. `max_retries` counts for what is no WRITE; a
    `sequential` tool runs with no other of its turn beside it; a `repeatable` one may be called again and again with
    the same arguments, as one polls. `source` says where it runs: `server`, `host:NAME`, `mcp:NAME`.
    """

    name: str
    description: str
    input_schema_json: str
    effect: ToolEffect
    timeout_s: float = 30.0
    output_schema_json: str = ""
    approval: ApprovalRule = ApprovalRule.POLICY
    required_scopes: frozenset[str] = frozenset()
    credential_slots: tuple[str, ...] = ()
    max_retries: int = 0
    per_user_concurrency: int = 4
    sequential: bool = False
    repeatable: bool = False
    source: str = "server"

    @property
    def spec_hash(self) -> str:
        """The SHA-256 of what the model and the user were told of the tool, in hexadecimal digits."""
        told = (self.name, self.description, self.input_schema_json, self.output_schema_json, self.effect.value)
        return hashlib.sha256("\0".join(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made. `arguments_json` is an object, or whatever the model wrote in its place."""

    call_id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class UnansweredCall:
    """A call that an earlier attempt of the run has told and not answered."""

    call: ToolCall
    record: CallRecord


@dataclass(frozen=True, slots=True)
class CallsMade:
    """What a run's model has called since its user's last words, turn by turn; and how long its tools were at work."""

    turns: tuple[tuple[ToolCall, ...], ...] = ()
    tool_time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to. `result_json` is what the model is told, of an error too.

    When that is `truncated`, `whole_json` is the whole result, to be stored under `result_id`.
    """

    call_id: str
    name: str
    status: ToolCallStatus
    result_json: str
    truncated: bool = False
    error_code: str = ""
    error_message: str = ""
    original_call_id: str = ""
    result_id: str = ""
    whole_json: str = field(default="", repr=False)
