"""How large a request to a model is: its bytes, and the tokens they come to, which its server alone can count."""

from collections.abc import Iterable

from parley_server.domain.content import ContentPart, ImagePart, TextPart
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import (
    AssistantMessage,
    ModelMessage,
    ModelRequest,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from parley_server.llm.provider_profiles import ProviderProfile

BYTES_PER_TOKEN = 3.5
IMAGE_TOKENS = 1000
# What an answer is taken to have where nothing caps it.
ASSUMED_OUTPUT_TOKENS = 1024

# What a server reports beyond these is no count of what was sent.
_LEAST_BYTES_PER_TOKEN = 1.0
_MOST_BYTES_PER_TOKEN = 7.0
# Roles and brackets.
_FRAME_BYTES = 14


class TokenCount:
    """Between bytes and tokens, by what the last call was reported to have used; an estimate until then."""

    def __init__(self) -> None:
        self._bytes_per_token = BYTES_PER_TOKEN

    def observe(self, size: int, input_tokens: int) -> None:
        """Learn how many tokens so many bytes were; 0 of either is not known."""
        if size and input_tokens > 0:
            reported = size / input_tokens
            self._bytes_per_token = min(max(reported, _LEAST_BYTES_PER_TOKEN), _MOST_BYTES_PER_TOKEN)

    def tokens_of(self, size: int) -> int:
        """Return the tokens of so many bytes."""
        return round(size / self._bytes_per_token)

    def bytes_of(self, tokens: float) -> int:
        """Return the bytes of so many tokens."""
        return int(tokens * self._bytes_per_token)


def estimate_of(request: ModelRequest, profile: ProviderProfile) -> Usage:
    """Return what a call of a model may consume: what it is sent, and an answer as long as its cap."""
    cap = request.options.max_output_tokens
    return Usage(
        input_tokens=TokenCount().tokens_of(size_of_request(request, profile)),
        output_tokens=ASSUMED_OUTPUT_TOKENS if cap is None else cap,
        model_calls=1,
    )


def size_of_request(request: ModelRequest, profile: ProviderProfile) -> int:
    """Return the bytes of all a model is sent: messages, tools and the schema."""
    tools = sum(
        _FRAME_BYTES + _utf8(tool.name) + _utf8(tool.description) + _utf8(tool.input_schema_json)
        for tool in request.tools
    )
    schema = 0 if request.output_schema is None else _utf8(request.output_schema.json)
    return size_of(request.messages, profile) + tools + schema


def size_of(messages: Iterable[ModelMessage], profile: ProviderProfile) -> int:
    """Return the bytes of messages; an image counts as a fixed number, and reasoning where it is sent back."""
    return sum(_FRAME_BYTES + _size(message, profile) for message in messages)


def _size(message: ModelMessage, profile: ProviderProfile) -> int:
    match message:
        case SystemMessage(text):
            return _utf8(text)
        case UserMessage(parts):
            return sum(map(_size_of_part, parts))
        case ToolMessage(call_id, content):
            return _utf8(call_id) + _utf8(content)
        case AssistantMessage(text, calls, reasoning):
            said = sum(_FRAME_BYTES + _utf8(call.call_id + call.name + call.arguments_json) for call in calls)
            is_replayed = profile.replay_reasoning == "always" or (calls and profile.replay_reasoning == "tool_calls")
            return _utf8(text) + said + (_utf8(reasoning) if is_replayed else 0)


def _size_of_part(part: ContentPart) -> int:
    match part:
        case TextPart(text):
            return _utf8(text)
        case ImagePart():
            return int(IMAGE_TOKENS * BYTES_PER_TOKEN)
        case _:
            return 0


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
