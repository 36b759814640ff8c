"""Exports a conversation, a few messages at a time, as it stands when the export begins."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from functools import partial

from parley_server.domain.conversation import Conversation
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.export import conversation_line, message_lines
from parley_server.storage.repositories import ConversationRepository, PageRequest

# So many messages of the largest kind are as much as may be in memory at once.
PAGE_SIZE = 16


async def export_lines(
    conversations: ConversationRepository, conversation: Conversation, drain: Drain
) -> AsyncGenerator[str]:
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
            partial(conversations.messages, conversation.conversation_id, PageRequest(PAGE_SIZE, token))
        )
        for message in page.items:
            # A run that waits has its input behind the answer it waits for, which may come any time.
            if message.create_time <= end:
                for line in message_lines(message):
                    yield line
        token = page.next_token
        if not token:
            return
