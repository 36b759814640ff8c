"""When a broken stream is tried again, how soon, and for how long."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from parley_client.errors import ClientClosedError, ParleyError, ProtocolError

# A reset stream, a connection age that ran out or the deadline of one call: made on the way, so without a reason.
_TRANSPORT_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)

_jitter = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class ReconnectLimits:
    """How long a stream is tried again, in seconds, counted from the first failure after its last sign of life.

    `connect_for_s` holds until the first such sign, so that a wrong address is told soon, and counts from the start;
    `reconnect_for_s` holds after it. The
    waits between attempts are random, up to `first_delay_s` at first and twice as much each time, to `longest_delay_s`.
    A stream without a message for `longest_silence_s` is taken for dead; the server sends a heartbeat every 15 s.
    """

    connect_for_s: float = 10.0
    reconnect_for_s: float = 60.0
    first_delay_s: float = 0.2
    longest_delay_s: float = 5.0
    longest_silence_s: float = 60.0


DEFAULT_LIMITS: Final = ReconnectLimits()


def is_passing(error: ParleyError) -> bool:
    """Say whether a stream that ended with `error` may be attached again."""
    if isinstance(error, ProtocolError | ClientClosedError):
        return False
    if error.code is grpc.StatusCode.UNAVAILABLE or error.reason == "SLOW_CONSUMER":
        return True
    return not error.reason and error.code in _TRANSPORT_CODES


class Reconnects:
    """The back-off of one stream: exponential with full jitter, within a budget of time without progress."""

    def __init__(self, limits: ReconnectLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._budget_s = limits.connect_for_s
        self._failing_since: float | None = clock()
        self._attempts = 0

    def progress(self) -> None:
        """Note a sign of life: the next failure starts the back-off afresh."""
        self._budget_s = self._limits.reconnect_for_s
        # Silence that was waited out is no time that was spent on attempts.
        self._failing_since = None
        self._attempts = 0

    def next_delay_s(self, error: ParleyError) -> float:
        """Return how long to wait before the next attempt, in seconds. Raises `error` when the budget is used up."""
        if error.reason:  # the server itself said it, so the address is right
            self._budget_s = self._limits.reconnect_for_s
        ceiling_s = min(self._limits.longest_delay_s, self._limits.first_delay_s * 2**self._attempts)
        delay_s = (error.retry_after_s or 0.0) + _jitter.uniform(0, ceiling_s)
        if self._failing_since is None:
            self._failing_since = self._clock()
        if self._clock() + delay_s > self._failing_since + self._budget_s:
            raise error
        self._attempts += 1
        return delay_s
