"""Trouble with PostgreSQL for a server: a proxy before it, locks, and a look from outside."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

from contract.storage.cutting_proxy import CuttingProxy
from postgres_server import LOGIN, session_on
from server_process import ServerProcess

SHIPPED = (sys.executable, "-m", "parley_server")
IMPATIENT = (sys.executable, str(Path(__file__).with_name("impatient_server.py")))


@asynccontextmanager
async def behind_proxy(url: str, folder: Path) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """Put a proxy before a database for a block; gives it and the URL by which it is reached."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = urlsplit(url)
    proxy = CuttingProxy(folder, Path(parse_qs(parts.query)["host"][0]))
    async with proxy.running():
        yield proxy, f"postgresql://{LOGIN}@{parts.path}?host={folder}"


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Let nobody read or write a table for a block."""
    async with session_on(url) as session, session.transaction():
        await session.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def states_of_sessions(url: str) -> list[str]:
    """Return what the server's sessions on a database are doing."""
    query = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'parley-%'"
    async with session_on(url) as session:
        return [row["state"] for row in await session.fetch(query)]


async def becomes_active(url: str) -> None:
    """Wait until a session of the server has something to do, or waits for a lock."""
    while "active" not in await states_of_sessions(url):  # noqa: ASYNC110  # what is awaited is in the database
        await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(
    data_dir: Path, url: str, program: Sequence[str] = SHIPPED, environment: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[ServerProcess]:
    """Run a server on a database for a block; it starts beside this loop, which may be its proxy's."""
    server = ServerProcess(
        data_dir,
        environment={"PARLEY_STORAGE__URL": url, **environment},
        program=program,
    )
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        if server.is_running:
            server.kill()
