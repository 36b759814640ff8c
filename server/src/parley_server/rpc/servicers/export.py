"""Exports a conversation, a few messages at a time, as it stands when the export begins."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial

from parley_server.domain.conversation import Conversation
from parley_server.domain.message import Message, ToolCallItem
from parley_server.domain.whole_result import MAX_WHOLE_BYTES
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.export import conversation_line, message_lines, result_lines
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import UserStore

# So many messages of the largest kind are as much as may be in memory at once.
PAGE_SIZE = 16
RESPONSE_BYTES = 64 * 1024


async def export_lines(user: UserStore, conversation: Conversation, drain: Drain) -> AsyncGenerator[str]:
    """Yield the lines of a conversation; what is said in it meanwhile is left out.

    Raises:
        NotFoundError: it was deleted meanwhile; what was yielded is not all of it.
        ServerDrainingError: the server is stopping, and so is the export.
    """
    end = datetime.now(UTC)
    yield conversation_line(conversation)
    token = ""
    while True:
        page = await drain.bound(
            partial(user.conversations.messages, conversation.conversation_id, PageRequest(PAGE_SIZE, token))
        )
        for message in page.items:
            # A run that waits has its input behind the answer it waits for, which may come any time.
            if message.create_time <= end:
                for line in message_lines(message):
                    yield line
                for line in await drain.bound(partial(_lines_of_result, user, message)):
                    yield line
        token = page.next_token
        if not token:
            return


async def _lines_of_result(user: UserStore, message: Message) -> Iterable[str]:
    """Return the lines of the whole result that a message names; none for most."""
    item = message.item
    if not isinstance(item, ToolCallItem) or not item.result_id:
        return ()
    whole = await user.tool_calls.result_piece(item.result_id, 0, MAX_WHOLE_BYTES)
    return result_lines(item.result_id, whole.content.decode())


async def gathered(lines: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Put lines together until they are worth a response."""
    waiting: list[str] = []
    size = 0
    async with aclosing(lines):
        async for line in lines:
            line_bytes = len(line.encode())
            if waiting and size + line_bytes > RESPONSE_BYTES:
                yield "".join(waiting)
                waiting, size = [], 0
            waiting.append(line)
            size += line_bytes
    yield "".join(waiting)
