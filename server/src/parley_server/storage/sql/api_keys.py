"""API keys on any engine: the administrator's repository and the look-up authentication does."""

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
from parley_server.domain.errors import NotFoundError
from parley_server.domain.idempotency import RepeatableRequest
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.sql import request_ids
from parley_server.storage.sql.database import Reader, to_micros
from parley_server.storage.sql.rows import api_key_of, row_of_key, stored_key_of
from parley_server.storage.sql.tables import api_keys
from parley_server.storage.sql.writer import Writes

_GET = select(api_keys).where(api_keys.c.key_id == bindparam("key_id"))
_RECORD_USE = (
    update(api_keys)
    .where(
        api_keys.c.key_id == bindparam("used_key_id"),
        api_keys.c.last_use_time.is_(None) | (api_keys.c.last_use_time < bindparam("use_time")),
    )
    .values(last_use_time=bindparam("use_time"))
)
_LISTING = ("api_keys",)


class SqlApiKeyRepository:
    """Implements `ApiKeyRepository`, and `find` for authentication."""

    def __init__(self, reader: Reader, writes: Writes, tokens: PageTokens) -> None:
        self._reader = reader
        self._writes = writes
        self._tokens = tokens

    async def create(self, stored: StoredKey, request: RepeatableRequest | None = None) -> tuple[ApiKey, bool]:
        """Store a new key; see `ApiKeyRepository.create`."""

        def write(connection: Connection) -> ApiKey:
            connection.execute(insert(api_keys).values(row_of_key(stored)))
            return stored.key

        return await self._once(write, request, to_micros(stored.key.create_time))

    async def find(self, key_id: str) -> StoredKey | None:
        """Return a key with the keyed hashes of its secrets, None if there is no such key."""
        rows = await self._reader.fetch(_GET, {"key_id": key_id})
        return stored_key_of(rows[0]) if rows else None

    async def list(self, page: PageRequest) -> Page[ApiKey]:
        """List, latest created first; see `ApiKeyRepository.list`."""
        statement = select(api_keys).order_by(api_keys.c.create_time.desc(), api_keys.c.key_id).limit(page.size + 1)
        if place := self._tokens.read(_LISTING, page.token):
            created, key_id = place.split(":")
            older = api_keys.c.create_time < int(created)
            statement = statement.where(
                older | ((api_keys.c.create_time == int(created)) & (api_keys.c.key_id > key_id))
            )
        keys = [api_key_of(row) for row in await self._reader.fetch(statement)]
        items = tuple(keys[: page.size])
        if len(keys) <= page.size:
            return Page(items, "")
        place = f"{to_micros(items[-1].create_time)}:{items[-1].key_id}"
        return Page(items, self._tokens.issue(_LISTING, place))

    async def rotate(
        self, key_id: str, secret_hash: bytes, rotation: Rotation, request: RepeatableRequest | None = None
    ) -> tuple[ApiKey, bool]:
        """Give a key a new secret; see `ApiKeyRepository.rotate`."""

        def write(connection: Connection) -> ApiKey:
            stored = _get(connection, key_id)
            if not stored.key.is_valid_at(rotation.time):
                raise NotFoundError("api_key")
            rotated = stored.rotated(secret_hash, rotation)
            connection.execute(update(api_keys).where(api_keys.c.key_id == key_id).values(row_of_key(rotated)))
            return rotated.key

        return await self._once(write, request, to_micros(rotation.time))

    async def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """Mark a key revoked; see `ApiKeyRepository.revoke`."""

        def tx(connection: Connection) -> ApiKey:
            connection.execute(
                update(api_keys)
                .where(api_keys.c.key_id == key_id, api_keys.c.revoke_time.is_(None))
                .values(revoke_time=to_micros(now))
            )
            return _get(connection, key_id).key

        return await self._writes.run(tx)

    async def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """Note when keys were last used; see `ApiKeyRepository.record_uses`."""
        rows = [{"used_key_id": key_id, "use_time": to_micros(time)} for key_id, time in uses.items()]

        def tx(connection: Connection) -> None:
            connection.execute(_RECORD_USE, rows)

        if rows:
            await self._writes.run(tx)

    async def _once(
        self, write: Callable[[Connection], ApiKey], request: RepeatableRequest | None, now: int
    ) -> tuple[ApiKey, bool]:
        """Write, unless an equal request has done so before; return the key and whether this one wrote it."""

        def tx(connection: Connection) -> tuple[ApiKey, bool]:
            if request is None:
                return write(connection), True
            earlier = request_ids.find(connection, request.context, request.idempotency)
            if earlier is not None:
                return _get(connection, earlier).key, False
            key = write(connection)
            request_ids.remember(connection, request.context, request.idempotency, key.key_id, now)
            return key, True

        return await self._writes.run(tx)


def _get(connection: Connection, key_id: str) -> StoredKey:
    row = connection.execute(_GET, {"key_id": key_id}).mappings().first()
    if row is None:
        raise NotFoundError("api_key")
    return stored_key_of(dict(row))
