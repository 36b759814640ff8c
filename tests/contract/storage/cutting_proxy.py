"""A unix-socket proxy that cuts the connection at a commit, or lets everything fall silent with all sockets open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from pathlib import Path

SOCKET_NAME = ".s.PGSQL.5432"
CHUNK_BYTES = 65536


class Cut(Enum):
    """What becomes of the next commit: its connection is cut, or all fall silent, before it arrives or its answer."""

    NEVER = auto()
    BEFORE = auto()
    AFTER = auto()
    SILENT_BEFORE = auto()
    SILENT_AFTER = auto()


class CuttingProxy:
    """Stands in `folder` for the server in `behind`; `cut` says what becomes of the next commit."""

    def __init__(self, folder: Path, behind: Path) -> None:
        self.cut = Cut.NEVER
        self._folder = folder
        self._behind = behind
        self._is_silent = False
        self._connections: set[_Connection] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self._folder / SOCKET_NAME)
        try:
            yield
        finally:
            server.close()
            for connection in self._connections:
                connection.close()
            await server.wait_closed()

    def fall_silent(self) -> None:
        """Forward nothing more, either way; who connects now is silent too. A silent connection never speaks again."""
        self._is_silent = True
        for connection in self._connections:
            connection.is_silent = True

    def speak_again(self) -> None:
        """Forward what comes by new connections."""
        self._is_silent = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_unix_connection(self._behind / SOCKET_NAME)
        connection = _Connection(answers, requests, writer, is_silent=self._is_silent)
        self._connections.add(connection)
        with suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if b"COMMIT" in chunk and self.cut is not Cut.NEVER and await self._cuts(chunk, connection):
                    break
                connection.send(chunk)
        self._connections.discard(connection)
        connection.close()

    async def _cuts(self, chunk: bytes, connection: "_Connection") -> bool:
        """Do to a commit what is wished; tell whether its connection is to be closed."""
        cut, self.cut = self.cut, Cut.NEVER
        if cut in (Cut.AFTER, Cut.SILENT_AFTER):
            await connection.send_and_keep_the_answer(chunk)
        if cut in (Cut.BEFORE, Cut.AFTER):
            return True
        self.fall_silent()
        return False


class _Connection:
    """One client's connection and the one made for it."""

    def __init__(
        self,
        answers: asyncio.StreamReader,
        requests: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        *,
        is_silent: bool,
    ) -> None:
        self.is_silent = is_silent
        self._answers = answers
        self._requests = requests
        self._client = client
        self._back = asyncio.create_task(self._copy())

    def send(self, chunk: bytes) -> None:
        if not self.is_silent:
            self._requests.write(chunk)

    async def send_and_keep_the_answer(self, chunk: bytes) -> None:
        self._back.cancel()
        await asyncio.wait([self._back])
        self._requests.write(chunk)
        assert await self._answers.read(1)

    def close(self) -> None:
        self._back.cancel()
        self._client.close()
        self._requests.close()

    async def _copy(self) -> None:
        with suppress(ConnectionError):
            while chunk := await self._answers.read(CHUNK_BYTES):
                if not self.is_silent:
                    self._client.write(chunk)
        if not self.is_silent:
            self._client.close()
