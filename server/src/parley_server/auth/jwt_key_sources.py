"""Where an issuer's keys come from: its JWKS on the web, or a file."""

import asyncio
from pathlib import Path

import aiohttp

from parley_server.auth.jwt_keys import MAX_BYTES, KeySetError

TIMEOUT_S = 5.0


class WebKeySource:
    """Fetches a JWKS by HTTP, from the one address that the operator gave."""

    def __init__(self, uri: str, timeout_s: float = TIMEOUT_S) -> None:
        self._uri = uri
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __call__(self) -> bytes:
        """Return the JWKS as it is sent. Raises KeySetError."""
        try:
            # A session for each: once in ten minutes, and nothing is kept between two. What goes in the clear stays on
            # this machine, so it takes no proxy.
            async with (
                aiohttp.ClientSession(
                    timeout=self._timeout,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=self._uri.startswith("https:"),
                ) as session,
                session.get(
                    self._uri,
                    allow_redirects=False,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                ) as response,
            ):
                return await _body_of(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KeySetError(type(error).__name__) from error


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise KeySetError(f"status {response.status}")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            raise KeySetError(f"it is larger than {MAX_BYTES} bytes")
    return bytes(body)


class FileKeySource:
    """Reads a JWKS from a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes:
        """Return what is in it. Raises KeySetError."""
        try:
            with self._path.open("rb") as opened:
                return opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise KeySetError(f"{self._path} cannot be read ({error.strerror})") from error

    async def __call__(self) -> bytes:
        """Do as `read` does, on a thread."""
        return await asyncio.to_thread(self.read)
