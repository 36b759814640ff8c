"""Keeps an issuer's keys, and asks for them anew neither too seldom nor too often."""

import asyncio
import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from jwt import PyJWK

from parley_server.auth.jwt_keys import KeySet, KeySetError
from parley_server.auth.provider import BUDGET_S
from parley_server.domain.access_errors import AuthUnavailableError

TTL_S = 600.0
STALE_S = 24 * 3600.0
# Anybody can make a token that names a key which nobody knows, and as many as he likes.
COOL_DOWN_S = 30.0
# Until there are any keys at all, nobody is let in: an issuer that has just been started is waited for.
RETRY_S = 5.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class KeyCache:
    """The keys of the issuer that the operator calls `name`, as `fetch` gave them last; `clock` is monotonic seconds.

    They are good for TTL_S, and for STALE_S while no others can be had. At most one fetch is under way, whoever needs
    it, and at most one in COOL_DOWN_S begins, whatever is asked for. `on_change` is told when they are others than
    before.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[bytes]],
        algorithms: Sequence[str],
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._algorithms = algorithms
        self._on_change = on_change
        self._clock = clock
        self._raw = b""
        self._keys: KeySet | None = None
        self._fetched = self._fresh_until = self._begun = -math.inf
        self._failed = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to fetch the keys; a failure is in the log. Call it inside the running loop."""
        self._refreshing()

    async def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """Return a key, None when the issuer has no such one.

        Raises:
            AuthUnavailableError: that cannot be told now.
        """
        key = self._usable(key_id, algorithm)
        if key is not None and self._clock() < self._fresh_until:
            return key
        task = self._refreshing()
        # While the issuer is known to be out of reach nobody waits for it who has a key.
        if task is not None and not (key is not None and self._failed):
            await asyncio.wait([task], timeout=BUDGET_S)
        key = self._usable(key_id, algorithm)
        if key is None and (self._failed or self._keys is None or (task is not None and not task.done())):
            raise AuthUnavailableError("the issuer's keys cannot be had now; try again", retry_after_s=RETRY_S)
        return key

    def expire(self) -> None:
        """Ask for the keys again at their next use; those there are serve while that fails."""
        self._fresh_until = self._begun = -math.inf

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _usable(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        if self._keys is None or self._clock() >= self._fetched + STALE_S:
            return None
        return self._keys.find(key_id, algorithm)

    def _refreshing(self) -> asyncio.Task[None] | None:
        """Return the fetch under way, a new one where it is time for one, else None."""
        if self._task is not None and not self._task.done():
            return self._task
        now = self._clock()
        if now < self._begun + (RETRY_S if self._keys is None else COOL_DOWN_S):
            return None
        self._begun = now
        # Of no caller: it goes on when the one goes away who was the first to need it.
        self._task = asyncio.get_running_loop().create_task(self._refresh(), context=contextvars.Context())
        return self._task

    async def _refresh(self) -> None:
        begun = self._begun
        try:
            raw = await self._fetch()
            keys = KeySet.read(raw, self._algorithms)
        except KeySetError as error:
            self._note_failure(str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, there are no new keys, and callers wait to hear it
            self._note_failure(type(error).__name__)
        else:
            self._take(raw, keys)
            if self._begun != begun:
                # They are those from before `expire`, perhaps.
                self._fresh_until = -math.inf

    def _note_failure(self, problem: str) -> None:
        self._failed = True
        _log.warning("issuer_keys_not_fetched", issuer=self._name, problem=problem, has_keys=self._keys is not None)

    def _take(self, raw: bytes, keys: KeySet) -> None:
        if raw != self._raw:
            tell = _log.info if len(keys) else _log.warning
            tell("issuer_keys_fetched", issuer=self._name, keys=len(keys), algorithms=list(self._algorithms))
            self._on_change()
        self._raw, self._keys, self._failed = raw, keys, False
        self._fetched = self._clock()
        self._fresh_until = self._fetched + TTL_S
