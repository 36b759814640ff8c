"""Forking a conversation: a new one that begins with a copy of another's messages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, insert, select, tuple_

from parley_server.domain.errors import NotFoundError
from parley_server.domain.identifiers import new_id
from parley_server.domain.message import Item, SummaryItem, ToolCallItem
from parley_server.domain.tool import ToolCallStatus
from parley_server.storage.sql import search
from parley_server.storage.sql.conversation_writes import insert_conversation
from parley_server.storage.sql.database import Row
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.resolutions import copy_resolutions
from parley_server.storage.sql.rows import ITEM, dump, item_of, string
from parley_server.storage.sql.tables import conversations, messages
from parley_server.storage.sql.tool_results import share_results

# So many messages of the largest kind are as much as may be in memory at once.
_CHUNK = 16
# Before the first run of the new conversation, whose own place is 1.
_COPIES_POSITION = 0

_PLACE = (messages.c.run_position, messages.c.ordinal)
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Copy:
    """What to copy: the messages up to `message_id`, empty for all; an empty `title` is the original's."""

    user_id: str
    conversation_id: str
    copy_id: str
    message_id: str
    title: str


def insert_copy(connection: Connection, copy: Copy, now: int, *, ttl: int | None) -> None:
    """Add the new conversation with its messages. Raises NotFoundError as `ConversationRepository.fork` says.

    The copies keep the times of their originals. They belong to no run: those stay where they are.
    """
    original = connection.execute(
        select(conversations.c.title).where(
            conversations.c.user_id == copy.user_id,
            conversations.c.conversation_id == copy.conversation_id,
            is_alive(now),
        )
    ).first()
    if original is None:
        raise NotFoundError("conversation")
    end = _end(connection, copy)
    insert_conversation(connection, copy.user_id, copy.copy_id, copy.title or original.title, now, ttl=ttl)
    new_ids: dict[str, str] = {}
    for chunk in _chunks(connection, copy, end):
        ordinal = len(new_ids)
        new_ids |= {string(row, "message_id"): new_id("msg") for row in chunk}
        items = [_item_of(row, new_ids) for row in chunk]
        copied = [
            _copied(row, copy, new_ids, ordinal + n, item)
            for n, (row, item) in enumerate(zip(chunk, items, strict=True))
        ]
        connection.execute(insert(messages), copied)
        search.add_messages(connection, copy.user_id, copy.copy_id, items)
        _copy_of_calls(connection, copy, chunk, items, new_ids)


def _copy_of_calls(
    connection: Connection, copy: Copy, chunk: Sequence[Row], items: Sequence[Item], new_ids: Mapping[str, str]
) -> None:
    """Copy what goes with the tool calls among the messages: large results, and what users said of those in doubt."""
    calls = {
        string(row, "message_id"): item
        for row, item in zip(chunk, items, strict=True)
        if isinstance(item, ToolCallItem)
    }
    if result_ids := [item.result_id for item in calls.values() if item.result_id]:
        share_results(connection, result_ids, copy.conversation_id, copy.copy_id)
    in_doubt = [item_id for item_id, item in calls.items() if item.status is ToolCallStatus.UNKNOWN_OUTCOME]
    copy_resolutions(connection, {item_id: new_ids[item_id] for item_id in in_doubt}, copy.copy_id)


def _end(connection: Connection, copy: Copy) -> Place | None:
    """Return the place of the last message to copy, None for the end of the conversation."""
    if not copy.message_id:
        return None
    row = connection.execute(
        select(*_PLACE).where(
            messages.c.user_id == copy.user_id,
            messages.c.message_id == copy.message_id,
            messages.c.conversation_id == copy.conversation_id,
        )
    ).first()
    if row is None:
        raise NotFoundError("message")
    return row.run_position, row.ordinal


def _chunks(connection: Connection, copy: Copy, end: Place | None) -> Iterator[Sequence[Row]]:
    """Yield the rows to copy, in order, a few at a time."""
    own = (messages.c.user_id == copy.user_id, messages.c.conversation_id == copy.conversation_id)
    statement = select(messages).where(*own)
    if end is not None:
        statement = statement.where(tuple_(*_PLACE) <= tuple_(*end))
    statement = statement.order_by(*_PLACE).limit(_CHUNK)
    place: Place = (-1, -1)
    while rows := connection.execute(statement.where(tuple_(*_PLACE) > tuple_(*place))).mappings().all():
        place = (rows[-1]["run_position"], rows[-1]["ordinal"])
        yield [dict(row) for row in rows]


def _item_of(row: Row, new_ids: Mapping[str, str]) -> Item:
    """Read an item; a summary is of the copies, which come before it as the originals do."""
    item = item_of(row)
    if not isinstance(item, SummaryItem):
        return item
    return replace(item, first_message_id=new_ids[item.first_message_id], last_message_id=new_ids[item.last_message_id])


def _copied(row: Row, copy: Copy, new_ids: Mapping[str, str], ordinal: int, item: Item) -> Row:
    return {
        **row,
        "message_id": new_ids[string(row, "message_id")],
        "item_json": dump(ITEM, item) if isinstance(item, SummaryItem) else row["item_json"],
        "conversation_id": copy.copy_id,
        "run_id": "",
        "run_position": _COPIES_POSITION,
        "ordinal": ordinal,
    }
