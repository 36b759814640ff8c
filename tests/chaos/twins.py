"""Servers that break a promise on purpose. Chaos that passes on one of them proves nothing of the real server."""

from collections.abc import Callable

from parley_server.storage.sql import sqlite
from parley_server.tools.turn_plan import Job


def _commit_without_sync() -> None:
    """Acknowledge what a power cut takes back: the write-ahead log is synced at checkpoints alone."""
    pragmas = [pragma.replace("synchronous = FULL", "synchronous = NORMAL") for pragma in sqlite._WRITER_PRAGMAS]
    assert pragmas != list(sqlite._WRITER_PRAGMAS)
    sqlite._WRITER_PRAGMAS = tuple(pragmas)  # type: ignore[assignment]  # as many as before


def _repeat_every_tool() -> None:
    """Do again after a crash whatever has no result, as systems of at-least-once do."""
    Job.is_write = property(lambda _: False)  # type: ignore[method-assign, assignment]  # breaking it is the point


TWINS: dict[str, Callable[[], None]] = {"unsynced": _commit_without_sync, "repeating": _repeat_every_tool}
