"""What a chat-completions request means to the script: what the user said, or what a tool answered."""

import json
from dataclasses import dataclass

from pydantic import BaseModel, Field, JsonValue


class ChatFunction(BaseModel):
    """The function of a tool, or of a call of one."""

    name: str = ""
    arguments: str = ""


class ChatTool(BaseModel):
    """A tool the model may call."""

    function: ChatFunction = ChatFunction()


class ChatToolCall(BaseModel):
    """A call the model made before."""

    id: str = ""
    function: ChatFunction = ChatFunction()


class ContentPart(BaseModel):
    """A part of a message; only text is read."""

    text: str = ""


class ChatMessage(BaseModel):
    """One message of the conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The message's text, parts joined."""
        if isinstance(self.content, list):
            return "\n\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class StreamOptions(BaseModel):
    """What the stream is to carry besides the answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat-completions request; fields that a script cannot use are ignored."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[ChatTool] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """The result that a request ends with, and the call it answers."""

    name: str
    arguments: JsonValue
    result_text: str

    @property
    def result(self) -> JsonValue:
        """The result as JSON; None when it is not."""
        return _json(self.result_text)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the script decides by. `tool_turn` is None when it is the user's turn that is to be answered."""

    user_text: str
    offered_tools: frozenset[str]
    tool_turn: ToolTurn | None = None
    model: str = ""


def situation_of(request: ChatRequest) -> Situation:
    """Find the last thing the user said and, if tools have answered since, the last answer."""
    user_text = next((message.text for message in reversed(request.messages) if message.role == "user"), "")
    offered = frozenset(tool.function.name for tool in request.tools or ())
    last = request.messages[-1]
    tool_turn = _tool_turn(request, last) if last.role == "tool" else None
    return Situation(user_text, offered, tool_turn, request.model)


def _tool_turn(request: ChatRequest, last: ChatMessage) -> ToolTurn:
    calls = [call for message in request.messages for call in message.tool_calls or () if call.id == last.tool_call_id]
    call = calls[-1].function if calls else ChatFunction()
    return ToolTurn(call.name, _json(call.arguments), last.text)


def _json(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value
