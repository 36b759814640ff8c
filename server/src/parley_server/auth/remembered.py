"""Callers who proved themselves lately, so that not every call of theirs is looked at anew."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from parley_server.domain.principal import Principal

MAX_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Verified:
    """Whom a credential proved, good to use without asking again until `until` (monotonic seconds)."""

    principal: Principal
    until: float


class Remembered:
    """The MAX_REMEMBERED credentials verified last, each by its keyed hash: of no use to whoever reads the memory."""

    def __init__(self, hash_key: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._hash_key = hash_key
        self._clock = clock
        self._verified: dict[bytes, Verified] = {}

    def find(self, secret: str) -> Verified | None:
        """Return what was verified, if long ago."""
        return self._verified.get(self._digest(secret))

    def is_good(self, verified: Verified) -> bool:
        """Tell whether it need not be looked at again."""
        return verified.until > self._clock()

    def put(self, secret: str, verified: Verified) -> None:
        """Remember a credential in the place of the one verified longest ago."""
        # The last one of a dictionary is the newest.
        digest = self._digest(secret)
        self._verified.pop(digest, None)
        if len(self._verified) >= MAX_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified

    def drop(self, secret: str) -> None:
        """Forget a credential."""
        self._verified.pop(self._digest(secret), None)

    def expire(self, credential_id: str | None = None) -> None:
        """Have a credential looked at again at its next use, without an id every one."""
        self._expire(lambda principal: credential_id in {None, principal.credential_id})

    def expire_user(self, user_id: str) -> None:
        """Have a user's own credentials looked at again at their next use; see `Principal.own_user_id`."""
        self._expire(lambda principal: principal.own_user_id == user_id)

    def _expire(self, is_meant: Callable[[Principal], bool]) -> None:
        for digest, verified in self._verified.items():
            if is_meant(verified.principal):
                self._verified[digest] = replace(verified, until=-math.inf)

    def _digest(self, secret: str) -> bytes:
        return hashlib.blake2b(secret.encode(), key=self._hash_key, digest_size=32, person=b"parley-cache").digest()
