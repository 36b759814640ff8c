"""Whether and when a failed call of a model is made again."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from parley_server.llm.model_service import ModelError, ModelRequest, Remedy

MAX_RETRY_AFTER_S = 30.0
# As long as a wait may be where another model could answer at once.
IMPATIENT_S = 2.0
BUDGET = 10.0
EARNED_BY_SUCCESS = 0.1
EARNED_PER_S = 1 / 30

_jitter = random.Random()  # noqa: S311  # no secret


class RetryBudget:
    """What one server may be asked again in all: a tenth of what it answers, and a few more for where little is asked.

    So a server that is down gets hardly more calls than without retries. Each takes one from the budget; it holds at
    most BUDGET.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._left = BUDGET
        self._counted = clock()

    def earn(self) -> None:
        """Add what a success is worth."""
        self._left = min(self._left + EARNED_BY_SUCCESS, BUDGET)

    def spend(self) -> bool:
        """Take one, if there is one left."""
        now = self._clock()
        self._left = min(self._left + (now - self._counted) * EARNED_PER_S, BUDGET)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `retries` per call, after what the server asks to wait if that is not longer than `max_retry_after_s`.

    To that comes up to `first_ceiling_s`, twice that for the second, and so on.
    """

    retries: int
    max_retry_after_s: float = MAX_RETRY_AFTER_S
    first_ceiling_s: float = 0.5

    def delay_s(self, error: ModelError, request: ModelRequest, done: int) -> float | None:
        """Return the seconds to wait before the next try, `done` of which were made; None when there is none."""
        if error.remedy is not Remedy.ASK_AGAIN or done >= self.retries:
            return None
        asked_s = error.retry_after_s or 0.0
        # Full jitter: those who failed together do not come back together.
        delay_s = asked_s + _jitter.uniform(0, self.first_ceiling_s * 2**done)
        if asked_s > self.max_retry_after_s or delay_s >= _left_s(request):
            return None
        return delay_s


def _left_s(request: ModelRequest) -> float:
    if request.deadline_time is None:
        return float("inf")
    return (request.deadline_time - datetime.now(UTC)).total_seconds()
