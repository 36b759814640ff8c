"""One answer of the model: its chunks become events of the run as they arrive."""

from collections.abc import AsyncIterable
from dataclasses import dataclass

from parley_server.domain.content import storable_text
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.identifiers import new_id
from parley_server.domain.run_event import (
    MODEL_FALLBACK,
    EventSink,
    ItemEvent,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    TextDelta,
    Warned,
)
from parley_server.llm.model_service import (
    FallbackChunk,
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelError,
    ModelRequest,
    ReasoningChunk,
    RefusalChunk,
    TextChunk,
)

MAX_ITEM_BYTES = 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024

_CUT = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})


@dataclass(frozen=True, slots=True)
class ModelStep:
    """What the model said in one call, and how it stopped; `events` complete its item and are yet to be emitted.

    The last of them is the `MessageCompleted` of a step that calls no tools.

    `fallback_model` answered in the place of the one that was asked; empty where that one did.
    """

    text: str
    finish: FinishChunk
    events: tuple[ItemEvent, ...]
    fallback_model: str = ""
    reasoning: str = ""

    def answered_by(self, request: ModelRequest) -> str:
        """Return the model that answered a request."""
        return self.fallback_model or request.model


async def read_step(chunks: AsyncIterable[ModelChunk], sink: EventSink) -> ModelStep:
    """Emit a model's answer as it streams in; what completes its item is left to the caller.

    Reasoning and text of one answer are one item. An answer above 1 MiB of text is cut there and counts as
    finished by LENGTH; the caller closes the stream. When the stream raises, the item stays open for the engine.

    Raises:
        ModelError: the model failed, or its stream ended without a finish.
    """
    reader = _StepReader(sink)
    step = None
    async for chunk in chunks:
        if isinstance(chunk, FinishChunk):
            # And on to the stream's end: only then can its connection be used again.
            step = reader.complete(chunk)
        elif not await reader.take(chunk):
            return reader.complete(FinishChunk(FinishReason.LENGTH, is_usage_known=False))
    if step is not None:
        return step
    raise ModelError(
        ErrorKind.UNAVAILABLE, Reason.MODEL_STREAM_INCOMPLETE, "the model's answer broke off before it was finished"
    )


class _Bounded:
    """Text that grows to at most so many bytes of UTF-8."""

    def __init__(self, max_bytes: int) -> None:
        self._parts: list[str] = []
        self._left = max_bytes
        self.is_full = False

    def add(self, text: str) -> str:
        """Take more text; return as much of it as still fits."""
        encoded = storable_text(text).encode()
        self.is_full = len(encoded) > self._left
        kept = encoded[: self._left].decode(errors="ignore")
        self._left -= len(encoded)
        self._parts.append(kept)
        return kept

    def __str__(self) -> str:
        return "".join(self._parts)


class _StepReader:
    """What has arrived so far."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._item_id = ""
        self._text = _Bounded(MAX_ITEM_BYTES)
        self._reasoning = _Bounded(MAX_ITEM_BYTES)
        self._refusal = _Bounded(MAX_REFUSAL_BYTES)
        self._fallback_model = ""

    async def take(self, chunk: FallbackChunk | TextChunk | ReasoningChunk | RefusalChunk) -> bool:
        """Emit a chunk; return whether there is room for more."""
        if isinstance(chunk, FallbackChunk):
            self._fallback_model = chunk.model
            message = f"{chunk.asked_model} is not available, so {chunk.model} answers"
            await self._sink.emit(Warned(MODEL_FALLBACK, message))
            return True
        self._item_id = self._item_id or new_id("item")
        if isinstance(chunk, RefusalChunk):
            self._refusal.add(chunk.text)
            return not self._refusal.is_full
        is_text = isinstance(chunk, TextChunk)
        gathered = self._text if is_text else self._reasoning
        kept = gathered.add(chunk.text)
        if kept:
            await self._sink.emit(TextDelta(kept) if is_text else ReasoningDelta(kept), self._item_id)
        return not gathered.is_full

    def complete(self, finish: FinishChunk) -> ModelStep:
        """End the item. A last answer always has one; a step that only calls tools has none."""
        text, reasoning = str(self._text), str(self._reasoning)
        events: list[ItemEvent] = []
        if self._item_id or not finish.tool_calls:
            item_id = self._item_id or new_id("item")
            if reasoning:
                events.append((ReasoningCompleted(reasoning), item_id))
            completed = MessageCompleted(text, incomplete=finish.reason in _CUT, refusal=str(self._refusal))
            events.append((completed, item_id))
        return ModelStep(text, finish, tuple(events), self._fallback_model, reasoning)
