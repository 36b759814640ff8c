"""The statements that every run makes, each compiled once and given to SQLite's driver as it is.

SQLAlchemy's way takes twenty times what SQLite itself needs for such a statement, in a thread that shares the
interpreter with every stream. On PostgreSQL, where a round trip takes as long, it stays. Meant for statements of a
module's own; what is put together for one call gains nothing.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from sqlalchemy import Connection, Delete, Insert, Select, TextClause, Update

from parley_server.storage.sql.driver import compile_named, driver_of

Parameters = Mapping[str, object]


def write(connection: Connection, statement: Insert | Update | Delete | TextClause, *rows: Parameters) -> int:
    """Execute a statement once for each row of parameters; return how many rows it changed.

    The parameters of an Insert are the columns; all rows have the same.
    """
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, rows[0] if len(rows) == 1 else rows).rowcount
    compiled = compile_named(statement, tuple(rows[0]) if isinstance(statement, Insert) else None)
    # Of a single row too it tells how many were changed, and costs the same.
    return driver_of(connection).executemany(str(compiled), map(compiled.construct_params, rows)).rowcount


def first(
    connection: Connection, statement: Select[*tuple[object, ...]], parameters: Parameters
) -> Sequence[object] | None:
    """Return the first row of a query; None if there is none."""
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, parameters).first()
    compiled = compile_named(statement)
    row = driver_of(connection).execute(str(compiled), compiled.construct_params(parameters)).fetchone()
    return cast("Sequence[object] | None", row)
