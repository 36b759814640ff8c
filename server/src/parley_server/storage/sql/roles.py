"""The roles of a PostgreSQL database, and how a transaction takes one on and lays it down again.

They cannot log in; whoever the server logs in as may take them on. They are named after the owner of the tables, so
that the databases of different owners on one server are strangers to each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Connection
from sqlalchemy.engine import AdaptedConnection

from parley_server.storage.sql.acting import OPERATOR, Acting, Role
from parley_server.storage.sql.database import TransactionLostError

SETTING = "parley.user_id"

_NAMES = "roles"
_ACTING = "acting"
_LAY_DOWN = f"SET LOCAL ROLE NONE; SET LOCAL {SETTING} = ''"


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of the database whose tables have this owner."""

    owner: str

    def name(self, role: Role) -> str:
        """Return a role's name in the database."""
        return f"{self.owner}_{role}"

    def names(self) -> list[str]:
        """Return the names of all."""
        return [self.name(role) for role in Role]

    def taking_on(self, acting: Acting) -> str:
        """Return the statements that make the rest of a transaction act in somebody's name."""
        if acting.role is None:
            return _LAY_DOWN
        return f"SET LOCAL ROLE {identifier(self.name(acting.role))}; SET LOCAL {SETTING} = {literal(acting.user_id)}"

    def keep_for(self, connection: Connection) -> None:
        """Let units of this connection act."""
        connection.info[_NAMES] = self


def identifier(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it; every session of ours has standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def postgres_savepoint(connection: Connection, acting: Acting) -> Iterator[None]:
    """Act in somebody's name for a block, whose writes are undone when it raises; afterwards it is as it was before.

    Raises:
        TransactionLostError: what the block is made of could not be had; nothing of the transaction counts.
    """
    roles = cast("Roles", connection.info[_NAMES])
    around = cast("Acting", connection.info.get(_ACTING, OPERATOR))
    _execute(connection, f"SAVEPOINT unit; {roles.taking_on(acting)}")
    connection.info[_ACTING] = acting
    try:
        yield
    except TimeoutError:
        # No answer, so there would be none to this either.
        raise
    except BaseException:
        # It takes back the role as well: that came after the savepoint.
        _execute(connection, "ROLLBACK TO unit; RELEASE unit")
        raise
    finally:
        connection.info[_ACTING] = around
    _execute(connection, f"RELEASE unit; {roles.taking_on(around)}")


def execute(connection: Connection, statements: str) -> None:
    """Execute statements in one round trip, where SQLAlchemy takes one for each. Raises what asyncpg does."""
    adapted = cast("AdaptedConnection", connection.connection.dbapi_connection)
    adapted.run_async(lambda driver: driver.execute(statements))


def _execute(connection: Connection, statements: str) -> None:
    try:
        execute(connection, statements)
    except TimeoutError:
        raise
    except Exception as error:
        raise TransactionLostError(str(error)) from error
