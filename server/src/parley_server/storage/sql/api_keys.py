"""API keys on any engine: the administrator's repository and the look-up authentication does."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from parley_server.domain.api_key import ApiKey
from parley_server.domain.errors import NotFoundError
from parley_server.storage.repositories import Page, PageRequest
from parley_server.storage.sql.database import Database, to_micros
from parley_server.storage.sql.paging import PageTokens
from parley_server.storage.sql.rows import WORDS, api_key_of, blob, dump
from parley_server.storage.sql.tables import api_keys
from parley_server.storage.sql.writer import Writer

_GET = select(api_keys).where(api_keys.c.key_id == bindparam("key_id"))
_LISTING = ("api_keys",)


class SqlApiKeyRepository:
    """Implements `ApiKeyRepository`, and `find` for authentication."""

    def __init__(self, database: Database, writer: Writer, tokens: PageTokens) -> None:
        self._database = database
        self._writer = writer
        self._tokens = tokens

    async def create(self, key: ApiKey, secret_hash: bytes) -> None:
        """Store a new key; see `ApiKeyRepository.create`."""
        row = {
            "key_id": key.key_id,
            "kind": key.kind,
            "subject": key.subject,
            "scopes_json": dump(WORDS, tuple(sorted(key.scopes))),
            "act_as_json": dump(WORDS, key.act_as),
            "secret_hash": secret_hash,
            "create_time": to_micros(key.create_time),
            "expire_time": None if key.expire_time is None else to_micros(key.expire_time),
        }
        await self._writer.run(lambda connection: _execute(connection, row))

    async def find(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        """Return a key and the keyed hash of its secret, None if there is no such key."""
        rows = await self._database.fetch(_GET, {"key_id": key_id})
        return (api_key_of(rows[0]), blob(rows[0], "secret_hash")) if rows else None

    async def list(self, page: PageRequest) -> Page[ApiKey]:
        """List, latest created first; see `ApiKeyRepository.list`."""
        statement = select(api_keys).order_by(api_keys.c.create_time.desc(), api_keys.c.key_id).limit(page.size + 1)
        if place := self._tokens.read(_LISTING, page.token):
            created, key_id = place.split(":")
            older = api_keys.c.create_time < int(created)
            statement = statement.where(
                older | ((api_keys.c.create_time == int(created)) & (api_keys.c.key_id > key_id))
            )
        keys = [api_key_of(row) for row in await self._database.fetch(statement)]
        items = tuple(keys[: page.size])
        if len(keys) <= page.size:
            return Page(items, "")
        place = f"{to_micros(items[-1].create_time)}:{items[-1].key_id}"
        return Page(items, self._tokens.issue(_LISTING, place))

    async def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """Mark a key revoked; see `ApiKeyRepository.revoke`."""

        def tx(connection: Connection) -> None:
            connection.execute(
                update(api_keys)
                .where(api_keys.c.key_id == key_id, api_keys.c.revoke_time.is_(None))
                .values(revoke_time=to_micros(now))
            )

        await self._writer.run(tx)
        found = await self.find(key_id)
        if found is None:
            raise NotFoundError("api_key")
        return found[0]


def _execute(connection: Connection, row: dict[str, object]) -> None:
    connection.execute(insert(api_keys).values(row))
