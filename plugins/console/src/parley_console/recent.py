"""The conversations a user can go on with."""

from datetime import UTC, datetime, timedelta
from typing import Final

from parley_client import Conversation, ParleyClient

from parley_console.screen import Style
from parley_console.terminal import Terminal

MAX_LISTED: Final = 15
_TITLE_CHARACTERS: Final = 60
_UNITS: Final = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


async def last_conversation_id(client: ParleyClient) -> str:
    """Return the id of the conversation that was used last; empty when there is none. Raises ParleyError."""
    latest = await recent_conversations(client, 1)
    return latest[0].conversation_id if latest else ""


async def recent_conversations(client: ParleyClient, most: int = MAX_LISTED) -> list[Conversation]:
    """Return the user's latest conversations, the last changed first. Raises ParleyError."""
    found: list[Conversation] = []
    async for conversation in client.conversations.list(page_size=most):
        found.append(conversation)
        if len(found) == most:
            break
    return found


def list_conversations(conversations: list[Conversation], terminal: Terminal, now: datetime) -> None:
    """Write a numbered line for each conversation."""
    if not conversations:
        terminal.line("there are no conversations yet", Style.DIM)
    for number, conversation in enumerate(conversations, start=1):
        terminal.line(f"{number:>3}  {_line(conversation, now)}")


def _line(conversation: Conversation, now: datetime) -> str:
    age = _age(now - conversation.update_time.ToDatetime(UTC)) if conversation.HasField("update_time") else ""
    under_way = "  (answering)" if conversation.active_run_id else ""
    title = " ".join(conversation.title.split()) or "untitled"
    shown = title if len(title) <= _TITLE_CHARACTERS else title[: _TITLE_CHARACTERS - 1] + "…"
    return f"{age:>11}  {conversation.conversation_id}  {shown}{under_way}"


def _age(span: timedelta) -> str:
    """Write a span in its largest unit: `3 min ago`."""
    for unit, length in _UNITS:
        if span >= length:
            return f"{span // length} {unit} ago"
    return "just now"
