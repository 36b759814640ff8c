"""The door to a language model: what is asked of it and what streams back, whoever serves it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

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
    """What the model answered before, with the tool calls it made."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """What a tool call came to; every call of an AssistantMessage is followed by exactly one, in call order."""

    call_id: str
    content: str


ModelMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of the model. `model` is never empty here."""

    model: str
    messages: tuple[ModelMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    options: ModelOptions = ModelOptions()


class FinishReason(StrEnum):
    """Why the model stopped. Complete tool calls make it TOOL_CALLS whatever the server said."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"


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
    """The end of a complete stream: always the last chunk, exactly once. `tool_calls` are whole, in call order."""

    reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()


ModelChunk = TextChunk | ReasoningChunk | RefusalChunk | FinishChunk


class ModelError(ParleyError):
    """A model call that failed; ends the run FAILED with this reason.

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
    ) -> None:
        super().__init__(message, metadata=metadata, retry_after_s=retry_after_s)
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
