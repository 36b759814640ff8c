"""One call as it goes on: what the host says, read one event at a time, until it has answered."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import grpc
from google.protobuf.message import DecodeError
from parley.v1 import tool_host_service_pb2 as pb

from parley_server.tools.remote.host_connection import EventStream
from parley_server.tools.remote.outcomes import HostFaultError

# Of one call, progress and all; an event costs something however small it is.
MAX_BYTES = 16 * 1024 * 1024
_EVENT_BYTES = 64
# How long a host may take to end what it has answered.
END_PATIENCE_S = 0.25


class Conversation:
    """Reads the events of a call. `events` is how many there were: none, and the host may have done nothing."""

    def __init__(self, stream: EventStream, report: Callable[[str, float | None], None]) -> None:
        self._stream = stream
        self._report = report
        self._bytes = 0
        self.events = 0

    async def answer(self) -> pb.CallToolResponse:
        """Return the event that answers the call; progress is reported on the way.

        Raises:
            AioRpcError: the call ended without an answer, with another status than OK.
            HostFaultError: it ended so with OK, or what came cannot be read.
        """
        while True:
            event = await self._next()
            if event.HasField("progress"):
                progress = event.progress
                self._report(progress.message, progress.fraction if progress.HasField("fraction") else None)
            elif event.WhichOneof("event") is not None:
                await self._end()
                return event

    async def _end(self) -> None:
        """Wait a moment for the end, so that a host that has answered is not cancelled; what else comes is dropped."""
        with suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(END_PATIENCE_S):
                await self._stream.read()

    async def _next(self) -> pb.CallToolResponse:
        raw = await self._stream.read()
        if not isinstance(raw, bytes):
            raise HostFaultError("it ended without an answer")
        self.events += 1
        self._bytes += len(raw) + _EVENT_BYTES
        if self._bytes > MAX_BYTES:
            raise HostFaultError(f"it said more than {MAX_BYTES} bytes")
        try:
            return pb.CallToolResponse.FromString(raw)
        except DecodeError:
            raise HostFaultError("an event cannot be read") from None
