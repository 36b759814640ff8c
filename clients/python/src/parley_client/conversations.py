"""The user's conversations and what was said in them."""

import uuid
from collections.abc import AsyncGenerator, Mapping

from parley.v1 import conversation_service_pb2 as messages
from parley.v1.conversation_pb2 import Conversation, Message
from parley.v1.conversation_service_pb2_grpc import ConversationServiceStub

from parley_client.transport import Transport


class Conversations:
    """ConversationService over one transport. Every method raises ParleyError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = ConversationServiceStub(transport.channel)

    async def create(
        self, title: str = "", *, metadata: Mapping[str, str] | None = None, request_id: str = ""
    ) -> Conversation:
        """Make an empty conversation; with a `request_id`, the same one however often it is asked for."""
        request = messages.CreateConversationRequest(
            title=title, metadata=metadata or {}, request_id=request_id or uuid.uuid4().hex
        )
        return (await self._transport.unary(self._stub.CreateConversation, request)).conversation

    async def get(self, conversation_id: str) -> Conversation:
        """Return one conversation, without its messages."""
        request = messages.GetConversationRequest(conversation_id=conversation_id)
        return (await self._transport.unary(self._stub.GetConversation, request)).conversation

    async def list(self, *, page_size: int = 0) -> AsyncGenerator[Conversation]:
        """List the user's conversations, the last changed first, fetched `page_size` at a time (0: the server's)."""
        request = messages.ListConversationsRequest(page_size=page_size)
        async for page in self._transport.pages(self._stub.ListConversations, request):
            for conversation in page.conversations:
                yield conversation

    async def messages(self, conversation_id: str, *, page_size: int = 0) -> AsyncGenerator[Message]:
        """List a conversation's messages, the oldest first, fetched `page_size` at a time (0: the server's)."""
        request = messages.ListMessagesRequest(conversation_id=conversation_id, page_size=page_size)
        async for page in self._transport.pages(self._stub.ListMessages, request):
            for message in page.messages:
                yield message
