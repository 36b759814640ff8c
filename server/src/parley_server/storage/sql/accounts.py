"""The user's account, on any engine."""

from collections.abc import AsyncGenerator

from sqlalchemy import Connection, bindparam, insert, select, update

from parley_server.domain.account import CHANGEABLE, Account, AccountChanges, AccountDefaults, QuietHours
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import EtagMismatchError
from parley_server.storage.account_repository import ExportedRow
from parley_server.storage.sql import account_rows
from parley_server.storage.sql.acting import acting_for
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Database, Reader, Row
from parley_server.storage.sql.rows import moment, number, string
from parley_server.storage.sql.tables import accounts
from parley_server.storage.sql.user_writer import UserWriter

_OWN = accounts.c.user_id == bindparam("user_id")
_GET = select(accounts).where(_OWN)
_DEFAULTS = select(accounts.c.time_zone, accounts.c.locale).where(_OWN)
_NOTHING = AccountDefaults()


class SqlAccountRepository:
    """Implements `AccountRepository` for one user."""

    def __init__(self, context: RequestContext, reader: Reader, writes: UserWriter) -> None:
        self._user_id = context.user_id
        self._reader = reader
        self._writes = writes

    async def get(self) -> Account:
        """Return it; see `AccountRepository.get`."""
        rows = await self._reader.fetch(_GET, {"user_id": self._user_id})
        return _account_of(rows[0]) if rows else Account(self._user_id)

    async def update(self, changes: AccountChanges, etag: str = "") -> Account:
        """Change it; see `AccountRepository.update`."""
        now = now_micros()

        def tx(connection: Connection) -> None:
            found = connection.execute(select(accounts.c.revision).where(accounts.c.user_id == self._user_id)).first()
            revision = 0 if found is None else found.revision
            if etag and etag != str(revision):
                raise EtagMismatchError("account")
            values = _columns(changes) | {"update_time": now, "revision": revision + 1}
            if found is None:
                empty = _columns(AccountChanges(CHANGEABLE))
                connection.execute(insert(accounts).values(user_id=self._user_id, create_time=now, **(empty | values)))
            else:
                connection.execute(update(accounts).where(accounts.c.user_id == self._user_id).values(**values))

        await self._writes.run(tx)
        return await self.get()

    def conversation_ids(self) -> AsyncGenerator[str]:
        """Yield the ids of conversations; see `AccountRepository.conversation_ids`."""
        return account_rows.conversation_ids(self._reader, self._user_id)

    def rows(self) -> AsyncGenerator[ExportedRow]:
        """Yield rows; see `AccountRepository.rows`."""
        return account_rows.exported(self._reader, self._user_id)


class SqlAccountDirectory:
    """Implements `AccountDirectory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def defaults_of(self, user_id: str) -> AccountDefaults:
        """Look a user up; see `AccountDirectory.defaults_of`."""
        rows = await Reader(self._database, acting_for(user_id)).fetch(_DEFAULTS, {"user_id": user_id})
        return AccountDefaults(string(rows[0], "time_zone"), string(rows[0], "locale")) if rows else _NOTHING


def _quiet_columns(hours: QuietHours | None) -> dict[str, object]:
    return {
        "quiet_start_minute": None if hours is None else hours.start_minute,
        "quiet_end_minute": None if hours is None else hours.end_minute,
    }


def _columns(changes: AccountChanges) -> dict[str, object]:
    """Return the columns of what the changes name."""
    texts = {"display_name": changes.display_name, "time_zone": changes.time_zone, "locale": changes.locale}
    named: dict[str, object] = {name: text for name, text in texts.items() if name in changes.named}
    return named | (_quiet_columns(changes.quiet_hours) if "quiet_hours" in changes.named else {})


def _account_of(row: Row) -> Account:
    has_quiet_hours = row["quiet_start_minute"] is not None
    return Account(
        user_id=string(row, "user_id"),
        display_name=string(row, "display_name"),
        time_zone=string(row, "time_zone"),
        locale=string(row, "locale"),
        quiet_hours=QuietHours(number(row, "quiet_start_minute"), number(row, "quiet_end_minute"))
        if has_quiet_hours
        else None,
        create_time=moment(row, "create_time"),
        update_time=moment(row, "update_time"),
        etag=str(number(row, "revision")),
    )
