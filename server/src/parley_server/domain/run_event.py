"""The events of a run, as the engine appends them to the run log.

An event has no seq of its own before the log's writer gives it one; `EventCodec` turns a numbered event into
the bytes that are both stored and sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from parley_server.domain.approval import ApprovalState
from parley_server.domain.content import ContentPart
from parley_server.domain.run import RunEnd
from parley_server.domain.tool import CallRecord, ToolCallStatus, ToolEffect
from parley_server.domain.usage import ModelUse, Usage


@dataclass(frozen=True, slots=True)
class RunAccepted:
    """The run is durable. Always seq 1; `queue_position` counts the runs before it in its conversation."""

    agent_id: str
    input_message_id: str
    queue_position: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first attempt begins."""

    model: str


@dataclass(frozen=True, slots=True)
class AttemptRestarted:
    """A new owner goes on with the run; what was said of the discarded items counts as never said.

    `attempt` is its number, from 2; `reason` a word of capitals.
    """

    attempt: int
    discarded_item_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of an item. Deltas of one item may be merged before they get a seq."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning in an item."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningCompleted:
    """The reasoning of an item is whole."""

    text: str


@dataclass(frozen=True, slots=True)
class MessageCompleted:
    """An item of text is over; its deltas concatenate to `text`. `incomplete` when it was cut.

    `output_json` is what it says as JSON that fits the schema that the run's answer has to fit.
    """

    text: str
    incomplete: bool = False
    refusal: str = ""
    output_json: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """The model made a call; told for every call, also one that is never dispatched.

    `effect` is None for a tool the agent does not have.
    """

    call_id: str
    name: str
    arguments_json: str
    effect: ToolEffect | None


@dataclass(frozen=True, slots=True)
class ToolCallProgress:
    """How far a started call is, in its tool's words for people; `fraction` is 0 to 1, None where it is not known."""

    call_id: str
    message: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class ToolCallFinished:
    """What a call came to; exactly one per started call.

    `result_id` names the whole result of one that is `truncated`. `whole_json` is that result, for the store, which
    keeps it from the same moment on as the event; it is no part of what is told, and no event read back has it.
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
    whole_json: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """A call is not dispatched before the user has said yes to it; or not again, where the tool has a `question`."""

    approval_id: str
    call_id: str
    tool_name: str
    arguments_json: str
    expire_time: datetime
    question: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """What became of an approval; `reason` is the user's."""

    approval_id: str
    call_id: str
    state: ApprovalState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunWaiting:
    """The run waits for these approvals, and nothing of it is at work."""

    approval_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunResumed:
    """The run goes on after it waited."""


@dataclass(frozen=True, slots=True)
class SteerApplied:
    """Words that were added to the run are put before the model; `message_id` names the message that holds them."""

    steer_id: str
    message_id: str
    input: tuple[ContentPart, ...]


@dataclass(frozen=True, slots=True)
class HistoryCompacted:
    """From now on the model is shown a summary in the place of the messages from the first to the last of these."""

    summary_text: str
    first_message_id: str
    last_message_id: str


@dataclass(frozen=True, slots=True)
class UsageUpdated:
    """What the run has consumed so far. `use` is what the last step added: for whoever writes it down, and not told."""

    usage: Usage
    use: ModelUse | None = field(default=None, compare=False)


# Reasons of warnings that this server acts upon itself when it reads them again.
OUTPUT_INVALID = "OUTPUT_INVALID"
USAGE_UNKNOWN = "USAGE_UNKNOWN"
# Another model than the one that was asked answers.
MODEL_FALLBACK = "MODEL_FALLBACK"
# Calls without results, or results without calls, were mended in what the model is sent.
HISTORY_REPAIRED = "HISTORY_REPAIRED"


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that does not end the run.

    OUTPUT_INVALID is of the item whose answer does not fit the schema asked for; the model is told the message.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The end: exactly one, last. `unapplied_steer_ids` name the words that the model never saw."""

    end: RunEnd
    usage: Usage
    output_item_id: str = ""
    unapplied_steer_ids: tuple[str, ...] = ()


EventBody = (
    RunAccepted
    | RunStarted
    | AttemptRestarted
    | TextDelta
    | ReasoningDelta
    | ReasoningCompleted
    | MessageCompleted
    | ToolCallStarted
    | ToolCallProgress
    | ToolCallFinished
    | ApprovalRequested
    | ApprovalResolved
    | RunWaiting
    | RunResumed
    | SteerApplied
    | HistoryCompacted
    | UsageUpdated
    | Warned
    | RunFinished
)

# What happened, and the id of the item it belongs to; empty for the run as a whole.
ItemEvent = tuple[EventBody, str]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event with its place in the run's log: seq 1, 2, 3 without gaps."""

    run_id: str
    conversation_id: str
    seq: int
    emit_time: datetime
    attempt: int
    item_id: str
    body: EventBody


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A durable event: its seq and the codec's bytes."""

    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class HistoryTruncated:
    """Told to a watcher in place of events that are folded away; `first_available_seq` is that of the next one."""

    first_available_seq: int


class EventCodec(Protocol):
    """Turns events into the bytes of the contract and back; handed in by the composition root."""

    def encode(self, event: RunEvent) -> bytes:
        """Serialize; the bytes are stored and sent as they are."""
        ...

    def decode(self, payload: bytes) -> RunEvent:
        """Read `encode`'s bytes; a body this version does not know becomes a `Warned`. Raises ValueError for others."""
        ...

    def is_fleeting(self, payload: bytes) -> bool:
        """Tell whether an event says in pieces what a later one says whole, and is folded away with time.

        Raises ValueError like `decode`.
        """
        ...


class EventSink(Protocol):
    """Where an agent and its tools put what happens in a run."""

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        """Append one event to the run's log; waits only when the store is far behind."""
        ...

    async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        """Append events that mean something only together: after a crash either all of them are there or none.

        `calls` are entered in the journal of effects by the same transaction. A `ToolCallFinished`, here or in
        `emit`, ends its call there too.
        """
        ...

    async def dispatched(self, call_ids: Sequence[str]) -> None:
        """Note in the journal of effects that these calls happen from now on; durable when this returns."""
        ...

    async def withdrawn(self, call_ids: Sequence[str]) -> None:
        """Note in the journal of effects that these calls, though dispatched, have not begun and will not."""
        ...

    async def flush(self) -> None:
        """Return when every event emitted so far is durable."""
        ...
