"""Conversations and their messages."""

from parley.v1 import conversation_pb2 as pb
from parley.v1 import conversation_service_pb2 as service_pb

from parley_server.domain.conversation import Conversation, ConversationChanges
from parley_server.domain.errors import InvalidRequestError
from parley_server.domain.message import AssistantItem, Message, SummaryItem, ToolCallItem, UserItem
from parley_server.rpc.mapping.content import write_parts
from parley_server.rpc.mapping.enums import TOOL_CALL_STATUS_NUMBERS, TOOL_EFFECT_NUMBERS
from parley_server.rpc.mapping.text import refuse_nul, texts_of
from parley_server.rpc.mapping.timestamps import optional_timestamp, to_timestamp

_CHANGEABLE = frozenset({"metadata", "title"})


def write_conversation(conversation: Conversation) -> pb.Conversation:
    """Return a conversation as it stands."""
    return pb.Conversation(
        conversation_id=conversation.conversation_id,
        title=conversation.title,
        metadata=conversation.metadata,
        create_time=to_timestamp(conversation.create_time),
        update_time=to_timestamp(conversation.update_time),
        expire_time=optional_timestamp(conversation.expire_time),
        active_run_id=conversation.active_run_id,
        etag=conversation.etag,
    )


def read_changes(request: service_pb.UpdateConversationRequest) -> ConversationChanges:
    """Return what the mask names. Raises InvalidRequestError for another path, and for NUL in what it names."""
    named, given = set(request.update_mask.paths), request.conversation
    # The rule on the mask lets what is inside of these pass, and there is nothing.
    if not named <= _CHANGEABLE:
        raise InvalidRequestError.of("update_mask", f"must name only {' and '.join(sorted(_CHANGEABLE))}")
    title = given.title if "title" in named else None
    metadata = dict(given.metadata) if "metadata" in named else None
    refuse_nul({"conversation.title": [title or ""], "conversation.metadata": texts_of(metadata or {})})
    return ConversationChanges(title, metadata)


def write_message(message: Message) -> pb.Message:
    """Return one item of the history."""
    target = pb.Message(
        message_id=message.message_id,
        conversation_id=message.conversation_id,
        run_id=message.run_id,
        create_time=to_timestamp(message.create_time),
        incomplete=message.incomplete,
    )
    match message.item:
        case UserItem() as item:
            target.user.parts.extend(write_parts(item.parts))
        case AssistantItem() as item:
            target.assistant.CopyFrom(_write_assistant(item))
        case ToolCallItem() as item:
            target.tool_call.CopyFrom(_write_tool_call(item))
        case SummaryItem() as item:
            target.summary.text = item.text
            target.summary.first_message_id = item.first_message_id
            target.summary.last_message_id = item.last_message_id
    return target


def _write_assistant(item: AssistantItem) -> pb.AssistantMessage:
    return pb.AssistantMessage(
        text=item.text, refusal=item.refusal, output_json=item.output_json, reasoning_text=item.reasoning_text
    )


def _write_tool_call(item: ToolCallItem) -> pb.ToolCallMessage:
    return pb.ToolCallMessage(
        call_id=item.call_id,
        name=item.name,
        arguments_json=item.arguments_json,
        effect=TOOL_EFFECT_NUMBERS[item.effect],
        status=TOOL_CALL_STATUS_NUMBERS[item.status],
        result_json=item.result_json,
        truncated=item.truncated,
        result_id=item.result_id,
    )
