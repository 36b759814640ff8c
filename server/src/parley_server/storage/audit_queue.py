"""What is recorded off the way of those it tells of: in its order, soon, and within bounds."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

import structlog

from parley_server.domain.audit import DROP, SERVER, AuditEntry
from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.audit_log import AuditRecorder

MAX_WAITING = 1000
# What goes on with an entry that is there is not crowded out by whoever is refused again and again.
MAX_WAITING_ESSENTIAL = 10_000
_BATCH = 200
# A flood costs ten commits a second, and an entry is seen a tenth of a second late.
_GAP_S = 0.1
_RETRY_S = 1.0
_TICK_S = 60.0

_log = structlog.get_logger(__name__)


class AuditQueue:
    """Writes entries in the background for the length of a block; `due` gives those that time alone brings about.

    While the store cannot write they wait, and what finds no room is dropped, counted and told by an entry of its own.
    An entry may be there twice where the store did not say in time that it had the first.
    """

    def __init__(self, log: AuditRecorder) -> None:
        self._log = log
        self._waiting: deque[AuditEntry] = deque()
        self._wanted = asyncio.Event()
        self._over = asyncio.Event()
        self._due: Callable[[bool], Iterable[AuditEntry]] = lambda _: ()
        self._task: asyncio.Task[None] | None = None
        self._untold = 0
        self.dropped = 0
        """How many entries found no room or could not be written, since the start."""

    async def __aenter__(self) -> Self:
        """Begin writing."""
        self._task = asyncio.create_task(self._write_until_over(), context=contextvars.Context())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits; what the store does not take at once is dropped."""
        self._over.set()
        self._wanted.set()
        if self._task is not None:
            await self._task
        self._take_due(is_over=True)
        while self._waiting and await self._write_some():
            pass
        self._drop(len(self._waiting))
        self._waiting.clear()

    def feed_from(self, due: Callable[[bool], Iterable[AuditEntry]]) -> None:
        """Ask `due` for entries about once a minute, and with True at the end."""
        self._due = due

    def offer(self, entry: AuditEntry, *, essential: bool = False) -> None:
        """Take an entry to be written."""
        if len(self._waiting) >= (MAX_WAITING_ESSENTIAL if essential else MAX_WAITING):
            self._drop(1)
            return
        self._waiting.append(entry)
        self._wanted.set()

    async def _write_until_over(self) -> None:
        loop = asyncio.get_running_loop()
        tick = loop.time() + _TICK_S
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(tick):
                    await self._wanted.wait()
            if loop.time() >= tick:
                self._take_due(is_over=False)
                tick = loop.time() + _TICK_S
            pause_s = _GAP_S if await self._write_some() else _RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._over.wait()

    def _take_due(self, *, is_over: bool) -> None:
        for entry in self._due(is_over):
            self.offer(entry)

    async def _write_some(self) -> bool:
        """Write a part of what waits; tell whether the store did."""
        self._wanted.clear()
        batch = [self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))]
        told = self._untold
        drops = [AuditEntry(datetime.now(UTC), DROP, principal=SERVER, status="OK", left_out=told)] if told else []
        if not drops and not batch:
            return True
        try:
            await self._log.record_all([*drops, *batch])
        except StorageUnavailableError:
            self._wanted.set()
            return False
        except Exception as error:  # noqa: BLE001  # one that cannot be written must not keep the others waiting for ever
            _log.error("audit_failed", exc_info=error, entries=len(batch))
            self._drop(len(batch))
        else:
            self._untold -= told
        for _ in batch:
            self._waiting.popleft()
        if self._waiting:
            self._wanted.set()
        return True

    def _drop(self, count: int) -> None:
        if count and not self._untold:
            _log.warning("audit_dropped")
        self.dropped += count
        self._untold += count
