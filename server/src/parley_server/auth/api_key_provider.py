"""Provider `api_key`: proves callers by the keys this server issued."""

import asyncio
import hashlib
import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from parley_server.auth.api_key import PREFIX, PresentedKey
from parley_server.auth.provider import BUDGET_S, NOT_MINE, AuthProvider, Credentials, NotMine
from parley_server.domain.api_key import ApiKey
from parley_server.domain.errors import CredentialsInvalidError
from parley_server.domain.principal import Principal

CACHE_S = 1.0
_MAX_CACHED = 1024
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept: what is known of it and the keyed hash of its secret."""

    key: ApiKey
    secret_hash: bytes


class KeyStore(Protocol):
    """Where the provider looks keys up."""

    async def find(self, key_id: str) -> StoredKey | None:
        """Return the key, revoked and expired ones too; None if there is none of that id."""
        ...


@dataclass(frozen=True, slots=True)
class _Verified:
    """Whom a key proved, good to use without asking again until `until` (monotonic seconds)."""

    principal: Principal
    until: float


class ApiKeyProvider(AuthProvider):
    """Accepts `Authorization: Bearer parley_...`.

    A key that was verified is remembered for CACHE_S, by its keyed hash: a revocation by another process works after
    that time at the latest, one by this process at once through `forget`.
    """

    def __init__(self, keys: KeyStore, hash_key: bytes, budget_s: float = BUDGET_S) -> None:
        self._keys = keys
        self._hash_key = hash_key
        self._budget_s = budget_s
        self._verified: dict[bytes, _Verified] = {}
        self._revocations = 0

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Return the key's owner; NOT_MINE without a bearer that begins as our keys do.

        Raises:
            CredentialsInvalidError: it is no key of ours, or is expired or revoked.
            TimeoutError: the store did not answer within the budget.
        """
        scheme, _, token = (credentials.authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(PREFIX):
            return NOT_MINE
        digest = hashlib.blake2b(token.encode(), key=self._hash_key, digest_size=32, person=b"parley-cache").digest()
        verified = self._verified.get(digest)
        if verified is None or verified.until <= time.monotonic():
            revocations = self._revocations
            verified = await self._verify(token)
            if revocations == self._revocations:
                self._remember(digest, verified)
        return verified.principal

    def forget(self, credential_id: str) -> None:
        """Look the key up again at its next use, also if it is being looked up just now."""
        self._revocations += 1
        self._verified = {
            digest: verified
            for digest, verified in self._verified.items()
            if verified.principal.credential_id != credential_id
        }

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        if len(self._verified) >= _MAX_CACHED:
            self._verified.clear()
        self._verified[digest] = verified

    async def _verify(self, token: str) -> _Verified:
        presented = PresentedKey.parse(token)
        if presented is None:
            raise CredentialsInvalidError
        # Counted from before the question: a revocation elsewhere meanwhile is not outlived by more than CACHE_S.
        until = time.monotonic() + CACHE_S
        async with asyncio.timeout(self._budget_s):
            stored = await self._keys.find(presented.key_id)
        # Hashed and compared for an unknown id as well, so that the time taken does not tell which ids exist.
        expected = stored.secret_hash if stored else _NO_HASH
        matches = hmac.compare_digest(presented.hash(self._hash_key), expected)
        now = datetime.now(UTC)
        if stored is None or not matches or not stored.key.is_valid_at(now):
            raise CredentialsInvalidError
        if stored.key.expire_time is not None:
            until = min(until, time.monotonic() + (stored.key.expire_time - now).total_seconds())
        return _Verified(_principal_of(stored.key), until)


def _principal_of(key: ApiKey) -> Principal:
    return Principal(
        kind=key.kind,
        subject=key.subject,
        scopes=key.scopes,
        act_as=key.act_as,
        method="api_key",
        credential_id=key.key_id,
    )
