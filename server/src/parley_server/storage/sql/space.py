"""The space of a SQLite file. PostgreSQL sees to its own (autovacuum), so there is nothing to do for it here.

Pages that are freed are overwritten with zeros and used again (`secure_delete`); what is far more than that is cut off
the file in small steps (`auto_vacuum = INCREMENTAL`, which only a fresh file can be given).
"""

from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Connection, text

# What stays free for what comes next: cutting a page off costs as much as writing one.
KEPT_FREE_PAGES = 1024
KEPT_FREE_SHARE = 0.1
STEP_PAGES = 256
# FTS5 only notes that a text is gone; its words go when the index's parts are merged.
MERGE_EVERY = timedelta(days=1)

# A negative number of pages makes one level of all parts first; a positive one goes on from there.
_MERGE = text("INSERT INTO search_texts (search_texts, rank) VALUES ('merge', :pages)")
_CHANGES = text("SELECT total_changes()")
# The documented sign that there was nothing to merge.
_NO_WORK = 2


class Merging:
    """Merges all parts of the search's index into one, step by step; then the next step begins anew."""

    def __init__(self) -> None:
        self._is_under_way = False

    def step(self, connection: Connection) -> int:
        """Do one step inside the caller's transaction; return the pages it was about, 0 when there is nothing to do."""
        if connection.dialect.name != "sqlite":
            return 0
        if not self._is_under_way:
            self._is_under_way = True
            return _merge(connection, is_first=True) or 1
        self._is_under_way = bool(_merge(connection, is_first=False))
        return STEP_PAGES if self._is_under_way else 0


class Compaction:
    """Compacts step by step: all parts of the search's index into one, once a day; then the file."""

    def __init__(self) -> None:
        self._next_merge: datetime | None = None
        self._merging: Merging | None = None

    def step(self, connection: Connection, now: datetime) -> int:
        """Do one step inside the caller's transaction; return the pages it was about, 0 when there is nothing to do."""
        if connection.dialect.name != "sqlite":
            return 0
        if self._next_merge is None or now >= self._next_merge:
            self._next_merge = now + MERGE_EVERY
            self._merging = Merging()
        if self._merging is not None:
            if pages := self._merging.step(connection):
                return pages
            self._merging = None
        return release_pages(connection)


def release_pages(connection: Connection) -> int:
    """Cut pages off the end of the file when far more are free than will be needed soon; return how many."""
    free = _number(connection, "freelist_count")
    spare = free - max(KEPT_FREE_PAGES, int(_number(connection, "page_count") * KEPT_FREE_SHARE))
    if spare < STEP_PAGES or not _number(connection, "auto_vacuum"):
        return 0
    # One by one, because the driver stops at the first page, however many it is asked for.
    for _ in range(STEP_PAGES):
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    return free - _number(connection, "freelist_count")


def _merge(connection: Connection, *, is_first: bool) -> int:
    before = cast("int", connection.execute(_CHANGES).scalar_one())
    connection.execute(_MERGE, {"pages": -STEP_PAGES if is_first else STEP_PAGES})
    changes = cast("int", connection.execute(_CHANGES).scalar_one()) - before
    return changes if changes >= _NO_WORK else 0


def _number(connection: Connection, pragma: str) -> int:
    return cast("int", connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one())
