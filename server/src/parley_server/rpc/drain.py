"""The server's farewell: once it starts, calls that wait for something wait no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from parley_server.domain.errors import ServerDrainingError

T = TypeVar("T")


class Drain:
    """Set once, by whoever stops the server; read by everything that could outlast it."""

    def __init__(self) -> None:
        self._started = False
        self._waits: set[asyncio.Timeout] = set()

    @property
    def started(self) -> bool:
        """Tell whether the server is stopping."""
        return self._started

    def start(self) -> None:
        """Let every wait end. Again is no error."""
        self._started = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    async def bound(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Await what `wait` returns, but not beyond the start of the drain.

        Raises:
            ServerDrainingError: the drain has started; what was awaited is cancelled, or was not begun.
        """
        if self._started:
            raise ServerDrainingError
        # A deadline that is moved when it matters costs less than a second task to race with, and every batch of
        # every stream comes by here.
        scope = asyncio.timeout(None)
        self._waits.add(scope)
        try:
            async with scope:
                return await wait()
        except TimeoutError:
            if scope.expired():
                raise ServerDrainingError from None
            raise
        finally:
            self._waits.discard(scope)
