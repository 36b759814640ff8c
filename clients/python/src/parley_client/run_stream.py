"""Following one run to its end, over as many connections as it takes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import grpc
from parley.v1.agent_service_pb2 import RunAgentRequest
from parley.v1.run_event_pb2 import RunEvent, RunFinished
from parley.v1.run_pb2 import Run

from parley_client.answer import Answer
from parley_client.errors import ParleyError, UnavailableError
from parley_client.event_call import EventCall
from parley_client.event_order import EventOrder
from parley_client.reconnect import ReconnectLimits, Reconnects, is_passing
from parley_client.rich_status import error_of_status
from parley_client.run_request import Words, steer_request
from parley_client.runs import FINAL_STATES, EventStreamCall, RunCalls

OnReconnect = Callable[[ParleyError, float], None]

_GOODBYE_S: Final = 1.0


class RunStream:
    """The events of one run, in order, each exactly once.

    An async context manager and an async iterator. When the connection breaks, the server drains or the reader was too
    slow, it attaches again after the last event it gave out; what it gave out is never lost or repeated. Leaving the
    context ends the call and never the run. One task may read it at a time; a read that was cancelled can be repeated.

    `on_reconnect`, when given, is told the cause and the wait in seconds before every attempt to attach again.
    """

    def __init__(
        self,
        calls: RunCalls,
        limits: ReconnectLimits,
        *,
        request: RunAgentRequest | None = None,
        run_id: str = "",
        after_seq: int = 0,
        on_reconnect: OnReconnect | None = None,
    ) -> None:
        self._calls = calls
        self._limits = limits
        self._request = request
        self._order = EventOrder(run_id, after_seq)
        self._reconnects = Reconnects(limits)
        self._on_reconnect = on_reconnect
        self._answer = Answer()
        self._call: EventCall | None = None
        self._first: RunEvent | None = None
        self._closed = False
        self.conversation_id = ""
        self.finished: RunFinished | None = None

    @property
    def run_id(self) -> str:
        """The run's id; known as soon as the context is entered."""
        return self._order.run_id

    @property
    def last_seq(self) -> int:
        """The seq of the last event that was read; `client.watch(run_id, last_seq)` goes on from there."""
        return self._order.last_seq

    @property
    def text(self) -> str:
        """The answer; while the run goes on, what there is of it."""
        return self._answer.text

    @property
    def output_json(self) -> str:
        """The answer as JSON that fits the schema asked for, once the run has ended; empty when there is none."""
        return self._answer.output_json

    @property
    def error(self) -> ParleyError | None:
        """What went wrong, once the run has ended FAILED. It is returned and not raised: a run's failure is data."""
        if self.finished is None or not self.finished.HasField("error"):
            return None
        return error_of_status(self.finished.error)

    async def cancel(self, reason: str = "") -> Run:
        """Ask the run to stop; its last events still come. May be called from any task. Raises ParleyError."""
        return await self._calls.cancel(self.run_id, reason)

    async def steer(self, words: Words, *, request_id: str = "") -> str:
        """Add the user's words to the run; see `ParleyClient.steer_run`. May be called from any task."""
        return await self._calls.steer(steer_request(self.run_id, words, request_id))

    async def wait(self) -> RunFinished:
        """Read to the end and return how the run ended. Raises ParleyError when the end cannot be reached."""
        async for _ in self:
            pass
        if self.finished is None:
            raise RuntimeError("the stream was closed before the run ended")
        return self.finished

    async def __aenter__(self) -> Self:
        if self._request is not None:
            self._first = await anext(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._drop_call()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        while self.finished is None and not self._closed:
            try:
                event_or_none = await self._receive()
            except ParleyError as error:
                await self._back_off(error)
                continue
            if event_or_none is not None:
                return event_or_none
        await self._say_goodbye()
        raise StopAsyncIteration

    async def _receive(self) -> RunEvent | None:
        """Read the next message; None when it has nothing for the reader."""
        if self._call is None:
            self._call = self._attach()
        event = await self._call.read()
        if event is None:
            self.finished = await self._end_of_log()
            return None
        self._order.check(event)
        self._reconnects.progress()
        if event.HasField("heartbeat"):
            return None
        self._take(event)
        return event

    def _attach(self) -> EventCall:
        self._order.attached()
        if self._request is not None and not self.run_id:
            call: EventStreamCall = self._calls.run_agent(self._request)
        else:
            call = self._calls.watch(self.run_id, self.last_seq)
        return EventCall(call, self._limits.longest_silence_s)

    def _take(self, event: RunEvent) -> None:
        self.conversation_id = event.conversation_id
        self._answer.add(event)
        if event.HasField("run_finished"):
            self.finished = event.run_finished

    async def _end_of_log(self) -> RunFinished:
        """Tell a watch that began at the end of a finished run from a stream that was cut."""
        cut = UnavailableError(grpc.StatusCode.UNAVAILABLE, "the stream ended before the run")
        if not self.run_id:
            raise cut
        run = await self._calls.get(self.run_id)
        if run.state not in FINAL_STATES or run.last_seq != self.last_seq:
            raise cut
        self.conversation_id = run.conversation_id
        self._answer.settle(run)
        return RunFinished(
            state=run.state,
            stop_reason=run.stop_reason,
            error=run.error if run.HasField("error") else None,
            usage=run.usage,
        )

    async def _back_off(self, error: ParleyError) -> None:
        self._drop_call()
        if self._closed:
            return
        if not is_passing(error):
            raise error
        delay_s = self._reconnects.next_delay_s(error)
        if self._on_reconnect is not None:
            self._on_reconnect(error, delay_s)
        await asyncio.sleep(delay_s)

    def _drop_call(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _say_goodbye(self) -> None:
        """Let the server end the call with OK instead of seeing it cancelled."""
        if self._call is None:
            return
        with suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._call.read()
        self._drop_call()
