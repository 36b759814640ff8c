"""Provider `api_key`: proves callers by the keys this server issued."""

import asyncio
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from parley_server.auth.api_key import PREFIX, PresentedKey
from parley_server.auth.provider import BUDGET_S, NOT_MINE, Credentials, NotMine
from parley_server.auth.remembered import Remembered, Verified
from parley_server.auth.remembering import RememberingProvider
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.principal import Principal

API_KEY = "api_key"
CACHE_S = 1.0
_NO_HASH = bytes(32)
_NEVER = datetime.max.replace(tzinfo=UTC)


class KeyStore(Protocol):
    """Where the provider looks keys up."""

    async def find(self, key_id: str) -> StoredKey | None:
        """Return the key, revoked and expired ones too; None if there is none of that id."""
        ...


class ApiKeyProvider(RememberingProvider):
    """Accepts `Authorization: Bearer parley_...`; `on_use` is told the ids of keys in use, about once in CACHE_S each.

    A key that was verified is remembered for CACHE_S, by its keyed hash: a change by another process works after that
    time at the latest, one by this process at once through `forget`.
    """

    def __init__(
        self,
        keys: KeyStore,
        hash_key: bytes,
        budget_s: float = BUDGET_S,
        on_use: Callable[[str, datetime], None] = lambda _, __: None,
    ) -> None:
        super().__init__(Remembered(hash_key))
        self._keys = keys
        self._hash_key = hash_key
        self._budget_s = budget_s
        self._on_use = on_use
        self._changes = 0

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Look the key up and return its owner; NOT_MINE without a bearer that begins as our keys do.

        Raises:
            CredentialsInvalidError: it is no key of ours, or is expired or revoked.
            TimeoutError: the store did not answer within the budget.
        """
        token = self._token_of(credentials)
        if token is None:
            return NOT_MINE
        changes = self._changes
        try:
            verified = await self._verify(token)
        except CredentialsInvalidError:
            self._remembered.drop(token)
            raise
        if changes == self._changes:
            self._remembered.put(token, verified)
        return verified.principal

    def forget(self, credential_id: str) -> None:
        """Look the key up again at its next use, also if it is being looked up just now."""
        self._changes += 1
        self._remembered.expire(credential_id)

    def forget_user(self, user_id: str) -> None:
        """Look the user's keys up again at their next use, as `forget` does."""
        self._changes += 1
        super().forget_user(user_id)

    def forget_all(self) -> None:
        """Look every key up again at its next use."""
        self._changes += 1
        self._remembered.expire()

    def _token_of(self, credentials: Credentials) -> str | None:
        token = credentials.bearer
        return token if token is not None and token.startswith(PREFIX) else None

    async def _verify(self, token: str) -> Verified:
        presented = PresentedKey.parse(token)
        if presented is None:
            raise CredentialsInvalidError
        # Counted from before the question: a change elsewhere meanwhile is not outlived by more than CACHE_S.
        asked = time.monotonic()
        async with asyncio.timeout(self._budget_s):
            stored = await self._keys.find(presented.key_id)
        now = datetime.now(UTC)
        good_for = _time_left(stored, presented.hash(self._hash_key), now)
        if stored is None or good_for <= timedelta():
            raise CredentialsInvalidError
        self._on_use(stored.key.key_id, now)
        return Verified(_principal_of(stored.key), asked + min(CACHE_S, good_for.total_seconds()))


def _time_left(stored: StoredKey | None, presented: bytes, now: datetime) -> timedelta:
    """Return how long the presented hash is still good for; nothing or less if it is not.

    Two hashes are always compared, whatever there is to compare, so that the time taken tells neither which ids exist
    nor which keys have two secrets.
    """
    current = stored.secret_hash if stored is not None else _NO_HASH
    previous = (stored.previous_secret_hash if stored is not None else None) or _NO_HASH
    is_current, is_previous = hmac.compare_digest(presented, current), hmac.compare_digest(presented, previous)
    if stored is None or not (key := stored.key).is_valid_at(now):
        return timedelta()
    if is_current:
        return (key.expire_time or _NEVER) - now
    return ((key.previous_secret_end(now) if is_previous else None) or now) - now


def _principal_of(key: ApiKey) -> Principal:
    return Principal(
        kind=key.kind,
        subject=key.subject,
        scopes=key.scopes,
        act_as=key.act_as,
        method=API_KEY,
        credential_id=key.key_id,
        expires_at=key.expire_time,
    )
