"""SQLite's own connection under SQLAlchemy's, for what every commit does: begin, savepoints, the statements of a run.

Done by SQLAlchemy these take ten times the work of SQLite itself, in the thread that shares the interpreter with every
stream. What is rare, and what is the same on both engines, stays with SQLAlchemy.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite

from parley_server.storage.sql.acting import OPERATOR, Acting
from parley_server.storage.sql.compilation import Compiler
from parley_server.storage.sql.database import TransactionLostError
from parley_server.storage.sql.roles import postgres_savepoint

compile_named = Compiler(sqlite.dialect(paramstyle="named"))


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection; of SQLite alone."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Write in a transaction that is committed at the end of the block, and undone when that raises."""
    driver = driver_of(connection)
    driver.execute("BEGIN IMMEDIATE")
    try:
        yield
        require_transaction(driver)
        # SQLAlchemy believes in a transaction only once it has executed a statement.
        (connection if connection.in_transaction() else driver).commit()
    except BaseException:
        try:
            connection.rollback()
        finally:
            # SQLAlchemy knows of nothing to undo where it has executed nothing.
            driver.rollback()
        raise


@contextmanager
def savepoint(connection: Connection, acting: Acting = OPERATOR) -> Iterator[None]:
    """Undo what the block has written when it raises, and nothing else; on PostgreSQL it writes in somebody's name.

    Raises:
        TransactionLostError: the engine has undone the whole transaction by itself.
    """
    if connection.dialect.name == "postgresql":
        with postgres_savepoint(connection, acting):
            yield
        return
    driver = driver_of(connection)
    require_transaction(driver)
    driver.execute("SAVEPOINT unit")
    try:
        yield
    except BaseException:
        driver.execute("ROLLBACK TO unit")
        driver.execute("RELEASE unit")
        raise
    driver.execute("RELEASE unit")


@contextmanager
def acting_as(connection: Connection, acting: Acting) -> Iterator[None]:
    """Act in another name for a block of a unit, where the engine asks for one at all."""
    if connection.dialect.name == "postgresql":
        with postgres_savepoint(connection, acting):
            yield
    else:
        yield


def require_transaction(driver: sqlite3.Connection) -> None:
    """See that the transaction is still there.

    A full disk or a failed read or write makes SQLite end it by itself. Whatever came after would be committed one by
    one, and what came before would be reported as committed. Raises TransactionLostError.
    """
    if not driver.in_transaction:
        raise TransactionLostError
