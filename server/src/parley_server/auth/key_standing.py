"""Whether an API key that something rests on still stands: without its secret, by its id."""

import asyncio
import time
from datetime import UTC, datetime

from parley_server.auth.api_key_provider import CACHE_S, KeyStore
from parley_server.auth.provider import BUDGET_S

_MAX_CACHED = 1024


class KeyStanding:
    """Asks the store, and remembers for CACHE_S which keys were good; `forget` is told of a change in this process."""

    def __init__(self, keys: KeyStore, budget_s: float = BUDGET_S) -> None:
        self._keys = keys
        self._budget_s = budget_s
        self._good_until: dict[str, float] = {}
        self._changes = 0

    async def is_good(self, key_id: str) -> bool:
        """Tell whether the key may be used now.

        Raises:
            TimeoutError: the store did not answer within the budget. What else it raises is raised, too.
        """
        asked = time.monotonic()
        if self._good_until.get(key_id, 0.0) > asked:
            return True
        changes = self._changes
        async with asyncio.timeout(self._budget_s):
            stored = await self._keys.find(key_id)
        now = datetime.now(UTC)
        if stored is None or not stored.key.is_valid_at(now):
            self._good_until.pop(key_id, None)
            return False
        if changes == self._changes:
            self._remember(key_id, asked, stored.key.expire_time, now)
        return True

    def forget(self, key_id: str) -> None:
        """Look the key up again at its next use, also if it is being looked up just now."""
        self._changes += 1
        self._good_until.pop(key_id, None)

    def forget_all(self) -> None:
        """Look every key up again at its next use."""
        self._changes += 1
        self._good_until.clear()

    def _remember(self, key_id: str, asked: float, expire_time: datetime | None, now: datetime) -> None:
        left_s = CACHE_S if expire_time is None else (expire_time - now).total_seconds()
        # The first one of a dictionary is the oldest, so what makes room is what was looked up longest ago.
        self._good_until.pop(key_id, None)
        if len(self._good_until) >= _MAX_CACHED:
            del self._good_until[next(iter(self._good_until))]
        self._good_until[key_id] = asked + min(CACHE_S, left_s)
