"""Time-outs that count waiting alone: a slow reader of the answer never makes the model look slow."""

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

from parley_server.cut_off import CutOff
from parley_server.llm.model_errors import timed_out

T = TypeVar("T")


class Patience:
    """Seconds of waiting that are left. Every wait takes from them; an event gives new ones, up to `total_s` in all.

    One timer serves all waits, since one for each would be a good part of what a chunk costs: it is set to the end of
    a wait and left there, and when it goes off it sees whether a later wait needs it again. Close it in the end.
    """

    def __init__(self, seconds: float, total_s: float = math.inf) -> None:
        self._left = min(seconds, total_s)
        self._total_left = total_s
        self.is_renewed = False
        self._loop = asyncio.get_running_loop()
        self._cut_off = CutOff(self._loop)
        # When the present wait is over; None while nothing waits.
        self._end: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def renew(self, seconds: float) -> None:
        """Start over with `seconds`."""
        self._left = min(seconds, self._total_left)
        self.is_renewed = True

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Await within what is left. Raises ModelError MODEL_TIMEOUT."""
        started = self._loop.time()
        self._end = started + self._left
        self._set_timer(self._end)
        try:
            with self._cut_off:
                return await awaitable
        except TimeoutError as error:
            raise timed_out() from error
        finally:
            self._end = None
            waited = self._loop.time() - started
            self._left -= waited
            self._total_left -= waited

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, end: float) -> None:
        if self._timer is not None and self._timer.when() <= end:
            return
        self.close()
        self._timer = self._loop.call_at(end, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._end is None:
            return
        if self._end <= self._loop.time():
            self._cut_off.cut()
        else:
            self._set_timer(self._end)
