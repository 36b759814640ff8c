"""Writes a ModelRequest as the body of a chat-completions call. Its cost hardly grows with the history."""

import base64
from urllib.parse import urlsplit

import msgspec

from parley_server.domain.content import ContentPart, FilePart, ImagePart, TextPart, text_of
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.run import ModelOptions
from parley_server.domain.tool import ToolCall, ToolSpec
from parley_server.llm.model_service import (
    AssistantMessage,
    ModelError,
    ModelMessage,
    ModelRequest,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from parley_server.llm.model_settings import OFFICIAL_BASE_URL

JsonObject = dict[str, object]

_OFFICIAL_HOST = urlsplit(OFFICIAL_BASE_URL).hostname
_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def max_tokens_field(base_url: str) -> str:
    """Name the field that limits the output.

    OpenAI's reasoning models refuse `max_tokens`; most compatible servers know nothing else and ignore
    `max_completion_tokens`, which would lift the limit in silence.
    """
    return "max_completion_tokens" if urlsplit(base_url).hostname == _OFFICIAL_HOST else "max_tokens"


def encode_request(request: ModelRequest, max_tokens_name: str) -> bytes:
    """Write the body; options that are not set are left to the server.

    Raises ModelError MODEL_REQUEST_REJECTED for content that no model can be sent.
    """
    body: JsonObject = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_options(request.options, max_tokens_name),
    }
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    return _encode(body)


def _options(options: ModelOptions, max_tokens_name: str) -> JsonObject:
    wishes: JsonObject = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        max_tokens_name: options.max_output_tokens,
        "stop": options.stop or None,
        "seed": options.seed,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _message(message: ModelMessage) -> JsonObject:
    match message:
        case SystemMessage(text):
            return {"role": "system", "content": text}
        case UserMessage(parts):
            return {"role": "user", "content": _user_content(parts)}
        case AssistantMessage(text, ()):
            return {"role": "assistant", "content": text}
        case AssistantMessage(text, calls):
            return {"role": "assistant", "content": text or None, "tool_calls": [_call(call) for call in calls]}
        case ToolMessage(call_id, content):
            return {"role": "tool", "tool_call_id": call_id, "content": content}


def _user_content(parts: tuple[ContentPart, ...]) -> object:
    """Write text alone as one string, which every server takes; only images need the list form."""
    if all(isinstance(part, TextPart) for part in parts):
        return text_of(parts)
    return [_part(part) for part in parts]


def _part(part: ContentPart) -> JsonObject:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": part.uri or _data_url(part)}}
        case FilePart():
            raise ModelError(
                ErrorKind.FAILED_PRECONDITION, Reason.MODEL_REQUEST_REJECTED, "the model cannot be sent uploaded files"
            )


def _data_url(image: ImagePart) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.content).decode()}"


def _call(call: ToolCall) -> JsonObject:
    function = {"name": call.name, "arguments": _object_text(call.arguments_json)}
    return {"id": call.call_id, "type": "function", "function": function}


def _object_text(arguments_json: str) -> str:
    """Return arguments that servers can parse: what the model wrote if it is an object, else `{}`.

    One unreadable call in the history would make some servers refuse the conversation for ever.
    """
    try:
        _decode_object(arguments_json)
    except (ValueError, RecursionError):
        return "{}"
    return arguments_json


def _tool(tool: ToolSpec) -> JsonObject:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": msgspec.Raw(tool.input_schema_json.encode()),
        },
    }
