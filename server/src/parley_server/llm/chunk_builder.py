"""Builds the chunks of a model's answer from its events: the one place that knows what servers really send."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from parley_server.domain.usage import Usage
from parley_server.llm.model_errors import incomplete, invalid
from parley_server.llm.model_service import (
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelError,
    ReasoningChunk,
    RefusalChunk,
    TextChunk,
)
from parley_server.llm.sse import SseEvent
from parley_server.llm.tool_call_builder import ToolCallBuilder, new_call_id
from parley_server.llm.wire import Choice, Chunk, Delta, decode

_DONE = b"[DONE]"
_FINISH_WORDS = {
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
}
_MAX_COUNT = 2**53


class ChunkBuilder:
    """One answer. Feed it the events of each read, then ask it to finish; what it yields does not depend on the cut.

    The text of one read comes out as one TextChunk, and reasoning and refusals likewise. A fault in the stream is
    kept until `finish`, so that what came before it is not lost.
    """

    def __init__(self, make_call_id: Callable[[], str] = new_call_id) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls = ToolCallBuilder(make_call_id)
        self._usage = Usage(model_calls=1)
        self._finish_word = ""
        self._refused = False
        self._done = False
        self._failure: ModelError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing that may still come can matter: the stream said it was done, or it failed."""
        return self._done or self._failure is not None

    @property
    def has_finish_reason(self) -> bool:
        """Whether the answer is complete; only its usage may still be on the way."""
        return bool(self._finish_word) and self._failure is None

    def feed(self, events: Iterable[SseEvent]) -> list[ModelChunk]:
        """Take the events of one read and return what they add to the answer."""
        try:
            for event in events:
                if self.is_over:
                    break
                self._take(event)
        except ModelError as failure:
            self._failure = failure
        return self._drain()

    def finish(self) -> FinishChunk:
        """Return the last chunk, once the stream has ended or `is_over`.

        Raises:
            ModelError: the stream failed, or ended without a finish reason (MODEL_STREAM_INCOMPLETE).
        """
        if self._failure is not None:
            raise self._failure
        if not self._finish_word:
            raise incomplete()
        reason = _FINISH_WORDS.get(self._finish_word, FinishReason.STOP)
        cut = reason in {FinishReason.LENGTH, FinishReason.CONTENT_FILTER}
        calls = self._calls.finish(cut=cut)
        if calls:
            reason = FinishReason.TOOL_CALLS
        elif self._refused and reason is FinishReason.STOP:
            reason = FinishReason.REFUSAL
        return FinishChunk(reason, calls, self._usage)

    def _take(self, event: SseEvent) -> None:
        if event.event_type == b"error":
            raise invalid("it reports an error")
        payload = event.payload.strip()
        if payload == _DONE:
            self._done = True
        elif payload:
            self._take_chunk(decode(payload))

    def _take_chunk(self, chunk: Chunk) -> None:
        if chunk.error or chunk.kind == "error" or (chunk.error_message and not chunk.choices):
            raise invalid("it reports an error")
        if chunk.usage:
            self._usage = _usage(chunk.usage)
        if chunk.choices:
            self._take_choice(chunk.choices[0])

    def _take_choice(self, choice: Choice) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            self._take_delta(delta)
        if choice.usage:
            self._usage = _usage(choice.usage)
        if choice.error or choice.finish_reason == "error":
            raise invalid("it reports an error")
        if choice.finish_reason and not self._finish_word:
            self._finish_word = choice.finish_reason.lower()

    def _take_delta(self, delta: Delta) -> None:
        if isinstance(delta.content, str):
            self._text.append(delta.content)
        elif isinstance(delta.content, list):
            self._take_parts(delta.content)
        # Servers that are changing the field's name send both, alike.
        reasoning = delta.reasoning_content or delta.reasoning
        if isinstance(reasoning, str):
            self._reasoning.append(reasoning)
        if isinstance(delta.refusal, str):
            self._refusal.append(delta.refusal)
        for call in delta.tool_calls or ():
            self._calls.add(call)

    def _take_parts(self, parts: list[object]) -> None:
        """Take content that is a list: text parts, and thinking that is a list of text parts again."""
        for part in parts:
            if isinstance(part, Mapping):
                self._text.extend(_texts([part]))
                thinking = part.get("thinking")
                self._reasoning.extend(_texts(thinking if isinstance(thinking, list) else [thinking]))

    def _drain(self) -> list[ModelChunk]:
        chunks: list[ModelChunk] = []
        if reasoning := _joined(self._reasoning):
            chunks.append(ReasoningChunk(reasoning))
        if text := _joined(self._text):
            chunks.append(TextChunk(text))
        if refusal := _joined(self._refusal):
            self._refused = True
            chunks.append(RefusalChunk(refusal))
        return chunks


def _joined(pieces: list[str]) -> str:
    """Empty `pieces` into one text; PostgreSQL stores no NUL."""
    text = "".join(pieces).replace("\x00", "\ufffd")
    pieces.clear()
    return text


def _texts(parts: list[object]) -> Iterator[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            yield text


def _usage(counts: object) -> Usage:
    """Read the counts of one model call under the names that servers use; what is no count is 0."""
    return Usage(
        input_tokens=_count(counts, "prompt_tokens", "input_tokens"),
        cached_input_tokens=_count(_field(counts, "prompt_tokens_details", "input_tokens_details"), "cached_tokens")
        or _count(counts, "prompt_cache_hit_tokens"),
        output_tokens=_count(counts, "completion_tokens", "output_tokens"),
        reasoning_tokens=_count(
            _field(counts, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens"
        ),
        model_calls=1,
    )


def _count(counts: object, *names: str) -> int:
    value = _field(counts, *names)
    return min(value, _MAX_COUNT) if isinstance(value, int) and value > 0 else 0


def _field(mapping: object, *names: str) -> object:
    if isinstance(mapping, Mapping):
        for name in names:
            if mapping.get(name) is not None:
                return mapping[name]
    return None
