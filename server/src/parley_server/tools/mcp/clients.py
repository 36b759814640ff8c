"""The clients of one MCP server: one for each user and credential, opened when needed and closed when idle."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from parley_server.domain.per_user import UserKey, UserMap
from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.client import McpClient
from parley_server.tools.mcp.failures import unavailable

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 60.0

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
    """At most `max_clients` at once, of which the longest unused one makes room.

    A user has one of his own for each digest of the secrets that the server gets of him; one more is nobody's, for
    servers that know no users.

    A client that cannot be opened, or does not survive its first use, is opened again only after a pause that grows.
    """

    def __init__(self, open_client: Opener, *, max_clients: int, idle_s: float) -> None:
        self._open_client = open_client
        self._max_clients = max_clients
        self._idle_s = idle_s
        self._of_users: UserMap[str, _Place] = UserMap()
        self._shared = _Place()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def use(self, user: UserKey, digest: str, secrets: Secrets) -> AbstractAsyncContextManager[McpClient]:
        """Lend a user's client for a block; nobody else ever gets it.

        Raises:
            ToolError: there is none: the server is not to be had, or all clients are in use.
        """
        place = self._of_users.get_or_make(user, digest, _Place)
        return self._lent(place, secrets, lambda: self._forget(user, digest, place))

    def use_shared(self) -> AbstractAsyncContextManager[McpClient]:
        """Lend the client that is nobody's, and is opened with nobody's secrets. Raises ToolError as `use` does."""
        return self._lent(self._shared, {}, self._forget_shared)

    @asynccontextmanager
    async def _lent(self, place: _Place, secrets: Secrets, when_idle: Callable[[], None]) -> AsyncIterator[McpClient]:
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
            self._leave(place, when_idle)

    def forget(self, user_id: str) -> None:
        """Close the clients of a user who is being erased."""
        for place in self._of_users.drop(user_id):
            if place.idle is not None:
                place.idle.cancel()
            self._discard(place)

    async def close(self) -> None:
        """Close all, for good."""
        self._is_closed = True
        for place in self._all():
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
        held = [place for place in self._all() if place.client is not None and not place.client.has_ended]
        if len(held) < self._max_clients:
            return
        idle = [place for place in held if not place.users]
        if not idle:
            raise ToolError("unavailable", "The tool is busy.", hint="Try again later.", retryable=True)
        self._discard(min(idle, key=lambda place: place.used_at))

    def _leave(self, place: _Place, when_idle: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        place.used_at = loop.time()
        if place.idle is not None:
            place.idle.cancel()
        place.idle = loop.call_later(self._idle_s, when_idle)

    def _forget(self, user: UserKey, digest: str, place: _Place) -> None:
        if not place.users and self._of_users.get(user, digest) is place:
            self._of_users.pop(user, digest)
            self._discard(place)

    def _forget_shared(self) -> None:
        if not self._shared.users:
            self._discard(self._shared)
            self._shared = _Place()

    def _all(self) -> Iterator[_Place]:
        yield from self._of_users
        yield self._shared

    def _discard(self, place: _Place) -> None:
        if place.client is None:
            return
        task = asyncio.create_task(place.client.close(), context=contextvars.Context())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        place.client = None
