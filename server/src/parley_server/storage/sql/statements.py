"""The statements that every run makes, each compiled once and given to SQLite's driver as it is.

SQLAlchemy's way takes twenty times what SQLite itself needs for such a statement, in a thread that shares the
interpreter with every stream. On PostgreSQL, where a round trip takes as long, it stays. Meant for statements of a
module's own; what is put together for one call gains nothing.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

from sqlalchemy import Connection, Delete, Insert, Select, TextClause, Update
from sqlalchemy.dialects import sqlite

from parley_server.storage.sql.driver import driver_of

Parameters = Mapping[str, object]

_DIALECT = sqlite.dialect(paramstyle="named")


def write(connection: Connection, statement: Insert | Update | Delete | TextClause, *rows: Parameters) -> int:
    """Execute a statement once for each row of parameters; return how many rows it changed.

    The parameters of an Insert are the columns; all rows have the same.
    """
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, rows[0] if len(rows) == 1 else rows).rowcount
    sql, defaults = _compiled(statement, tuple(rows[0]) if isinstance(statement, Insert) else ())
    given = [{**defaults, **row} for row in rows]
    driver = driver_of(connection)
    return (driver.execute(sql, given[0]) if len(given) == 1 else driver.executemany(sql, given)).rowcount


def first(
    connection: Connection, statement: Select[*tuple[object, ...]], parameters: Parameters
) -> Sequence[object] | None:
    """Return the first row of a query; None if there is none."""
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, parameters).first()
    sql, defaults = _compiled(statement, ())
    return cast("Sequence[object] | None", driver_of(connection).execute(sql, {**defaults, **parameters}).fetchone())


@lru_cache(128)
def _compiled(
    statement: Insert | Update | Delete | TextClause | Select[*tuple[object, ...]], columns: tuple[str, ...]
) -> tuple[str, Parameters]:
    compiled = statement.compile(dialect=_DIALECT, column_keys=columns or None)
    return str(compiled), {} if columns else compiled.params
