"""Statements compiled for reading past SQLAlchemy's connections, which cost several times the read itself."""

import weakref
from typing import cast

from sqlalchemy import ClauseElement
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler


class Compiler:
    """Compiles for one driver; a statement that lives on (a module's own) is compiled once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._compiled: weakref.WeakKeyDictionary[ClauseElement, SQLCompiler] = weakref.WeakKeyDictionary()

    def __call__(self, statement: ClauseElement) -> SQLCompiler:
        """Return the statement as the driver takes it; an IN list is written out."""
        compiled = self._compiled.get(statement)
        if compiled is None:
            options = {"render_postcompile": True}
            compiled = cast("SQLCompiler", statement.compile(dialect=self._dialect, compile_kwargs=options))
            self._compiled[statement] = compiled
        return compiled
