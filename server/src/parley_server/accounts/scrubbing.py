"""Making what was deleted leave the database's files, for all erasures that wait for it together.

Nobody writes meanwhile, and any user may ask for it: who has himself erased again and again must not stop the others.
"""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable

from parley_server.storage.erasures import Erasures

# So that it takes a tenth of the time at most, however many want to be erased.
REST = 9.0
# It works half of the time at most, so that others get their turn.
_PAUSE = 1.0


class SharedScrub:
    """One at a time, and then a rest of REST times as long. `clock` gives seconds, `sleep` waits for some."""

    def __init__(
        self,
        erasures: Erasures,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._erasures = erasures
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._earliest = clock()
        self._next: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self) -> None:
        """Wait for one that begins from now on, and for its end. Raises StorageUnavailableError."""
        if self._next is None:
            task = asyncio.get_running_loop().create_task(self._scrub(), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._next = task
        await asyncio.shield(self._next)

    async def stop(self) -> None:
        """Begin no more. Call it when nobody waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _scrub(self) -> None:
        async with self._turn:
            await self._sleep(max(self._earliest - self._clock(), 0.0))
            # What is deleted from now on may be too late for this one.
            self._next = None
            start = self._clock()
            try:
                await all_of(self._erasures.scrub_some)
                await self._erasures.scrub()
            finally:
                end = self._clock()
                self._earliest = end + REST * (end - start)


async def all_of(work: Callable[[], Awaitable[int]]) -> int:
    """Do all parts of a work with rests between them; return how much it was."""
    done = 0
    while True:
        start = time.monotonic()
        part = await work()
        if not part:
            return done
        done += part
        await asyncio.sleep(_PAUSE * (time.monotonic() - start))
