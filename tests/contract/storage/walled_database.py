"""A PostgreSQL database with rows of two users, seen through sessions that act as the server's own do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
from contract.storage.walled_rows import all_rows
from parley_server.storage.sql.acting import Acting
from parley_server.storage.sql.roles import Roles
from postgres_server import LOGIN, session_on

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
INSERT = "INSERT INTO {} ({}) VALUES ({})"
ROLES = Roles(LOGIN)


@dataclass(frozen=True)
class WalledDatabase:
    url: str

    async def fill(self) -> None:
        async with session_on(self.url) as session:
            for table, row in all_rows():
                places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
                await session.execute(INSERT.format(table, ", ".join(row), places), *row.values())

    @asynccontextmanager
    async def acting(self, acting: Acting, login: str = LOGIN) -> AsyncIterator[Session]:
        """Act for a block, of which nothing is kept."""
        session = await asyncpg.connect(self.url, user=login)
        try:
            await session.execute(f"BEGIN; {ROLES.taking_on(acting)}")
            yield session
        finally:
            await session.close()


@asynccontextmanager
async def undone(session: Session) -> AsyncIterator[None]:
    """Undo what a block has done, and whatever became of it go on as before."""
    await session.execute("SAVEPOINT before")
    try:
        yield
    finally:
        await session.execute("ROLLBACK TO before")


async def refused(session: Session, statement: str) -> None:
    """See that a statement is refused for want of a right."""
    async with undone(session):
        try:
            done = await session.execute(statement)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError):
            return
    raise AssertionError(f"{statement}: {done}")


async def marks(session: Session, statement: str) -> list[object]:
    """Return the first column of what a statement finds, or of what it has changed, for nothing."""
    async with undone(session):
        return [row[0] for row in await session.fetch(statement)]
