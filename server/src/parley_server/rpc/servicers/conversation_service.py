"""ConversationService: maps, calls one method, maps back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from parley.v1 import conversation_service_pb2 as pb

from parley_server.domain.context import RequestContext
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.conversation import read_changes, write_conversation, write_message
from parley_server.rpc.mapping.idempotency import idempotency_of
from parley_server.rpc.mapping.page import read_page
from parley_server.rpc.mapping.text import refuse_nul, texts_of
from parley_server.rpc.servicers.export import export_lines, gathered
from parley_server.storage.repositories import Store

CREATE_FAMILY = "conversation"
FORK_FAMILY = "fork_conversation"


class ConversationServicer:
    """Serves the user's conversations."""

    def __init__(self, store: Store, drain: Drain) -> None:
        self._store = store
        self._drain = drain

    async def create_conversation(
        self, context: RequestContext, request: pb.CreateConversationRequest
    ) -> pb.CreateConversationResponse:
        """Make an empty conversation."""
        refuse_nul({"title": [request.title], "metadata": texts_of(request.metadata)})
        conversation = await self._store.for_user(context).conversations.create(
            request.title, dict(request.metadata), idempotency_of(request, request.request_id, CREATE_FAMILY)
        )
        return pb.CreateConversationResponse(conversation=write_conversation(conversation))

    async def get_conversation(
        self, context: RequestContext, request: pb.GetConversationRequest
    ) -> pb.GetConversationResponse:
        """Return one conversation."""
        conversation = await self._store.for_user(context).conversations.get(request.conversation_id)
        return pb.GetConversationResponse(conversation=write_conversation(conversation))

    async def list_conversations(
        self, context: RequestContext, request: pb.ListConversationsRequest
    ) -> pb.ListConversationsResponse:
        """Return a page of the user's conversations."""
        page = await self._store.for_user(context).conversations.list(
            read_page(request.page_size, request.page_token), request.query
        )
        return pb.ListConversationsResponse(
            conversations=[write_conversation(conversation) for conversation in page.items],
            next_page_token=page.next_token,
        )

    async def list_messages(self, context: RequestContext, request: pb.ListMessagesRequest) -> pb.ListMessagesResponse:
        """Return a page of a conversation's messages."""
        page = await self._store.for_user(context).conversations.messages(
            request.conversation_id, read_page(request.page_size, request.page_token)
        )
        return pb.ListMessagesResponse(
            messages=[write_message(message) for message in page.items], next_page_token=page.next_token
        )

    async def update_conversation(
        self, context: RequestContext, request: pb.UpdateConversationRequest
    ) -> pb.UpdateConversationResponse:
        """Change what the mask names."""
        conversation = await self._store.for_user(context).conversations.update(
            request.conversation.conversation_id, read_changes(request), request.conversation.etag
        )
        return pb.UpdateConversationResponse(conversation=write_conversation(conversation))

    async def delete_conversation(
        self, context: RequestContext, request: pb.DeleteConversationRequest
    ) -> pb.DeleteConversationResponse:
        """Delete a conversation with all that belongs to it."""
        await self._store.for_user(context).conversations.delete(
            request.conversation_id, allow_missing=request.allow_missing
        )
        return pb.DeleteConversationResponse()

    async def fork_conversation(
        self, context: RequestContext, request: pb.ForkConversationRequest
    ) -> pb.ForkConversationResponse:
        """Make a conversation that begins with a copy of another's messages."""
        refuse_nul({"title": [request.title]})
        conversation = await self._store.for_user(context).conversations.fork(
            request.conversation_id,
            request.message_id,
            request.title,
            idempotency_of(request, request.request_id, FORK_FAMILY),
        )
        return pb.ForkConversationResponse(conversation=write_conversation(conversation))

    async def export_conversation(
        self, context: RequestContext, request: pb.ExportConversationRequest
    ) -> AsyncGenerator[pb.ExportConversationResponse]:
        """Return a conversation as JSON lines."""
        user = self._store.for_user(context)
        lines = export_lines(user, await user.conversations.get(request.conversation_id), self._drain)
        return _in_responses(lines)


async def _in_responses(lines: AsyncGenerator[str]) -> AsyncGenerator[pb.ExportConversationResponse]:
    async with aclosing(gathered(lines)) as pieces:
        async for piece in pieces:
            yield pb.ExportConversationResponse(json_lines=piece)
