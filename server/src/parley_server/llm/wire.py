"""The chat-completions answer as it comes: typed where servers agree, `object` where they are known not to."""

import json
import math

import msgspec

from parley_server.llm.model_errors import invalid

# PostgreSQL's and every reader's numbers end far below.
_MAX_DIGITS = 400


class FunctionDelta(msgspec.Struct):
    """A part of a tool call. `arguments` is a string, a piece of one, or (on some servers) the object itself."""

    name: str | None = None
    arguments: object = None


class ToolCallDelta(msgspec.Struct):
    """One tool call's share of a chunk."""

    index: int | None = None
    id: str | int | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct):
    """What a chunk adds to the answer, or the whole message of an answer that was not streamed."""

    content: object = None
    reasoning_content: object = None
    reasoning: object = None
    refusal: object = None
    tool_calls: list[ToolCallDelta | None] | None = None
    function_call: FunctionDelta | None = None


class Choice(msgspec.Struct):
    """One alternative of the answer. A delta that is a list is an empty one that PHP wrote."""

    index: object = None
    delta: Delta | list[object] | None = None
    message: Delta | None = None
    finish_reason: object = None
    usage: object = None
    error: object = None


class Chunk(msgspec.Struct):
    """One event of the stream, or the whole answer. The last five fields are ways to say that something went wrong."""

    choices: list[Choice] | None = None
    usage: object = None
    error: object = None
    kind: object = msgspec.field(default=None, name="object")
    event_type: object = msgspec.field(default=None, name="type")
    error_message: object = None
    message: object = None
    msg: object = None
    detail: object = None


_decode_chunk = msgspec.json.Decoder(Chunk, strict=False).decode


def decode(payload: bytes) -> Chunk:
    """Read one payload. Raises ModelError MODEL_RESPONSE_INVALID when it is not a JSON object of this form.

    Texts may hold halves of characters (lone surrogates); `whole_characters` joins them.
    """
    try:
        return _decode_chunk(payload)
    except (ValueError, RecursionError):
        return _decode_leniently(payload)


def _decode_leniently(payload: bytes) -> Chunk:
    """Read JSON with broken UTF-8, lone surrogates, NaN, and numbers of any size: better than a lost answer."""
    try:
        value: object = json.loads(
            payload.decode(errors="replace"),
            parse_constant=lambda _: None,
            parse_int=_number,
            strict=False,
        )
        return msgspec.convert(value, Chunk, strict=False)
    except (ValueError, RecursionError) as error:
        raise invalid("an event is not what the protocol says") from error


def _number(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def whole_characters(text: str) -> str:
    """Join the halves of characters that came apart, and put U+FFFD for a half without its other half."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
