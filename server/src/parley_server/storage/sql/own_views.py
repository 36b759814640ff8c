"""A SQLite connection that shows a read the rows of one user and no others, whatever the statement forgets to ask for.

A temporary view stands before every table, under its name, with the table's condition on whose its rows are. The
authorizer lets nothing else be read, so that what has no view, or is asked for by its whole name, is refused while the
statement is prepared; afterwards it costs nothing.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from parley_server.storage.sql.ownership import OWNERSHIP

_READER_PRAGMAS = ("PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF", "PRAGMA cache_size = -8192")

_USER = "acting_user()"
_VIEWS = {table: rules for table, rules in OWNERSHIP.items() if rules.readable}
_INDEX = "search_texts"
# What FTS5 reads by statements of its own.
_OF_INDEX = frozenset(f"{_INDEX}_{part}" for part in ("data", "idx", "content", "docsize", "config"))
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


class OwnParameters(dict[str, object]):
    """A statement's parameters, and for whom it is executed."""

    def __init__(self, parameters: Mapping[str, object], user_id: str) -> None:
        super().__init__(parameters)
        self.user_id = user_id


class OwnConnection(sqlite3.Connection):
    """A connection that reads for the user of each statement's `OwnParameters`, and without them for nobody.

    `confine` puts the views before the tables and lets nothing else be read from then on.
    """

    _user_id: str | None = None

    def execute(  # type: ignore[override]  # the driver takes more kinds of parameters, of which aiosqlite makes these
        self, sql: str, parameters: Mapping[str, object] | Sequence[object] = (), /
    ) -> sqlite3.Cursor:
        """Execute a statement for the user that its parameters have. Raises sqlite3.DatabaseError where it may not."""
        _refuse_index(sql)
        self._user_id = parameters.user_id if isinstance(parameters, OwnParameters) else None
        return super().execute(sql, parameters)

    def confine(self) -> None:
        """Put the views before the tables, for good; the schema must be there."""
        # The views' own database; it needs no file, which there may be no right to open when it is wanted.
        self.execute("PRAGMA temp_store = MEMORY")
        self.create_function("acting_user", 0, self._acting_user, deterministic=True)
        for table, rules in _VIEWS.items():
            # The column that FTS5 is searched by has the table's name, and is none of its `*`.
            columns = f"*, {_INDEX}" if table == _INDEX else rules.readable
            condition = rules.condition(table, _USER, "main.")
            self.execute(f"CREATE TEMP VIEW {table} AS SELECT {columns} FROM main.{table} WHERE {condition}")  # noqa: S608  # names of ours
        make_read_only(self)
        self.set_authorizer(_authorize)

    def _acting_user(self) -> str:
        if self._user_id is None:
            raise LookupError("nobody to act for")
        return self._user_id


def open_own(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open a connection that is confined; nobody has read by it yet."""
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, factory=OwnConnection)
    connection.confine()
    return connection


def open_unbound(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open a connection that reads all there is, for what is no user's."""
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
    make_read_only(connection)
    # Now, so that all its files are open whatever becomes of the process's right to open more.
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return connection


def make_read_only(connection: sqlite3.Connection) -> None:
    """Make a connection a reader's."""
    for pragma in _READER_PRAGMAS:
        connection.execute(pragma)


def _authorize(action: int, first: str | None, second: str | None, schema: str | None, view: str | None) -> int:
    """Say yes to reading the views, to the views' reading the tables, and to the search's reading its index."""
    if action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and (
        view in _VIEWS or (schema == "temp" and first in _VIEWS) or first in _OF_INDEX
    ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@lru_cache(128)
def _refuse_index(sql: str) -> None:
    """Keep a statement from the index's own tables: the authorizer cannot tell whether it is FTS5 that asks."""
    if f"{_INDEX}_" in sql.lower():
        raise sqlite3.DatabaseError("not authorized")
