"""Messages: the finished items of a conversation, in order, as the model and the user see them again."""

from dataclasses import dataclass
from datetime import datetime

from parley_server.domain.content import ContentPart
from parley_server.domain.resolution import Resolution
from parley_server.domain.tool import ToolCallStatus, ToolEffect


@dataclass(frozen=True, slots=True)
class UserItem:
    """What the user said."""

    parts: tuple[ContentPart, ...]


@dataclass(frozen=True, slots=True)
class AssistantItem:
    """What the model said; `refusal` where it declined.

    `objection` is what the model was told because its answer did not fit the schema asked for; its next one mends that.
    """

    text: str
    refusal: str = ""
    output_json: str = ""
    reasoning_text: str = ""
    objection: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallItem:
    """A tool call together with what it came to; `effect` is None for a tool the agent does not have."""

    call_id: str
    name: str
    arguments_json: str
    effect: ToolEffect | None
    status: ToolCallStatus
    result_json: str
    truncated: bool = False
    result_id: str = ""


@dataclass(frozen=True, slots=True)
class SummaryItem:
    """What the model is shown in the place of earlier messages, from the first to the last of these; they stay."""

    first_message_id: str
    last_message_id: str
    text: str


Item = UserItem | AssistantItem | ToolCallItem | SummaryItem


@dataclass(frozen=True, slots=True)
class Message:
    """One item of a conversation. `incomplete` marks text that was cut.

    `resolution` is what the user said later of a tool call in doubt; only a history, for the model, has it.
    """

    message_id: str
    conversation_id: str
    run_id: str
    create_time: datetime
    item: Item
    incomplete: bool = False
    resolution: Resolution | None = None
