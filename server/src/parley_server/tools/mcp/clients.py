"""The clients of one MCP server: one for each user and credential, opened when needed and closed when idle."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.client import McpClient
from parley_server.tools.mcp.failures import unavailable

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 60.0

# For whom a client is: a user, and a digest of what the server gets of his secrets.
ClientKey = tuple[str, str]
Secrets = Mapping[str, str]
Opener = Callable[[Secrets], McpClient]


@dataclass(slots=True)
class _Place:
    """What is kept for a key: a client, and how it went so far."""

    client: McpClient | None = None
    users: int = 0
    used_at: float = 0.0
    pause_s: float = BACKOFF_MIN_S
    not_before: float = 0.0
    idle: asyncio.TimerHandle | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class Clients:
    """At most `max_clients` at once, of which the longest unused one makes room; nothing of one key meets another's.

    A client that cannot be opened, or does not survive its first use, is opened again only after a pause that grows.
    """

    def __init__(self, open_client: Opener, *, max_clients: int, idle_s: float) -> None:
        self._open_client = open_client
        self._max_clients = max_clients
        self._idle_s = idle_s
        self._places: dict[ClientKey, _Place] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @asynccontextmanager
    async def use(self, key: ClientKey, secrets: Secrets) -> AsyncIterator[McpClient]:
        """Lend a client for a block; its key alone ever gets it.

        Raises:
            ToolError: there is none: the server is not to be had, or all clients are in use.
        """
        place = self._places.setdefault(key, _Place())
        place.users += 1
        try:
            async with place.opening:
                client = await self._opened(place, secrets)
            try:
                yield client
            finally:
                if not client.has_ended:
                    place.pause_s, place.not_before = BACKOFF_MIN_S, 0.0
        finally:
            place.users -= 1
            self._leave(key, place)

    async def close(self) -> None:
        """Close all, for good."""
        self._is_closed = True
        for place in self._places.values():
            if place.idle is not None:
                place.idle.cancel()
            self._discard(place)
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def _opened(self, place: _Place, secrets: Secrets) -> McpClient:
        client = place.client
        if client is not None and not client.has_ended:
            await client.opened()
            return client
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise unavailable("The server is stopping.")
        if loop.time() < place.not_before:
            raise unavailable("The tool's server cannot be reached; it is tried again in a while.")
        self._discard(place)
        self._make_room()
        # Taken back by the first use that it survives.
        place.not_before = loop.time() + place.pause_s
        place.pause_s = min(2 * place.pause_s, BACKOFF_MAX_S)
        place.client = client = self._open_client(secrets)
        await client.opened()
        return client

    def _make_room(self) -> None:
        held = [place for place in self._places.values() if place.client is not None and not place.client.has_ended]
        if len(held) < self._max_clients:
            return
        idle = [place for place in held if not place.users]
        if not idle:
            raise ToolError("unavailable", "The tool is busy.", hint="Try again later.", retryable=True)
        self._discard(min(idle, key=lambda place: place.used_at))

    def _leave(self, key: ClientKey, place: _Place) -> None:
        loop = asyncio.get_running_loop()
        place.used_at = loop.time()
        if place.idle is not None:
            place.idle.cancel()
        place.idle = loop.call_later(self._idle_s, self._forget, key, place)

    def _forget(self, key: ClientKey, place: _Place) -> None:
        if not place.users and self._places.get(key) is place:
            del self._places[key]
            self._discard(place)

    def _discard(self, place: _Place) -> None:
        if place.client is None:
            return
        task = asyncio.create_task(place.client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        place.client = None
