"""A model that answers the user's last words, in two pieces with a pause between that a test may end."""

import asyncio
from collections.abc import AsyncGenerator

from parley_server.domain.content import text_of
from parley_server.domain.context import RequestContext
from parley_server.llm.model_service import (
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelRequest,
    TextChunk,
    UserMessage,
)


class TalkingModel:
    """Says `On `, waits, and names what it was asked last. `asked` tells of each question, in order."""

    def __init__(self, *, waits: bool = True) -> None:
        self.asked: list[list[str]] = []
        self.may_end = asyncio.Event()
        self._spoken = asyncio.Condition()
        if not waits:
            self.may_end.set()

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        words = [_words(message) for message in request.messages[1:]]
        yield TextChunk("On ")
        async with self._spoken:
            self.asked.append(words)
            self._spoken.notify_all()
        await self.may_end.wait()
        last = next(text_of(each.parts) for each in reversed(request.messages) if isinstance(each, UserMessage))
        yield TextChunk(last)
        yield FinishChunk(FinishReason.STOP)

    async def questions(self, number: int) -> None:
        """Wait until it was asked so often and has begun to answer."""
        async with asyncio.timeout(10), self._spoken:
            await self._spoken.wait_for(lambda: len(self.asked) >= number)

    async def aclose(self) -> None:
        """Nothing to close."""


def _words(message: object) -> str:
    """Write a message of a request as `who: what`."""
    if isinstance(message, UserMessage):
        return f"user: {text_of(message.parts)}"
    return f"{type(message).__name__.removesuffix('Message').lower()}: {getattr(message, 'text', '')}"
