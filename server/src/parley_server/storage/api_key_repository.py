"""The door to the keys of this server."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
from parley_server.domain.idempotency import RepeatableRequest
from parley_server.storage.page import Page, PageRequest


class ApiKeyRepository(Protocol):
    """All API keys; for administrators only, which the access policy sees to."""

    async def create(self, stored: StoredKey, request: RepeatableRequest | None = None) -> tuple[ApiKey, bool]:
        """Store a new key and return it with True; what an equal request made before, as it is now, with False.

        Raises:
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def list(self, page: PageRequest) -> Page[ApiKey]:
        """List, latest created first."""
        ...

    async def rotate(
        self, key_id: str, secret_hash: bytes, rotation: Rotation, request: RepeatableRequest | None = None
    ) -> tuple[ApiKey, bool]:
        """Give a key a new secret and return it with True; when an equal request did so before, with False.

        Raises:
            NotFoundError: there is no such key, or it is revoked or expired.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """Mark a key revoked; again is no error. Raises NotFoundError."""
        ...

    async def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """Note when keys were last used, by their ids; what is older than what is known changes nothing."""
        ...
