"""A unix-socket proxy that cuts the connection at a commit: before it arrives, or before its answer does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from pathlib import Path

SOCKET_NAME = ".s.PGSQL.5432"
CHUNK_BYTES = 65536


class Cut(Enum):
    """When to cut the next commit."""

    NEVER = auto()
    BEFORE = auto()
    AFTER = auto()


class CuttingProxy:
    """Stands in `folder` for the server in `behind`; `cut` says what becomes of the next commit."""

    def __init__(self, folder: Path, behind: Path) -> None:
        self.cut = Cut.NEVER
        self._folder = folder
        self._behind = behind

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self._folder / SOCKET_NAME)
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_unix_connection(self._behind / SOCKET_NAME)
        back = asyncio.create_task(_copy(answers, writer))
        with suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if b"COMMIT" in chunk and self.cut is not Cut.NEVER:
                    await self._commit(chunk, answers, requests, back)
                    break
                requests.write(chunk)
        back.cancel()
        writer.close()
        requests.close()

    async def _commit(
        self, chunk: bytes, answers: asyncio.StreamReader, requests: asyncio.StreamWriter, back: "asyncio.Task[None]"
    ) -> None:
        cut, self.cut = self.cut, Cut.NEVER
        if cut is Cut.AFTER:
            back.cancel()
            await asyncio.wait([back])
            requests.write(chunk)
            assert await answers.read(1)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
    writer.close()
