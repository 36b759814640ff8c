"""Statements compiled for going past SQLAlchemy's connections, which cost several times the statement itself."""

from functools import lru_cache
from typing import cast

from sqlalchemy import ClauseElement
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

# Many more than live on; those that are made for one call soon make room for others.
_KEPT = 128


class Compiler:
    """Compiles for one driver; a statement that lives on (a module's own) is compiled once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        # By age and not by weak references: what is compiled refers to its statement, and so would keep it for ever.
        self._compiled = lru_cache(_KEPT)(self._compile)

    def __call__(self, statement: ClauseElement, columns: tuple[str, ...] | None = None) -> SQLCompiler:
        """Return the statement as the driver takes it; an IN list is written out. An Insert is one of `columns`."""
        return self._compiled(statement, columns)

    def _compile(self, statement: ClauseElement, columns: tuple[str, ...] | None) -> SQLCompiler:
        options = {"render_postcompile": True}
        compiled = statement.compile(dialect=self._dialect, column_keys=columns, compile_kwargs=options)
        return cast("SQLCompiler", compiled)
