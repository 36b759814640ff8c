"""What comes in from an MCP server, at a bounded pace: a flood ends the connection, and nothing else."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
import structlog
from mcp.client._transport import ReadStream, TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse

# A bucket of messages: far more than any honest server's progress reports.
MAX_BURST = 2000
MESSAGES_PER_S = 500.0
# An answer costs less, since it was asked for, and something, since it may not have been.
_ANSWER_COST = 0.1

Incoming = SessionMessage | Exception
Transport = AbstractAsyncContextManager[TransportStreams]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Intake:
    """The messages of a transport; `on_end` is called when no more will come, perhaps more than once."""

    def __init__(self, stream: ReadStream[Incoming], server: str, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._server = server
        self._on_end = on_end
        self._left = float(MAX_BURST)
        self._at = time.monotonic()

    @property
    def last_context(self) -> object:
        """The context variables of the last message's sender, which the library asks for."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Incoming:
        """Return the next message. Raises anyio.EndOfStream after the last one, and when there are too many."""
        try:
            message = await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._on_end()
            raise
        is_answer = isinstance(message, SessionMessage) and isinstance(message.message, JSONRPCResponse | JSONRPCError)
        self._spend(_ANSWER_COST if is_answer else 1.0)
        return message

    async def aclose(self) -> None:
        """Close the transport's stream."""
        self._on_end()
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Incoming:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _spend(self, cost: float) -> None:
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * MESSAGES_PER_S, MAX_BURST) - cost
        self._at = now
        if self._left < 0:
            _log.warning("mcp_server_floods", server=self._server, messages_per_s=MESSAGES_PER_S)
            self._on_end()
            raise anyio.EndOfStream


@asynccontextmanager
async def bounded(transport: Transport, server: str, on_end: Callable[[], None]) -> AsyncIterator[TransportStreams]:
    """Open a transport whose messages come in at a bounded pace; see `Intake`."""
    async with transport as (incoming, outgoing):
        yield Intake(incoming, server, on_end), outgoing
