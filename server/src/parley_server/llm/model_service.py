"""The door to a language model: what is asked of it and what streams back, whoever serves it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Protocol

from pydantic import SecretStr

from parley_server.domain.content import ContentPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ErrorKind, ParleyError, Reason
from parley_server.domain.run import ModelOptions
from parley_server.domain.tool import ToolCall, ToolSpec
from parley_server.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """What the agent is told to be."""

    text: str


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What the user said."""

    parts: tuple[ContentPart, ...]


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """What the model answered before, with the tool calls it made and what it told of its reasoning."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """What a tool call came to; every call of an AssistantMessage is followed by exactly one, in call order."""

    call_id: str
    content: str


ModelMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """A JSON Schema that the answer has to fit: its text, an object in JSON.

    `is_object` tells that every answer that fits is an object, `is_strict` that it is of the kind whose fit a server of
    OpenAI's warrants: no property is optional and none may be added.
    """

    json: str
    is_object: bool = False
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class ModelCredential:
    """A user's own key for one provider; it is sent in the place of the settings' and to no other."""

    provider: str
    api_key: SecretStr


async def any_model(_: str) -> None:
    """Permit every model."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of the model. `model` is never empty here.

    Whoever asks stops at `deadline_time` (UTC), so that nothing needs to be begun that would be done only then. With a
    `credential` a model of another provider is not asked. Before a model is asked in the place of `model`, `permit` is
    told its name; it raises QuotaExceededError where that one must not be asked.
    """

    model: str
    messages: tuple[ModelMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    options: ModelOptions = ModelOptions()
    deadline_time: datetime | None = None
    output_schema: OutputSchema | None = None
    credential: ModelCredential | None = None
    permit: Callable[[str], Awaitable[None]] = any_model


class FinishReason(StrEnum):
    """Why the model stopped. Complete tool calls make it TOOL_CALLS whatever the server said."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class FallbackChunk:
    """Another model answers than the one that was asked, which is not available; before the answer's first chunk."""

    model: str
    asked_model: str


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Text of the answer; all that one read of the connection brought, joined."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    """Text of the model's reasoning, where the server sends it."""

    text: str


@dataclass(frozen=True, slots=True)
class RefusalChunk:
    """Text in which the model declines."""

    text: str


@dataclass(frozen=True, slots=True)
class FinishChunk:
    """The end of a complete stream: always the last chunk, exactly once. `tool_calls` are whole, in call order.

    `is_usage_known` is False when the server did not tell the usage, whose counts are 0 then.
    """

    reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    is_usage_known: bool = True


ModelChunk = FallbackChunk | TextChunk | ReasoningChunk | RefusalChunk | FinishChunk


class Remedy(IntEnum):
    """What may still lead to an answer after a failure; the greater includes the smaller."""

    NONE = 0
    """Nothing: the answer had begun, or every model would refuse."""

    ASK_ANOTHER = 1
    """Another model. The same again would fail the same, or be paid for twice."""

    ASK_AGAIN = 2
    """The same again: the cause may pass, and nothing of an answer had come."""


class ModelError(ParleyError):
    """A model call that failed; ends the run FAILED with this reason, unless its `remedy` helps.

    The message is Parley's own sentence: never the upstream's text, which may hold keys or host names.
    """

    def __init__(
        self,
        kind: ErrorKind,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        remedy: Remedy = Remedy.NONE,
    ) -> None:
        super().__init__(message, metadata=metadata, retry_after_s=retry_after_s)
        self.remedy = remedy
        self.kind = kind  # type: ignore[misc]  # one class for all model failures; each is told by its reason
        self.reason = reason  # type: ignore[misc]


class ModelService(Protocol):
    """Asks a model. Safe to use from many runs at once; holds nothing of any user between calls."""

    def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        """Ask, and yield chunks as they arrive; the last is a FinishChunk.

        Close the generator (`contextlib.aclosing`) to stop early: the connection is dropped at once.

        Raises:
            ModelError: the call failed, or the stream ended without a finish (MODEL_STREAM_INCOMPLETE).
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
