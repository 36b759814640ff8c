"""The server's farewell: once it starts, calls that wait for something wait no longer."""

import asyncio
from collections.abc import Awaitable
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

    async def bound(self, waiting: Awaitable[T]) -> T:
        """Await, but not beyond the start of the drain.

        Raises:
            ServerDrainingError: the drain has started; what was awaited is cancelled.
        """
        # A deadline that is moved here costs less than a second task to race with, and this runs for every batch.
        scope = asyncio.timeout(0 if self._started else None)
        self._waits.add(scope)
        try:
            async with scope:
                return await waiting
        except TimeoutError:
            if scope.expired():
                raise ServerDrainingError from None
            raise
        finally:
            self._waits.discard(scope)
