"""Threads for tools that are no coroutines: so many places, and a thread keeps its own until it ends.

The threads are daemons: the process never waits for them when it stops.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from parley_server.tools.errors import ToolError

DEFAULT_THREADS = 16
# The rest of its time-out is left to the tool, which so never begins with no time to work.
_PATIENCE_SHARE = 0.5

T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What a function came to: its value, or what it raised. A future takes no StopIteration as its exception."""

    values: tuple[T, ...] = ()
    error: BaseException | None = None


class ToolThreads:
    """Runs functions of tools, at most `places` at once. Use it from one event loop."""

    def __init__(self, places: int = DEFAULT_THREADS) -> None:
        self._places = places
        self._free = asyncio.Semaphore(places)
        self._stuck = 0

    @property
    def stuck(self) -> int:
        """How many threads still run though their call has been answered."""
        return self._stuck

    async def run(self, function: Callable[[], T], *, name: str, timeout_s: float) -> T:
        """Run a function in a thread, with a copy of the caller's context variables; return or raise what it does.

        When this is cancelled the thread runs on, and keeps its place until it ends.

        Raises:
            ToolError: `unavailable`, when no place became free in half the time-out; nothing happened.
        """
        await self._take_place(name, timeout_s * _PATIENCE_SHARE)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[_Outcome[T]] = loop.create_future()

        def work() -> None:
            outcome = _outcome(context, function)
            try:
                loop.call_soon_threadsafe(self._end, ended, outcome, name)
            except RuntimeError:
                # The server has stopped meanwhile, and nobody waits for the outcome or the place.
                if not loop.is_closed():
                    raise

        context = contextvars.copy_context()
        try:
            threading.Thread(target=work, name=f"tool {name}", daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise
        return _result(await self._wait(ended, name))

    async def _take_place(self, name: str, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                await self._free.acquire()
        except TimeoutError:
            _log.warning("tool_threads_exhausted", tool=name, places=self._places, stuck=self._stuck)
            hint = "Try again later."
            raise ToolError("unavailable", "The tool is busy.", hint=hint, retryable=True) from None

    async def _wait(self, ended: "asyncio.Future[_Outcome[T]]", name: str) -> _Outcome[T]:
        try:
            return await ended
        except asyncio.CancelledError:
            # It may have ended in the very moment of the cancel.
            if ended.cancelled():
                self._stuck += 1
                _log.warning("tool_thread_left_behind", tool=name, places=self._places, stuck=self._stuck)
            raise

    def _end(self, ended: "asyncio.Future[_Outcome[T]]", outcome: _Outcome[T], name: str) -> None:
        self._free.release()
        if not ended.cancelled():
            ended.set_result(outcome)
            return
        self._stuck -= 1
        _log.info("tool_thread_ended_late", tool=name, places=self._places, stuck=self._stuck)


def _outcome(context: contextvars.Context, function: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome((context.run(function),))
    except BaseException as error:  # noqa: BLE001  # raised again where the call waits
        return _Outcome(error=error)


def _result(outcome: _Outcome[T]) -> T:
    if outcome.error is not None:
        raise outcome.error
    [value] = outcome.values
    return value
