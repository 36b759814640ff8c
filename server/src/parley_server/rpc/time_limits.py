"""Time limits of calls, all on one timer.

A call has several limits and nearly never meets one, and a timer of the event loop for each costs more than
everything else that guards the call. These are met a tick late instead.
"""

import asyncio
from types import TracebackType
from typing import Self


class TimeLimits:
    """Makes limits. The timer runs only while a limit does."""

    def __init__(self, tick_s: float) -> None:
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
            asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def stop(self, limit: "TimeLimit") -> None:
        """Watch a limit no longer."""
        self._running.discard(limit)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for limit in [limit for limit in self._running if limit.end <= now]:
            limit.meet(now)
        self._ticking = bool(self._running)
        if self._ticking:
            loop.call_later(self._tick_s, self._tick)


class TimeLimit:
    """Bounds what is awaited inside `async with`, once. Raises TimeoutError from the block when it is met."""

    __slots__ = ("_limits", "_seconds", "_timeout", "end")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self.end = 0.0

    @property
    def is_met(self) -> bool:
        """Tell whether the time was up, and the TimeoutError is this limit's."""
        return self._timeout.expired()

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.restart(self._seconds)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limits.stop(self)
        await self._timeout.__aexit__(exc_type, exc, traceback)

    def restart(self, seconds: float | None) -> None:
        """Count anew from now; None lifts the limit."""
        if seconds is None:
            self._limits.stop(self)
        else:
            self.end = asyncio.get_running_loop().time() + seconds
            self._limits.start(self)

    def meet(self, now: float) -> None:
        """Cut off what is awaited inside."""
        self._limits.stop(self)
        self._timeout.reschedule(now)
