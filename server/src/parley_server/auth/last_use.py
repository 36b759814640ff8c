"""Notes when credentials were last used: gathered in memory, written now and then, never on a call's way."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Self

import structlog

FLUSH_S = 180.0

_log = structlog.get_logger(__name__)


class LastUses:
    """Writes through `record`, for all keys at once, every `flush_s` and when it is left.

    So a key costs a write in that time at most. What cannot be written is tried again with the next.
    """

    def __init__(self, record: Callable[[Mapping[str, datetime]], Awaitable[None]], flush_s: float = FLUSH_S) -> None:
        self._record = record
        self._flush_s = flush_s
        self._uses: dict[str, datetime] = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, credential_id: str, now: datetime) -> None:
        """Note that a credential is used now."""
        self._uses[credential_id] = now

    async def __aenter__(self) -> Self:
        """Start writing."""
        self._task = asyncio.create_task(self._write_until_stopped(), context=contextvars.Context())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is not written yet, then stop."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        await self._flush()

    async def _write_until_stopped(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._stopping.wait()
            except TimeoutError:
                await self._flush()
            else:
                return

    async def _flush(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._record(uses)
        except Exception as error:  # noqa: BLE001  # whatever it is, neither the noting nor the server's stop ends by it
            _log.warning("last_uses_not_written", keys=len(uses), error=type(error).__qualname__)
            self._uses = uses | self._uses
