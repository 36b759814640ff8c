"""Requests a minute, counted in memory: the generic cell rate algorithm, which keeps one number for each counter.

A counter holds the time at which it will be empty again. Each request puts that off by one interval; one that would put
it off further than a burst is refused, and changes nothing.
"""

import time
from collections.abc import Callable, Sequence

from parley_server.domain.quota import Limit, Subject
from parley_server.domain.quota_errors import refusal

MINUTE_NS = 60_000_000_000
# Below so many counters nobody looks for those that are empty.
LEAST_SWEPT = 4096

Counter = tuple[str, Subject]


class RequestRates:
    """The counters of one process. `clock` is monotonic, in nanoseconds."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._empty_at: dict[Counter, int] = {}
        self._sweep_above = LEAST_SWEPT

    def __len__(self) -> int:
        return len(self._empty_at)

    def take(self, limits: Sequence[Limit]) -> None:
        """Count one request against all of these limits, or against none of them.

        Raises:
            QuotaExceededError: one of them leaves no room; `retry_after_s` is when all of them will.
        """
        now = self._clock()
        refused = [(wait_ns, limit) for limit in limits if (wait_ns := self._wait_ns(limit, now)) > 0]
        if refused:
            wait_ns, limit = max(refused, key=lambda each: each[0])
            raise refusal(limit, wait_ns / 1e9)
        for limit in limits:
            counter = limit.rule, limit.subject
            self._empty_at[counter] = max(self._empty_at.get(counter, now), now) + _interval_ns(limit)
        if len(self._empty_at) > self._sweep_above:
            self._sweep(now)

    def counted(self, limit: Limit) -> int:
        """Return how many requests a limit still counts: with `limit.burst` of them it leaves no room."""
        now = self._clock()
        ahead = max(self._empty_at.get((limit.rule, limit.subject), now) - now, 0)
        return -(-ahead // _interval_ns(limit))

    def _wait_ns(self, limit: Limit, now: int) -> int:
        """Return how long a request has to wait; 0 or less: not at all."""
        tolerance = _interval_ns(limit) * (limit.burst - 1)
        return self._empty_at.get((limit.rule, limit.subject), now) - now - tolerance

    def _sweep(self, now: int) -> None:
        self._empty_at = {counter: empty_at for counter, empty_at in self._empty_at.items() if empty_at > now}
        self._sweep_above = max(2 * len(self._empty_at), LEAST_SWEPT)


def _interval_ns(limit: Limit) -> int:
    """Return what one request puts a counter off by, rounded up so that no minute has one more."""
    return -(-MINUTE_NS // limit.amount)
