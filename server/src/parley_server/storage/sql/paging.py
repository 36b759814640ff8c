"""Pages: how much fits one."""

from collections.abc import Collection, Sequence

from parley_server.storage.sql.database import Row
from parley_server.storage.sql.rows import string

# Half of what a message may have, for what the columns become on the wire.
MAX_PAGE_BYTES = 2 * 1024 * 1024


def fitting(rows: Sequence[Row], size: int, columns: Collection[str]) -> int:
    """Count the rows a page takes: at most `size`, and no more than MAX_PAGE_BYTES in the columns that can be large."""
    taken = size_bytes = 0
    for row in rows[:size]:
        size_bytes += sum(len(string(row, name).encode()) for name in columns)
        if taken and size_bytes > MAX_PAGE_BYTES:
            break
        taken += 1
    return taken
