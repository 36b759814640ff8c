"""PostgreSQL's read-only sessions: each lent for one read, in whose name is forgotten with its transaction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.sql.database import Row

READER_TIMEOUT_S = 2.0


class Readers:
    """The sessions that read. `make` makes a pool of them, at the start and when they do not answer any more."""

    def __init__(self, make: "Callable[[], Awaitable[asyncpg.Pool[asyncpg.Record]]]") -> None:
        self._make = make
        self._made: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Make the pool; its sessions are opened when they are needed."""
        self._made = await self._make()

    async def close(self, timeout_s: float) -> None:
        """Close every session, by force those that do not answer in time."""
        if self._made is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._made.close()

    @asynccontextmanager
    async def one(self) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        """Lend a reader for a block; where it does not answer, the others cannot be trusted to either."""
        pool = self._pool
        async with pool.acquire(timeout=READER_TIMEOUT_S) as reader:
            try:
                yield reader
            except TimeoutError:
                await self._renew(pool)
                raise

    async def fetch(self, statement: str, values: Sequence[object], taking_on: str) -> Sequence[Row]:
        """Run one read in the name that some statements take on, none where they are empty."""
        async with self.one() as reader:
            if not taking_on:
                return cast("Sequence[Row]", await reader.fetch(statement, *values))
            try:
                await reader.execute(f"BEGIN; {taking_on}")
                rows = await reader.fetch(statement, *values)
                await reader.execute("COMMIT")
            except (asyncpg.PostgresError, asyncio.CancelledError):
                await reader.execute("ROLLBACK")
                raise
        return cast("Sequence[Row]", rows)

    async def renew(self) -> None:
        """Let go of all sessions by force and go on with others."""
        await self._renew(self._pool)

    async def _renew(self, silent: "asyncpg.Pool[asyncpg.Record]") -> None:
        # By force: a session that is silent does not end politely either, and its end would hit the one after it.
        if silent is self._made:
            silent.terminate()
            self._made = await self._make()

    @property
    def _pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._made is None:
            raise StorageUnavailableError
        return self._made
