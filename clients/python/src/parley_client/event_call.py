"""One streaming call of RunAgent or WatchRun, read event by event."""

import asyncio

import grpc
from grpc import aio
from parley.v1.agent_service_pb2 import RunAgentResponse, WatchRunResponse
from parley.v1.run_event_pb2 import RunEvent

from parley_client.errors import ProtocolError, UnavailableError
from parley_client.runs import EventStreamCall
from parley_client.transport import parley_errors


class EventCall:
    """Reads one call; one that is silent for `longest_silence_s` is dead, whatever TCP believes."""

    def __init__(self, call: EventStreamCall, longest_silence_s: float) -> None:
        self._call = call
        self._longest_silence_s = longest_silence_s

    async def read(self) -> RunEvent | None:
        """Return the next event; None when the server ended the call with OK. Raises ParleyError."""
        with parley_errors():
            try:
                async with asyncio.timeout(self._longest_silence_s):
                    response = await self._call.read()
            except TimeoutError:
                raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "the server has gone silent") from None
        if response is aio.EOF:
            return None
        if not isinstance(response, RunAgentResponse | WatchRunResponse):
            raise ProtocolError("an event could not be read")
        return response.event

    def cancel(self) -> None:
        """End the call, never the run; nothing happens when it has ended."""
        self._call.cancel()
