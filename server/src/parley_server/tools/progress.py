"""How far a call is, as its tool tells: as often as it likes, from any thread, and as events at most so often."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from parley_server.domain.content import storable_text
from parley_server.domain.run_event import ItemEvent, ToolCallProgress

MAX_PROGRESS_CHARS = 1024
INTERVAL_S = 0.5

# The calls that one execution answers, with the item of each.
CallItems = Sequence[tuple[str, str]]


class ProgressReports:
    """Emits what is reported while the block lasts: the first at once, then the newest every half second.

    What has not been emitted when the block ends never is: nothing follows a call's result.
    """

    def __init__(self, calls: CallItems, emit: Callable[[Sequence[ItemEvent]], Awaitable[None]]) -> None:
        self._calls = calls
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._newest: tuple[str, float | None] | None = None
        self._is_closed = False
        self._is_emitting = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; raises what kept the last event from being emitted."""
        with self._lock:
            self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()

    def report(self, message: str, fraction: float | None = None) -> None:
        """Take how far the call is; returns at once, from any thread."""
        with self._lock:
            if self._is_closed:
                return
            self._newest = (storable_text(message[:MAX_PROGRESS_CHARS]), _clamped(fraction))
            if self._is_emitting:
                return
            self._is_emitting = True
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if not self._is_closed:
            self._task = self._loop.create_task(self._emit_newest())

    async def _emit_newest(self) -> None:
        while (newest := self._take()) is not None:
            message, fraction = newest
            await self._emit(
                [(ToolCallProgress(call_id, message, fraction), item_id) for call_id, item_id in self._calls]
            )
            await asyncio.sleep(INTERVAL_S)

    def _take(self) -> tuple[str, float | None] | None:
        with self._lock:
            newest, self._newest = self._newest, None
            self._is_emitting = newest is not None
            return newest


def _clamped(fraction: float | None) -> float | None:
    """Bring what a tool has computed into the contract's 0 to 1; what is no number is not known."""
    if fraction is None or fraction != fraction:  # noqa: PLR0124  # true of NaN alone; math.isnan fails for huge integers
        return None
    return float(min(max(fraction, 0.0), 1.0))
