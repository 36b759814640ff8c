"""A circuit breaker: it stops calls to what mostly fails, and lets one through now and then to see."""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from time import monotonic

WINDOW_S = 10.0
MIN_CALLS = 20
MAX_FAILED_SHARE = 0.5
PROBE_INTERVAL_S = 5.0

_SLOT_S = 1.0


class BreakerState(IntEnum):
    """The state by its usual name; the numbers are those of the metric."""

    CLOSED = 0
    """Every call is made."""

    HALF_OPEN = 1
    """A probe is under way; no other call is made."""

    OPEN = 2
    """No call is made before the next probe is due."""


class Breaker:
    """The breaker of one model, or one tool host.

    A call that was admitted reports with its pass how it went; one that was given up need not.

    It opens when half of at least MIN_CALLS within WINDOW_S failed. Then a probe is admitted every PROBE_INTERVAL_S,
    whatever became of the one before, and the first that reaches the server closes it. Reports of calls that were
    admitted before the last change tell of a time that is over, and count for nothing.
    """

    def __init__(self, on_change: Callable[[BreakerState], None], clock: Callable[[], float] = monotonic) -> None:
        self._on_change = on_change
        self._clock = clock
        self._recent = _Recent()
        # Grows whenever the breaker closes or opens; the pass of a call is the one it was admitted in.
        self._period = 0
        self._next_probe = 0.0
        self.state = BreakerState.CLOSED

    def admit(self) -> int | None:
        """Return the pass of a call that may be made; None when it may not."""
        if self.state is not BreakerState.CLOSED:
            now = self._clock()
            if now < self._next_probe:
                return None
            self._next_probe = now + PROBE_INTERVAL_S
            self._change(BreakerState.HALF_OPEN)
        return self._period

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next probe, after which calls may be made again."""
        return max(self._next_probe - self._clock(), 0.0)

    def succeeded(self, admitted: int) -> None:
        """Report that an answer came, or began to."""
        self.reached(admitted)
        if admitted == self._period:
            self._recent.add(self._clock(), failed=False)

    def reached(self, admitted: int) -> None:
        """Report that the server answered, if only by refusing: that speaks for it, and counts as no call."""
        if admitted == self._period and self.state is not BreakerState.CLOSED:
            self._begin_period(BreakerState.CLOSED)

    def failed(self, admitted: int) -> None:
        """Report that the server failed."""
        if admitted != self._period:
            return
        if self.state is not BreakerState.CLOSED:
            self._change(BreakerState.OPEN)
            return
        now = self._clock()
        self._recent.add(now, failed=True)
        if self._recent.is_mostly_failures(now):
            self._next_probe = now + PROBE_INTERVAL_S
            self._begin_period(BreakerState.OPEN)

    def _begin_period(self, state: BreakerState) -> None:
        self._period += 1
        self._recent = _Recent()
        self._change(state)

    def _change(self, state: BreakerState) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)


class _Recent:
    """The calls of the last WINDOW_S, counted in slots of a second: however many they are, they take the same room."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, list[int]]] = deque()

    def add(self, now: float, *, failed: bool) -> None:
        slot = int(now / _SLOT_S)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append((slot, [0, 0]))
            self._forget(now)
        self._slots[-1][1][failed] += 1

    def is_mostly_failures(self, now: float) -> bool:
        self._forget(now)
        calls = sum(sum(counts) for _, counts in self._slots)
        failures = sum(counts[True] for _, counts in self._slots)
        return calls >= MIN_CALLS and failures >= calls * MAX_FAILED_SHARE

    def _forget(self, now: float) -> None:
        oldest = int(now / _SLOT_S) - int(WINDOW_S / _SLOT_S)
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()
