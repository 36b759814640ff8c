"""One transaction on PostgreSQL's session that writes."""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection, text

from parley_server.storage.sql.database import TransactionLostError
from parley_server.storage.sql.roles import Roles

T = TypeVar("T")

# Advisory locks are the database's own; the first number is ours ("parl"), the second says which.
LOCK_SPACE = 0x7061726C
_WRITING = 2

# In this order: a transaction that waits for the lock has no id yet.
_BEGIN = text("SELECT pg_advisory_xact_lock(:space, :lock), pg_current_xact_id()::text").bindparams(
    space=LOCK_SPACE, lock=_WRITING
)


class Attempt(Generic[T]):
    """One transaction. `results` is empty until nothing but the commit was left to do.

    `give_up` is called when there is no answer, before a rollback would wait for the next one. `roles` are those that
    its units take on; None where none does.
    """

    def __init__(self, tx: Callable[[Connection], T], give_up: Callable[[], None], roles: Roles | None = None) -> None:
        self._tx = tx
        self._roles = roles
        self._give_up = give_up
        self.results: list[T] = []
        self.transaction_id = ""

    def __call__(self, connection: Connection) -> T:
        """Do it and commit. Raises what the transaction raises, and TimeoutError where there is no answer."""
        if self._roles is not None:
            self._roles.keep_for(connection)
        transaction = connection.begin()
        try:
            result = self._do(connection)
            transaction.commit()
        except TimeoutError:
            self._give_up()
            raise
        except BaseException:
            transaction.rollback()
            raise
        return result

    def _do(self, connection: Connection) -> T:
        _, self.transaction_id = connection.execute(_BEGIN).one()
        result = self._tx(connection)
        if connection.invalidated:
            raise TransactionLostError
        self.results.append(result)
        return result
