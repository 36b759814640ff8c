"""What accounts say of zone and language, for every call: from memory, and never more than some seconds old."""

import asyncio
import contextvars
import time
from collections.abc import Callable
from dataclasses import dataclass

from parley_server.domain.access_errors import AccountErasingError
from parley_server.domain.account import AccountDefaults
from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.account_repository import AccountDirectory

MAX_AGE_S = 5.0
MAX_USERS = 4096


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of a user, and when that has to be done again."""

    defaults: AccountDefaults
    stale_at: float


class AccountCache:
    """The accounts of the last MAX_USERS users, and who is being erased.

    That a user has set nothing is known, too. What changes in this process is known at once, what changes elsewhere
    after MAX_AGE_S. While the store cannot answer, what was known last holds; for a user of whom nothing is known the
    call fails: in a zone that is not his, what is done for him would be wrong.
    """

    def __init__(self, directory: AccountDirectory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._reads: dict[str, asyncio.Task[AccountDefaults]] = {}
        self._erasing: set[str] = set()

    def recall(self, user_id: str) -> AccountDefaults | None:
        """Return what is known of a user; None where it has to be looked up."""
        known = self._known.get(user_id)
        return known.defaults if known is not None and known.stale_at > self._clock() else None

    async def find(self, user_id: str) -> AccountDefaults:
        """Look a user up, once for all who ask at the same time. Raises StorageUnavailableError."""
        read = self._reads.get(user_id)
        if read is None:
            read = self._reads[user_id] = asyncio.create_task(self._read(user_id), context=contextvars.Context())
        return await asyncio.shield(read)

    def forget(self, user_id: str) -> None:
        """Drop what is known of a user, because it has changed."""
        self._known.pop(user_id, None)
        # What is being read may be what it was before.
        self._reads.pop(user_id, None)

    def require_open(self, user_id: str) -> None:
        """Let a call for a user pass. Raises AccountErasingError."""
        if user_id in self._erasing:
            raise AccountErasingError

    def close(self, user_id: str) -> None:
        """Refuse all calls for a user."""
        self._erasing.add(user_id)

    def reopen(self, user_id: str) -> None:
        """Let calls for a user pass again, of whom nothing is known."""
        self._erasing.discard(user_id)
        self.forget(user_id)

    async def _read(self, user_id: str) -> AccountDefaults:
        this = asyncio.current_task()
        try:
            defaults = await self._directory.defaults_of(user_id)
        except StorageUnavailableError:
            if (known := self._known.get(user_id)) is None:
                raise
            return known.defaults
        finally:
            is_current = self._reads.get(user_id) is this
            if is_current:
                del self._reads[user_id]
        if is_current:
            self._remember(user_id, defaults)
        return defaults

    def _remember(self, user_id: str, defaults: AccountDefaults) -> None:
        self._known.pop(user_id, None)
        if len(self._known) >= MAX_USERS:
            del self._known[next(iter(self._known))]
        self._known[user_id] = _Known(defaults, self._clock() + MAX_AGE_S)
