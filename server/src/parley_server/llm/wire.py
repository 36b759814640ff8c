"""The chat-completions answer as it comes: typed where servers agree, `object` where they are known not to."""

import json

import msgspec

from parley_server.llm.model_errors import invalid


class FunctionDelta(msgspec.Struct):
    """A part of a tool call. `arguments` is a string, a piece of one, or (on some servers) the object itself."""

    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"")


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
    tool_calls: list[ToolCallDelta] | None = None


class Choice(msgspec.Struct):
    """One alternative of the answer; Parley asks for one and reads the first."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    usage: object = None
    error: object = None


class Chunk(msgspec.Struct):
    """One event of the stream, or the whole answer."""

    choices: list[Choice] | None = None
    usage: object = None
    error: object = None
    error_message: object = None
    kind: object = msgspec.field(default=None, name="object")


_decode_chunk = msgspec.json.Decoder(Chunk, strict=False).decode
_decode_string = msgspec.json.Decoder(str).decode


def decode(payload: bytes) -> Chunk:
    """Read one payload. Raises ModelError MODEL_RESPONSE_INVALID when it is not a JSON object of this form."""
    try:
        return _decode_chunk(payload)
    except (ValueError, RecursionError):
        return _decode_repaired(payload)


def _decode_repaired(payload: bytes) -> Chunk:
    try:
        return _decode_chunk(_repair(payload))
    except (ValueError, RecursionError) as error:
        raise invalid("an event is not what the protocol says") from error


def decode_string(raw: bytes) -> str:
    """Read a JSON string that `decode` left raw: its quotes were checked, its characters were not."""
    try:
        return _decode_string(raw)
    except ValueError:
        return _decode_string(_repair(raw))


def _repair(payload: bytes) -> bytes:
    """Write JSON anew without broken UTF-8, lone surrogates and NaN: a replacement character beats a lost answer.

    Raises ValueError or RecursionError when it is no JSON even so.
    """
    value: object = json.loads(payload.decode(errors="replace"), parse_constant=lambda _: None, strict=False)
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")
