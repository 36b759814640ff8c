"""Writes a ModelRequest as the body of a chat-completions call. Its cost hardly grows with the history."""

import base64
from collections.abc import Iterator

import msgspec

from parley_server.domain.content import ContentPart, FilePart, ImagePart, TextPart, text_of
from parley_server.domain.run import ModelOptions
from parley_server.domain.tool import ToolCall, ToolSpec
from parley_server.llm.model_errors import NotTakenError
from parley_server.llm.model_service import (
    AssistantMessage,
    ModelMessage,
    ModelRequest,
    OutputSchema,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from parley_server.llm.provider_profiles import ProviderProfile

JsonObject = dict[str, object]

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def encode_request(request: ModelRequest, profile: ProviderProfile) -> bytes:
    """Write the body as the server takes it; options that are not set are left to the server.

    What only makes an answer easier to get right is left out where the server does not take it: a response format,
    the mark of strict schemas. What would make it another answer is refused.

    Raises NotTakenError for what this model, or any, cannot be sent.
    """
    for option in _refused(request.options, profile):
        raise NotTakenError(f"this model does not take {option}", option)
    body: JsonObject = {
        "model": request.model,
        "messages": [_message(message, profile) for message in request.messages],
        "stream": True,
        **_options(request.options, profile),
    }
    if profile.stream_options:
        body["stream_options"] = {"include_usage": True}
    if request.tools and profile.tools is not False:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if not profile.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if request.output_schema is not None and ("tools" not in body or profile.format_beside_tools):
        body |= _response_format(request.output_schema, profile)
    return _encode(body)


def _refused(options: ModelOptions, profile: ProviderProfile) -> Iterator[str]:
    """Yield the options that are set and that the model is known not to take."""
    if profile.sampling is False and options.temperature is not None:
        yield "temperature"
    if profile.sampling is False and options.top_p is not None:
        yield "top_p"
    if profile.stop is False and options.stop:
        yield "stop"
    if profile.seed_field == "none" and options.seed is not None:
        yield "seed"


def _options(options: ModelOptions, profile: ProviderProfile) -> JsonObject:
    wishes: JsonObject = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        profile.max_tokens_field: options.max_output_tokens,
        "stop": options.stop or None,
        profile.seed_field: options.seed,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _response_format(schema: OutputSchema, profile: ProviderProfile) -> JsonObject:
    # Servers take objects alone.
    if profile.response_format == "none" or not schema.is_object:
        return {}
    if profile.response_format == "json_object":
        return {"response_format": {"type": "json_object"}}
    named: JsonObject = {"name": "output", "schema": msgspec.Raw(schema.json.encode())}
    if profile.strict_schemas and schema.is_strict:
        named["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _message(message: ModelMessage, profile: ProviderProfile) -> JsonObject:
    match message:
        case SystemMessage(text):
            return {"role": profile.system_role, "content": text}
        case UserMessage(parts):
            return {"role": "user", "content": _user_content(parts, profile)}
        case AssistantMessage():
            return _assistant_message(message, profile)
        case ToolMessage(call_id, content):
            return {"role": "tool", "tool_call_id": call_id, "content": content}


def _assistant_message(message: AssistantMessage, profile: ProviderProfile) -> JsonObject:
    calls = [_call(call) for call in message.tool_calls]
    written: JsonObject = {"role": "assistant", "content": message.text}
    if calls:
        written |= {"content": message.text or None, "tool_calls": calls}
    # DeepSeek wants the field with every answer that called tools, be it empty.
    if (calls and profile.replay_reasoning == "tool_calls") or profile.replay_reasoning == "always":
        written[profile.reasoning_field] = message.reasoning
    return written


def _user_content(parts: tuple[ContentPart, ...], profile: ProviderProfile) -> object:
    """Write text alone as one string, which every server takes; only images need the list form."""
    if all(isinstance(part, TextPart) for part in parts):
        return text_of(parts)
    return [_part(part, profile) for part in parts]


def _part(part: ContentPart, profile: ProviderProfile) -> JsonObject:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart() if profile.images is False:
            raise NotTakenError("this model does not take images, of which the conversation holds one", "images")
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": part.uri or _data_url(part)}}
        case FilePart():
            raise NotTakenError("the model cannot be sent uploaded files", "files")


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
