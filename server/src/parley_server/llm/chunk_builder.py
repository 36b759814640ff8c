"""Builds the chunks of a model's answer from its events: the one place that knows what servers really send."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from parley_server.domain.usage import Usage
from parley_server.llm.finish_words import finish_reason
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
from parley_server.llm.sse import DONE, SseEvent
from parley_server.llm.tool_call_builder import ToolCallBuilder, new_call_id
from parley_server.llm.usage_counts import has_counts, read_usage
from parley_server.llm.wire import Choice, Chunk, Delta, ToolCallDelta, decode, whole_characters


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
        self._is_usage_known = False
        # Which of several alternatives is read; None until one came.
        self._alternative: int | None = None
        self._reason: FinishReason | None = None
        self._answered = False
        self._refused = False
        self._is_whole = False
        self._done = False
        self._failure: ModelError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing that may still come can matter: the stream said it was done, or it failed."""
        return self._done or self._failure is not None

    @property
    def has_finish_reason(self) -> bool:
        """Whether the answer is complete; only its usage may still be on the way."""
        return self._reason is not None and self._failure is None

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
            ModelError: the stream failed, or ended before the answer was whole (MODEL_STREAM_INCOMPLETE).
        """
        if self._failure is not None:
            raise self._failure
        if self._reason is None and not self._is_complete_without_reason():
            raise incomplete()
        reason = self._reason or FinishReason.STOP
        cut = reason in {FinishReason.LENGTH, FinishReason.CONTENT_FILTER}
        calls = self._calls.finish(cut=cut)
        if calls:
            reason = FinishReason.TOOL_CALLS
        elif self._refused and reason is FinishReason.STOP:
            reason = FinishReason.REFUSAL
        return FinishChunk(reason, calls, self._usage, is_usage_known=self._is_usage_known)

    def _is_complete_without_reason(self) -> bool:
        """Take the end of the stream for the reason, when there is an answer and no part of it is missing."""
        has_ended = self._done or self._is_whole
        return has_ended and self._answered and self._calls.are_whole()

    def _take(self, event: SseEvent) -> None:
        payload, event_type, is_cut, problem = event
        if problem:
            raise invalid(problem)
        if event_type == b"error":
            raise invalid("it reports an error")
        payload = payload.strip()
        if payload == DONE:
            self._done = True
        elif payload:
            try:
                chunk = decode(payload)
            except ModelError:
                if is_cut:
                    return
                raise
            self._take_chunk(chunk)

    def _take_chunk(self, chunk: Chunk) -> None:
        if _reports_error(chunk):
            raise invalid("it reports an error")
        self._take_usage(chunk.usage)
        if chunk.choices:
            if len(chunk.choices) > 1:
                self._choose(chunk.choices)
            may_be_message = not self._answered
            for choice in chunk.choices:
                self._take_choice(choice, may_be_message=may_be_message)

    def _take_choice(self, choice: Choice, *, may_be_message: bool) -> None:
        if isinstance(choice.index, int):
            if self._alternative is None:
                self._alternative = choice.index
            elif choice.index != self._alternative:
                return
        if isinstance(choice.delta, Delta):
            self._take_delta(choice.delta)
        elif choice.message is not None and may_be_message:
            self._take_delta(choice.message)
            self._is_whole = True
        self._take_usage(choice.usage)
        if choice.error:
            raise invalid("it reports an error")
        if choice.finish_reason and isinstance(choice.finish_reason, str):
            self._take_reason(finish_reason(choice.finish_reason))

    def _take_reason(self, reason: FinishReason) -> None:
        """Take the first; a later one counts when it tells of a cut and the first did not."""
        if self._reason in {None, FinishReason.STOP}:
            self._reason = reason

    def _choose(self, choices: list[Choice]) -> None:
        """Choose among alternatives, though one was asked for. Without indexes they are parts of one answer."""
        indexes = [choice.index for choice in choices if isinstance(choice.index, int)]
        if self._alternative is None and indexes:
            self._alternative = min(indexes)

    def _take_delta(self, delta: Delta) -> None:
        if isinstance(delta.content, str):
            if delta.content:
                self._text.append(delta.content)
        elif delta.content is not None:
            self._take_parts(delta.content if isinstance(delta.content, list) else [delta.content])
        # Servers that are changing the field's name send both, alike.
        reasoning = delta.reasoning_content or delta.reasoning
        if isinstance(reasoning, str):
            self._reasoning.append(reasoning)
        if delta.refusal and isinstance(delta.refusal, str):
            self._refusal.append(delta.refusal)
        for call in delta.tool_calls or ():
            if call is not None:
                self._calls.add(call)
        if delta.function_call is not None:
            self._calls.add(ToolCallDelta(function=delta.function_call))
        self._answered = self._answered or bool(self._text or self._refusal or self._calls)

    def _take_parts(self, parts: list[object]) -> None:
        """Take content that is a list: text parts, and thinking that is a list of text parts again."""
        for part in parts:
            if isinstance(part, Mapping):
                self._text.extend(_texts([part]))
                thinking = part.get("thinking")
                self._reasoning.extend(_texts(thinking if isinstance(thinking, list) else [thinking]))

    def _take_usage(self, counts: object) -> None:
        if counts:
            self._usage = read_usage(counts)
            self._is_usage_known = has_counts(self._usage)

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


def _reports_error(chunk: Chunk) -> bool:
    if chunk.error or chunk.kind == "error" or chunk.event_type == "error":
        return True
    if chunk.choices or chunk.usage:
        return False
    return bool(chunk.error_message or chunk.message or chunk.msg or chunk.detail)


def _joined(pieces: list[str]) -> str:
    """Empty `pieces` into one text, but for half a character at its end; PostgreSQL stores no NUL."""
    text = "".join(pieces)
    pieces.clear()
    if text.isascii():
        return text.replace("\x00", "\ufffd")
    if "\ud800" <= text[-1] <= "\udbff":
        pieces.append(text[-1])
        text = text[:-1]
    return whole_characters(text).replace("\x00", "\ufffd")


def _texts(parts: list[object]) -> Iterator[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if text and isinstance(text, str):
            yield text
