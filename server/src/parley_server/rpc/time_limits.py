"""Time limits of calls, all on one timer.

A call has several limits and nearly never meets one, and a timer of the event loop for each costs more than
everything else that guards the call. These are met a tick late instead.
"""

import asyncio
from types import TracebackType
from typing import Self

from parley_server.cut_off import CutOff


class TimeLimits:
    """Makes limits. The timer runs only while a limit does. Build it in the running loop."""

    def __init__(self, tick_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self._running: set[TimeLimit] = set()
        self._ticking = False

    def limit(self, seconds: float) -> "TimeLimit":
        """Return a limit of that many seconds, counted from its start; met at most a tick late."""
        return TimeLimit(self, seconds)

    def start(self, limit: "TimeLimit") -> None:
        """Watch a limit."""
        self._running.add(limit)
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(self._tick_s, self._tick)

    def stop(self, limit: "TimeLimit") -> None:
        """Watch a limit no longer."""
        self._running.discard(limit)

    def _tick(self) -> None:
        now = self.loop.time()
        for limit in [limit for limit in self._running if limit.end <= now]:
            limit.meet()
        self._ticking = bool(self._running)
        if self._ticking:
            self.loop.call_later(self._tick_s, self._tick)


class TimeLimit:
    """Bounds what is awaited inside `with`, once. Raises TimeoutError from the block when it is met."""

    __slots__ = ("_cut_off", "_limits", "_seconds", "end")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._cut_off = CutOff(limits.loop)
        self.end = 0.0

    @property
    def is_met(self) -> bool:
        """Tell whether the time was up, and the TimeoutError is this limit's."""
        return self._cut_off.is_cut

    def __enter__(self) -> Self:
        self._cut_off.__enter__()
        self.restart(self._seconds)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limits.stop(self)
        self._cut_off.__exit__(exc_type, exc, traceback)

    def restart(self, seconds: float | None) -> None:
        """Count anew from now; None lifts the limit."""
        if seconds is None:
            self._limits.stop(self)
        else:
            self.end = self._limits.loop.time() + seconds
            self._limits.start(self)

    def meet(self) -> None:
        """Cut off what is awaited inside."""
        self._limits.stop(self)
        self._cut_off.cut()
