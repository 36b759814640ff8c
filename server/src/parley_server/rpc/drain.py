"""The server's farewell: once it starts, calls that wait for something wait no longer."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from parley_server.cut_off import CutOff
from parley_server.domain.call_errors import ServerDrainingError

T = TypeVar("T")


class Drain:
    """Set once, by whoever stops the server; read by everything that could outlast it. Build it in the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started = False
        self._end = math.inf
        self._waits: set[CutOff] = set()

    @property
    def started(self) -> bool:
        """Tell whether the server is stopping."""
        return self._started

    @property
    def is_over(self) -> bool:
        """Tell whether the grace is spent, and calls that still go on are cut off by the server."""
        return self._started and self._loop.time() >= self._end

    def start(self, grace_s: float = math.inf) -> None:
        """Let every wait end; calls may go on for `grace_s`. Again is no error."""
        self._started = True
        self._end = self._loop.time() + grace_s
        for wait in self._waits:
            wait.cut()

    async def bound(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Await what `wait` returns, but not beyond the start of the drain.

        Raises:
            ServerDrainingError: the drain has started; what was awaited is cancelled, or was not begun.
        """
        if self._started:
            raise ServerDrainingError
        # Costs less than a second task to race with, and every batch of every stream comes by here.
        cut_off = CutOff(self._loop)
        self._waits.add(cut_off)
        try:
            with cut_off:
                return await wait()
        except TimeoutError:
            if cut_off.is_cut:
                raise ServerDrainingError from None
            raise
        finally:
            self._waits.discard(cut_off)
