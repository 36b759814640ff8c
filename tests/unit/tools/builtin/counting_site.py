"""A real HTTP server on a loopback address that says what it is told to, and counts who comes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# What is sent for a path, piece by piece.
Script = Callable[[str], AsyncIterator[bytes]]


@dataclass
class Site:
    """Where it listens; `requests` are the heads of all requests, `accepts` how often somebody connected."""

    port: int = 0
    accepts: int = 0
    requests: list[str] = field(default_factory=list)


@asynccontextmanager
async def counting_site(
    script: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """Serve on a free port."""
    site = Site()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.accepts += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            site.requests.append(head)
            async for piece in script(head.split()[1]):
                writer.write(piece)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client has seen enough.
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    async with server:
        site.port = server.sockets[0].getsockname()[1]
        yield site


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", content_type: str = "text/plain") -> bytes:
    """Write an answer that ends with its connection."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def nothing(path: str) -> AsyncIterator[bytes]:
    """Say what nobody is meant to read."""
    yield answer(f"secret {path}".encode())
