"""Keeps who guesses credentials from guessing on: counts the bad ones by where they came from."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import structlog

from parley_server.auth.peer import LOCAL_ORIGIN
from parley_server.domain.access_errors import AuthRateLimitedError

MAX_FAILURES = 20
WINDOW_S = 60.0
MAX_ORIGINS = 4096
# All users of this machine are one origin, and behind a proxy on it all callers are.
LOCAL_FACTOR = 10

_log = structlog.get_logger(__name__)


class FailureLimiter:
    """At most `max_failures` bad credentials an origin in any WINDOW_S; `clock` gives monotonic seconds.

    It remembers the MAX_ORIGINS that failed last, with at most `max_failures` times each.
    """

    def __init__(self, max_failures: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_failures = max_failures
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, origin: str) -> None:
        """Let a credential from `origin` be looked at. Raises AuthRateLimitedError that says when it may be."""
        wait_s = self._wait_s(origin)
        if wait_s > 0:
            raise AuthRateLimitedError(retry_after_s=float(math.ceil(wait_s)))

    def count(self, origin: str) -> None:
        """Count a bad credential; where as many were found while it was looked at, raise as `check` does instead."""
        self.check(origin)
        if origin not in self._failures:
            factor = LOCAL_FACTOR if origin == LOCAL_ORIGIN else 1
            self._failures[origin] = deque(maxlen=self._max_failures * factor)
        self._failures[origin].append(self._clock())
        self._failures.move_to_end(origin)
        if len(self._failures) > MAX_ORIGINS:
            self._failures.popitem(last=False)
        if self._wait_s(origin) > 0:
            _log.warning("too_many_bad_credentials", origin=origin)

    def _wait_s(self, origin: str) -> float:
        """Return how long `origin` has to wait; nothing or less if it need not."""
        failures = self._failures.get(origin)
        if failures is None or len(failures) != failures.maxlen:
            return 0.0
        return failures[0] + WINDOW_S - self._clock()
