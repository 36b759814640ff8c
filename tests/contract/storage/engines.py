"""The engines under test: each opens one database again and again, and looks at it from outside."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Protocol

from parley_server.storage.sql.database import Database
from parley_server.storage.sql.postgres import PostgresDatabase
from parley_server.storage.sql.sqlite import SqliteDatabase
from postgres_server import session_on

Rows = list[tuple[object, ...]]


class Engine(Protocol):
    """One database of an engine."""

    def open(self) -> AbstractAsyncContextManager[Database]:
        """Open it, as often as one likes: what a restart does, and a second process."""
        ...

    async def rows(self, query: str) -> Rows:
        """Read it past the store."""
        ...

    def blocking_writes(self) -> AbstractAsyncContextManager[None]:
        """Let no write through for a block."""
        ...


class SqliteEngine:
    """A file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> AbstractAsyncContextManager[Database]:
        return SqliteDatabase(self._path)

    async def rows(self, query: str) -> Rows:
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(query).fetchall()

    @asynccontextmanager
    async def blocking_writes(self) -> AsyncIterator[None]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


class PostgresEngine:
    """A database on the session's server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self) -> AbstractAsyncContextManager[Database]:
        return PostgresDatabase(self.url)

    async def rows(self, query: str) -> Rows:
        async with session_on(self.url) as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    @asynccontextmanager
    async def blocking_writes(self) -> AsyncIterator[None]:
        async with session_on(self.url) as connection, connection.transaction():
            await connection.execute("LOCK TABLE run_journal IN EXCLUSIVE MODE")
            yield
