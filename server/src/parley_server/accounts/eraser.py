"""Erases users: ends their runs, deletes what is theirs, and sees to it that nothing of it is left, whatever happens.

An erasure is a task that no call owns. Its mark in the store is the first thing that is written and the last that goes,
so that one that was cut off goes on at the next start.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from parley_server.accounts.cache import AccountCache
from parley_server.accounts.scrubbing import SharedScrub, all_of
from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.erasures import Erasures

# How long a call waits for an erasure that goes on without it.
PATIENCE_S = 10.0
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
RUNS_PAUSE_S = 0.05

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Forget = Callable[[str], Awaitable[None]]


class RunEnder(Protocol):
    """Ends runs."""

    async def stop(self, run_id: str) -> None:
        """Ask for a run's end; durable when this returns. Raises StorageUnavailableError."""
        ...


class AccountEraser:
    """One per server. `forget` is what drops a user outside of the store: caches, clients, secrets."""

    def __init__(self, erasures: Erasures, runs: RunEnder, accounts: AccountCache, forget: Sequence[Forget]) -> None:
        self._erasures = erasures
        self._runs = runs
        self._accounts = accounts
        self._forget = forget
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Of whose erasures the store says that they were begun.
        self._begun: set[str] = set()
        self._scrubs = SharedScrub(erasures)
        # Two at once would only take from each other.
        self._turn = asyncio.Lock()

    async def resume(self) -> None:
        """Go on with what a former process began. Call it before anybody is served, once runs are taken over."""
        for user_id in await self._erasures.pending():
            _log.info("erasure_resumed")
            self._begin(user_id, is_new=False)

    async def erase(self, user_id: str) -> bool:
        """Erase a user; whoever asks again waits for the same erasure. Return whether it is over by now.

        Raises:
            StorageUnavailableError: it is not begun, or nobody knows yet; the same call again tells.
        """
        if user_id not in self._tasks:
            self._begin(user_id, is_new=True)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(self._tasks[user_id])
        except TimeoutError:
            if user_id not in self._begun:
                raise StorageUnavailableError from None
            return False
        return True

    async def stop(self) -> None:
        """Leave what is not over to the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._scrubs.stop()

    def _begin(self, user_id: str, *, is_new: bool) -> None:
        self._accounts.close(user_id)
        work = self._erase(user_id, is_new=is_new)
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks[user_id] = task
        task.add_done_callback(lambda ended: self._end(user_id, ended))

    def _end(self, user_id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[user_id]
        self._begun.discard(user_id)
        if not task.cancelled():
            # Else the server stops, and nothing is to be let in for him any more.
            self._accounts.reopen(user_id)
            if (error := task.exception()) is not None and not isinstance(error, StorageUnavailableError):
                _log.error("erasure_failed", exc_info=error)

    async def _erase(self, user_id: str, *, is_new: bool) -> None:
        if is_new:
            await self._erasures.begin(user_id)
        self._begun.add(user_id)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if await self._attempt(user_id, is_new=is_new):
                    break
            except StorageUnavailableError:
                _log.warning("erasure_delayed", retry_after_s=pause_s)
            except Exception as error:  # noqa: BLE001  # what was begun must not be left half done
                _log.error("erasure_failed", exc_info=error, retry_after_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            # It may have deleted something before it failed.
            is_new = False
        _log.info("user_erased")

    async def _attempt(self, user_id: str, *, is_new: bool) -> bool:
        """Do all of it; return False where something came between that has to go, too."""
        await self._end_runs(user_id)
        async with self._turn:
            deleted = await all_of(lambda: self._erasures.erase_some(user_id))
        for forget in self._forget:
            await forget(user_id)
        # Where there was nothing, the files need not be written anew; what a former attempt deleted is unknown.
        if deleted or not is_new:
            await self._scrubs.wait()
        return await self._erasures.finish(user_id)

    async def _end_runs(self, user_id: str) -> None:
        while run_ids := await self._erasures.live_runs(user_id):
            for run_id in run_ids:
                await self._runs.stop(run_id)
            await asyncio.sleep(RUNS_PAUSE_S)
