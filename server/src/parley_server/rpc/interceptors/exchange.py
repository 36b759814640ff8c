"""The wire's end of one call: its message, its answers and its status, each within its time."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Never, TypeAlias, TypeVar

import grpc

from parley_server.domain.errors import (
    CallTimeoutError,
    MalformedMessageError,
    MessageTimeoutError,
    ParleyError,
    SlowConsumerError,
)
from parley_server.rpc.call_metadata import REQUEST_ID_KEY
from parley_server.rpc.mapping.errors import to_status
from parley_server.rpc.time_limits import TimeLimits

T = TypeVar("T")
Rpc: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

STATUS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
MAX_METADATA_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """What a call may take: bytes of metadata, and seconds for its message, for an answer, and for one write.

    The times are met at most `tick_s` late.
    """

    max_metadata_bytes: int = MAX_METADATA_BYTES
    first_message_s: float = 10.0
    unary_s: float = 30.0
    write_s: float = 60.0
    tick_s: float = 0.5


class Exchange:
    """One call as grpc.aio sees it. `answer_s` is what a caller without a deadline gets; None for any time."""

    def __init__(
        self, rpc: Rpc, request_id: str, limits: GuardLimits, clock: TimeLimits, *, answer_s: float | None
    ) -> None:
        self._rpc = rpc
        self._answer_s = answer_s
        self._request_id = request_id
        self._limits = limits
        self._clock = clock
        # One for both times: until the message is there, and from then on until the answer is.
        self._time_limit = clock.limit(limits.first_message_s)
        self._received = False
        self._headers_sent = False

    async def timed(self, work: Awaitable[T]) -> T:
        """Do what leads to an answer.

        Raises:
            MessageTimeoutError: the request's message did not arrive in time.
            CallTimeoutError: there was no answer in time.
        """
        try:
            async with self._time_limit:
                return await work
        except TimeoutError:
            if self._time_limit.is_met:
                raise self._lateness() from None
            raise

    async def receive(self) -> bytes:
        """Read the request's one message; a caller without a deadline gets one now. Only within `timed`.

        Raises:
            MalformedMessageError: the call ended without a whole message.
        """
        raw = await self._rpc.read()
        if not isinstance(raw, bytes):
            raise MalformedMessageError("a call carries exactly one whole message")
        self._received = True
        self._time_limit.restart(self._answer_s if self._rpc.time_remaining() is None else None)
        return raw

    async def send_headers(self) -> None:
        """Send the initial metadata, once.

        With the first response and not before, because a status without headers is one that clients may retry.
        """
        if not self._headers_sent:
            self._headers_sent = True
            await self._rpc.send_initial_metadata(((REQUEST_ID_KEY, self._request_id),))

    async def write(self, response: bytes) -> None:
        """Send one response of a stream. Raises SlowConsumerError when the reader does not take it."""
        try:
            async with self._clock.limit(self._limits.write_s):
                await self.send_headers()
                await self._rpc.write(response)
        except TimeoutError:
            raise SlowConsumerError("the stream's reader took nothing for too long; go on with WatchRun") from None

    async def fail(self, failure: ParleyError) -> Never:
        """End the call with an error's status."""
        status = to_status(failure, self._request_id)
        trailers: list[tuple[str, str | bytes]] = [
            (REQUEST_ID_KEY, self._request_id),
            (STATUS_KEY, status.SerializeToString()),
        ]
        if failure.retry_after_s is not None:
            trailers.append((PUSHBACK_KEY, str(round(failure.retry_after_s * 1000))))
        try:
            # The status for a reader who takes nothing waits behind all that he has not taken.
            async with self._clock.limit(self._limits.write_s):
                await self._rpc.abort(grpc.StatusCode[failure.kind.name], status.message, tuple(trailers))
        except (TimeoutError, grpc.aio.InternalError):
            raise peer_gone() from None

    def _lateness(self) -> ParleyError:
        if self._received:
            return CallTimeoutError(f"there was no answer within {self._answer_s:g} s")
        limit = f"{self._limits.first_message_s:g}"
        return MessageTimeoutError(
            f"the request's message did not arrive within {limit} s", metadata={"timeout_s": limit}
        )


def peer_gone() -> asyncio.CancelledError:
    """Return what ends a call that nobody listens to any more: the one thing grpc.aio neither answers nor logs."""
    return asyncio.CancelledError()
