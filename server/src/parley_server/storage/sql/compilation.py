"""Statements compiled for reading past SQLAlchemy's connections, which cost several times the read itself."""

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

    def __call__(self, statement: ClauseElement) -> SQLCompiler:
        """Return the statement as the driver takes it; an IN list is written out."""
        return self._compiled(statement)

    def _compile(self, statement: ClauseElement) -> SQLCompiler:
        options = {"render_postcompile": True}
        return cast("SQLCompiler", statement.compile(dialect=self._dialect, compile_kwargs=options))
