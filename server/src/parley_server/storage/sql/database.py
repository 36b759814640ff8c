"""A database as the rest of `storage/sql` sees it: write transactions as one synchronous call, reads as statements."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from sqlalchemy import ClauseElement, Connection

from parley_server.storage.sql.acting import OPERATOR, Acting

T = TypeVar("T")

Row = Mapping[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Turn an aware datetime into the tables' integer microseconds since 1970, exactly."""
    return (moment - _EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Turn the tables' integer microseconds into an aware datetime in UTC."""
    return _EPOCH + timedelta(0, 0, micros)


class TransactionLostError(Exception):
    """The engine has undone the whole transaction by itself; nothing of it may count as written."""


class Database(Protocol):
    """One engine's way to run transactions and reads."""

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        """Run `tx` in one durable write transaction of its own and return what it returns.

        Raises:
            StorageUnavailableError: the engine could not do it; nothing of it is stored.
        """
        ...

    async def fetch(
        self, statement: ClauseElement, parameters: Mapping[str, object] | None = None, acting: Acting = OPERATOR
    ) -> Sequence[Row]:
        """Run one read on a snapshot of what is committed, in somebody's name; who has a `Reader` cannot forget it.

        Raises:
            StorageUnavailableError: the engine could not answer.
        """
        ...

    async def scrub(self, *, is_thorough: bool = False) -> None:
        """Make what transactions have deleted leave the files; what is large only where that `is_thorough`.

        Nobody writes while a file or table is written anew. See ADR 18.

        Raises:
            StorageUnavailableError: somebody still reads what was there before, or the engine could not do it.
        """
        ...


class Reader:
    """Reads in one name: all that a repository is given to read with."""

    def __init__(self, database: Database, acting: Acting) -> None:
        self._database = database
        self._acting = acting

    async def fetch(self, statement: ClauseElement, parameters: Mapping[str, object] | None = None) -> Sequence[Row]:
        """Run one read; see `Database.fetch`."""
        return await self._database.fetch(statement, parameters, self._acting)
