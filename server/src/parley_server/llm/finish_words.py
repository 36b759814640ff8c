"""What servers say at the end of an answer, and what it means."""

from parley_server.llm.model_errors import incomplete, invalid
from parley_server.llm.model_service import FinishReason

_MEANINGS = {
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "max_completion_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "recitation": FinishReason.CONTENT_FILTER,
    "blocklist": FinishReason.CONTENT_FILTER,
    "prohibited_content": FinishReason.CONTENT_FILTER,
    "spii": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
}
_GIVEN_UP = frozenset(
    {"abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "network_error", "timeout"}
)
_FAILURES = ("error", "function_call_filter", "malformed_function_call", "unexpected_tool_call")


def finish_reason(word: str) -> FinishReason:
    """Return what a server's word for the end means; a word nobody knows means that the model stopped.

    Raises:
        ModelError: the server gave up in the middle (MODEL_STREAM_INCOMPLETE), or failed (MODEL_RESPONSE_INVALID).
    """
    word = word.strip().lower()
    if word in _GIVEN_UP:
        raise incomplete()
    if word.startswith(_FAILURES):
        raise invalid("it reports an error")
    return _MEANINGS.get(word, FinishReason.STOP)
