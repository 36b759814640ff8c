"""What Parley makes of a stream, in the corpus's terms: the splitter and the builder alone, without a network."""

from collections.abc import Iterable, Sequence
from itertools import count

from msgspec import structs
from parley_server.domain.errors import Reason
from parley_server.llm.chunk_builder import ChunkBuilder
from parley_server.llm.model_service import (
    FinishChunk,
    ModelChunk,
    ModelError,
    ReasoningChunk,
    RefusalChunk,
    TextChunk,
)
from parley_server.llm.sse import SseSplitter
from streams.corpus import ErrorKind, Expected, ExpectedCall, ExpectedUsage

REASONS: dict[ErrorKind, Reason] = {
    "incomplete": Reason.MODEL_STREAM_INCOMPLETE,
    "reported": Reason.MODEL_RESPONSE_INVALID,
    "malformed": Reason.MODEL_RESPONSE_INVALID,
    "too_large": Reason.MODEL_RESPONSE_INVALID,
    "authentication": Reason.MODEL_AUTHENTICATION_FAILED,
    "rate_limited": Reason.MODEL_RATE_LIMITED,
    "rejected": Reason.MODEL_REQUEST_REJECTED,
    "context_too_long": Reason.MODEL_CONTEXT_TOO_LONG,
    "unavailable": Reason.MODEL_UNAVAILABLE,
}


def read(reads: Iterable[bytes]) -> Expected:
    """Read a body that came in these reads and ended in order. Ids that the server did not send are numbered."""
    numbers = count(1)
    splitter, builder = SseSplitter(), ChunkBuilder(lambda: f"made_{next(numbers)}")
    chunks: list[ModelChunk] = []
    for piece in reads:
        chunks += builder.feed(splitter.feed(piece))
        if builder.is_over:
            break
    else:
        chunks += builder.feed(splitter.finish())
    try:
        return outcome([*chunks, builder.finish()], None)
    except ModelError as error:
        return outcome(chunks, error.reason)


def outcome(chunks: Sequence[ModelChunk], reason: Reason | None) -> Expected:
    """Say chunks, and the reason of the error that ended them if one did, in the corpus's terms."""
    last = chunks[-1] if chunks else None
    finish = last if isinstance(last, FinishChunk) else None
    assert (finish is None) == (reason is not None), "a stream ends in exactly one of a finish and an error"
    assert sum(isinstance(chunk, FinishChunk) for chunk in chunks) == (finish is not None)
    text, reasoning, refusal = (
        "".join(chunk.text for chunk in chunks if isinstance(chunk, kind))
        for kind in (TextChunk, ReasoningChunk, RefusalChunk)
    )
    if finish is None:
        return Expected("error", _kind(reason), text, reasoning, refusal)
    calls = tuple(ExpectedCall(call.call_id, call.name, call.arguments_json) for call in finish.tool_calls)
    usage = ExpectedUsage(
        finish.usage.input_tokens,
        finish.usage.output_tokens,
        finish.usage.cached_input_tokens,
        finish.usage.reasoning_tokens,
    )
    return Expected("complete", None, text, reasoning, refusal, calls, finish.reason.value, usage)


def in_parleys_terms(expected: Expected) -> Expected:
    """Parley has one reason for what was reported, malformed and too large."""
    return expected if expected.error is None else structs.replace(expected, error=_kind(REASONS[expected.error]))


def _kind(reason: Reason | None) -> ErrorKind:
    return next(kind for kind, meant in REASONS.items() if meant is reason)
