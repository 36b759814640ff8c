"""The wire's end of one call: its message, its answers and its status, each within its time."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Never, TypeAlias, TypeVar, cast

import grpc

from parley_server.domain.call_errors import (
    CallTimeoutError,
    MalformedMessageError,
    MessageTimeoutError,
    SlowConsumerError,
)
from parley_server.domain.errors import ParleyError
from parley_server.rpc.call_metadata import REQUEST_ID_KEY
from parley_server.rpc.mapping.errors import to_status
from parley_server.rpc.message_slots import MessageSlots
from parley_server.rpc.outcome import OK, Outcome, Tally, outcome_of
from parley_server.rpc.outgoing_metadata import Metadata, outgoing
from parley_server.rpc.time_limits import TimeLimits

T = TypeVar("T")
Rpc: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

STATUS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
CERTIFICATE_KEY = "x509_pem_cert"
MAX_METADATA_BYTES = 16 * 1024
_ROUNDING_S = 0.02
_ROUNDING_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """What a call may take: bytes of metadata, and seconds for its message, for an answer, and for one write.

    Where a call may send further messages, `next_message_s` is for each of them.

    The times are met at most `tick_s` late. Of one connection at most `messages_at_once` calls are read from at a time.
    """

    max_metadata_bytes: int = MAX_METADATA_BYTES
    messages_at_once: int = 16
    first_message_s: float = 10.0
    next_message_s: float = 60.0
    unary_s: float = 30.0
    write_s: float = 60.0
    tick_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Ending:
    """A status as it is sent, with the trailing metadata."""

    message: str
    trailers: Metadata
    outcome: Outcome


class Bounds:
    """What bounds all calls alike: the limits, the clock of their times and the slots of their messages."""

    def __init__(self, limits: GuardLimits) -> None:
        self.limits = limits
        self.clock = TimeLimits(limits.tick_s)
        self.slots = MessageSlots(limits.messages_at_once)


class Exchange:
    """One call as grpc.aio sees it. `answer_s` is what a caller without a deadline gets; None for any time."""

    def __init__(self, rpc: Rpc, request_id: str, bounds: Bounds, tally: Tally, *, answer_s: float | None) -> None:
        self.tally = tally
        self.outcome = OK
        self._rpc = rpc
        self._answer_s = answer_s
        self._request_id = request_id
        self._limits = bounds.limits
        self._clock = bounds.clock
        self._slots = bounds.slots
        # One for both times: until the message is there, and from then on until the answer is.
        self._time_limit = bounds.clock.limit(bounds.limits.first_message_s)
        self._received = False
        self._headers_sent = False

    async def timed(self, work: Awaitable[T]) -> T:
        """Do what leads to an answer.

        Raises:
            MessageTimeoutError: the request's message did not arrive in time.
            CallTimeoutError: there was no answer in time.
        """
        try:
            with self._time_limit:
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
        async with self._slots.of(self._rpc.peer()):
            raw = await self._rpc.read()
        if not isinstance(raw, bytes):
            raise MalformedMessageError("a call carries exactly one whole message")
        self._received = True
        self.tally.received()
        self._time_limit.restart(self._answer_s if self._rpc.time_remaining() is None else None)
        return raw

    async def receive_next(self) -> bytes | None:
        """Read the next of a stream of requests; None when there are no more. Raises MessageTimeoutError."""
        try:
            with self._clock.limit(self._limits.next_message_s):
                raw = await self._rpc.read()
        except TimeoutError:
            raise _late_message(self._limits.next_message_s) from None
        message = _message(raw)
        if message is not None:
            self.tally.received()
        return message

    def certificate(self) -> bytes | None:
        """Return the certificate that the other end showed and the core has checked, as PEM; None without one."""
        return next(iter(self._rpc.auth_context().get(CERTIFICATE_KEY, ())), None)

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
            with self._clock.limit(self._limits.write_s):
                await self.send_headers()
                await self._rpc.write(response)
                self.tally.sent()
        except TimeoutError:
            raise SlowConsumerError("the stream's reader took nothing for too long; go on with WatchRun") from None

    def missed_deadline(self) -> bool:
        """Tell whether the caller's own deadline has passed.

        Wire and core round it, so a caller's cancel at his deadline arrives a little before it.
        """
        left_s = cast("float | None", self._rpc.time_remaining())
        rounding_s = _ROUNDING_S + _ROUNDING_SHARE * self.tally.elapsed_s()
        return left_s is not None and left_s <= rounding_s

    def ending(self, failure: ParleyError) -> Ending:
        """Return the status that tells of an error, and its metadata. Raises ValueError for what cannot be sent."""
        status = to_status(failure, self._request_id)
        trailers: list[tuple[str, str | bytes]] = [
            (REQUEST_ID_KEY, self._request_id),
            (STATUS_KEY, status.SerializeToString()),
        ]
        if failure.retry_after_s is not None:
            trailers.append((PUSHBACK_KEY, str(round(failure.retry_after_s * 1000))))
        return Ending(status.message, outgoing(trailers), outcome_of(failure))

    async def end(self, ending: Ending) -> Never:
        """End the call with a status."""
        self.outcome = ending.outcome
        try:
            # The status for a reader who takes nothing waits behind all that he has not taken.
            with self._clock.limit(self._limits.write_s):
                await self._rpc.abort(grpc.StatusCode[ending.outcome.code], ending.message, ending.trailers)
        except (TimeoutError, grpc.aio.InternalError):
            raise peer_gone() from None

    def _lateness(self) -> ParleyError:
        if self._received:
            return CallTimeoutError(f"there was no answer within {self._answer_s:g} s")
        return _late_message(self._limits.first_message_s)


def _message(read: object) -> bytes | None:
    """Return the message that was read; what is read at a call's end is none, whatever the core's types say."""
    return read if isinstance(read, bytes) else None


def _late_message(seconds: float) -> MessageTimeoutError:
    return MessageTimeoutError(
        f"the request's message did not arrive within {seconds:g} s", metadata={"timeout_s": f"{seconds:g}"}
    )


def peer_gone() -> asyncio.CancelledError:
    """Return what ends a call that nobody listens to any more: the one thing grpc.aio neither answers nor logs."""
    return asyncio.CancelledError()
