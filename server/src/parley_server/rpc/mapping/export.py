"""A conversation as JSON lines: `{"conversation": ...}`, then a `{"message": ...}` for each message, as ProtoJSON.

A message that is too long for a line has its long texts emptied; each follows in pieces, on lines
`{"continuation": {"messageId": ..., "path": ["user", "parts", 0, "image", "data"], "text": ...}}`. Behind a tool call
whose result is too large for its message follows the whole result in pieces, on lines
`{"toolResult": {"resultId": ..., "text": ...}}`.
"""

import json
from collections.abc import Iterator

from google.protobuf.json_format import MessageToDict

from parley_server.domain.conversation import Conversation
from parley_server.domain.message import Message
from parley_server.rpc.mapping.conversation import write_conversation, write_message

# A response holds 3 MiB. What is cut is cut into pieces that stay well below, whatever JSON makes of their characters.
MAX_LINE_BYTES = 2 * 1024 * 1024
PIECE_CHARS = 256 * 1024
_LONG_CHARS = 16 * 1024

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Path = tuple[str | int, ...]


def conversation_line(conversation: Conversation) -> str:
    """Return the line of the conversation itself."""
    return json_line("conversation", MessageToDict(write_conversation(conversation)))


def message_lines(message: Message) -> Iterator[str]:
    """Yield the line of a message, and those that continue it."""
    value: Json = MessageToDict(write_message(message))
    line = json_line("message", value)
    if len(line.encode()) <= MAX_LINE_BYTES:
        yield line
        return
    long_texts: dict[Path, str] = {}
    yield json_line("message", _without_long_texts(value, (), long_texts))
    for path, text in long_texts.items():
        for start in range(0, len(text), PIECE_CHARS):
            piece: Json = {
                "messageId": message.message_id,
                "path": list(path),
                "text": text[start : start + PIECE_CHARS],
            }
            yield json_line("continuation", piece)


def result_lines(result_id: str, content: str) -> Iterator[str]:
    """Yield the lines of a whole result."""
    for start in range(0, len(content), PIECE_CHARS):
        yield json_line("toolResult", {"resultId": result_id, "text": content[start : start + PIECE_CHARS]})


def _without_long_texts(value: Json, path: Path, long_texts: dict[Path, str]) -> Json:
    """Return a copy in which long texts are empty, and note them by their paths."""
    match value:
        case dict():
            return {key: _without_long_texts(each, (*path, key), long_texts) for key, each in value.items()}
        case list():
            return [_without_long_texts(each, (*path, place), long_texts) for place, each in enumerate(value)]
        case str() if len(value) > _LONG_CHARS:
            long_texts[path] = value
            return ""
        case _:
            return value


def json_line(kind: str, value: Json) -> str:
    """Return a line that says what it holds."""
    return json.dumps({kind: value}, ensure_ascii=False, separators=(",", ":")) + "\n"
