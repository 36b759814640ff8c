"""What a program that speaks MCP writes to standard error, in this server's log: a bounded part of it."""

import asyncio
import time

import structlog

MAX_LINE_CHARS = 500
# Lines of one program: so many at once, and one every so often.
MAX_BURST = 20
LINES_PER_S = 1.0
_CHUNK_BYTES = 64 * 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ProgramLog:
    """Logs lines until `close`; later ones only with `to_the_end`, for they may hold what users have said."""

    def __init__(self, server: str, *, to_the_end: bool) -> None:
        self._server = server
        self._to_the_end = to_the_end
        self._is_open = True
        self._left = float(MAX_BURST)
        self._at = time.monotonic()

    def close(self) -> None:
        """Begin to hide what is written, unless it is wanted to the end."""
        self._is_open = self._to_the_end

    async def follow(self, stderr: asyncio.StreamReader) -> None:
        """Read to the end, so that the program never waits for a reader; what is too much is dropped."""
        rest = b""
        while chunk := await stderr.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._tell(line)
            rest = rest[:_CHUNK_BYTES]
        self._tell(rest)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()[:MAX_LINE_CHARS]
        if not text or not self._is_open:
            return
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * LINES_PER_S, MAX_BURST)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            _log.info("mcp_program_says", server=self._server, text=text)
