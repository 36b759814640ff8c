"""What an MCP tool answered, as the JSON that the model is told. All of it is somebody else's word."""

import json
from collections.abc import Iterator, Sequence

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import JsonValue

from parley_server.tools.errors import ToolError

_MAX_ERROR_CHARS = 1000


def result_of(result: CallToolResult) -> dict[str, object]:
    """Return the answer: `structured` where there is some, the `text`, and `parts` where there is more than text.

    What a model cannot read as text, images and sound, is named with its size and left out.
    """
    structured = result.structured_content
    texts = [part.text for part in result.content if isinstance(part, TextContent)]
    told: dict[str, object] = {}
    if structured is not None:
        told["structured"] = structured
        # Servers repeat what is structured as text, for clients that know nothing else.
        texts = [text for text in texts if not _repeats(text, structured)]
    if texts or not (told or result.content):
        told["text"] = "\n".join(texts)
    if parts := [_part(part) for part in result.content if not isinstance(part, TextContent)]:
        told["parts"] = parts
    return told


def error_of(result: CallToolResult) -> ToolError:
    """Return the error that the tool told."""
    text = "\n".join(_texts(result.content)).strip()[:_MAX_ERROR_CHARS]
    return ToolError("tool_error", text or "The tool failed and did not say why.")


def _texts(content: Sequence[ContentBlock]) -> Iterator[str]:
    for part in content:
        if isinstance(part, TextContent):
            yield part.text
        elif isinstance(part, EmbeddedResource) and isinstance(part.resource, TextResourceContents):
            yield part.resource.text


def _repeats(text: str, structured: object) -> bool:
    if isinstance(structured, dict) and text in structured.values():
        return True
    try:
        return bool(json.loads(text) == structured)
    except (ValueError, RecursionError):
        return False


def _part(part: ContentBlock) -> dict[str, JsonValue]:
    match part:
        case ImageContent() | AudioContent():
            return _given(type=part.type, media_type=part.mime_type, size_bytes=_size(part.data), omitted=True)
        case ResourceLink():
            described = {"name": part.name, "description": part.description, "media_type": part.mime_type}
            return _given(type="resource_link", uri=part.uri, **described)
        case EmbeddedResource(resource=resource):
            named: dict[str, JsonValue] = {"uri": resource.uri, "media_type": resource.mime_type}
            if isinstance(resource, TextResourceContents):
                return _given(type="resource", **named, text=resource.text)
            return _given(type="resource", **named, size_bytes=_size(resource.blob), omitted=True)
        case TextContent():
            return {"type": "text", "text": part.text}


def _given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {key: value for key, value in fields.items() if value is not None}


def _size(base64_text: str) -> int:
    """Return how many bytes a text in base64 stands for."""
    return len(base64_text) * 3 // 4 - base64_text[-2:].count("=")
