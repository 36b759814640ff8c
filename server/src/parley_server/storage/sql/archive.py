"""A run's archive: its log in pages, each written when it is full, and the last one when the run ends."""

from collections.abc import Iterable, Iterator

from sqlalchemy import BigInteger, Connection, LargeBinary, String, bindparam, select, text

from parley_server.domain.errors import NotFoundError
from parley_server.domain.per_user import UserKey, UserReads
from parley_server.domain.run_event import StoredEvent
from parley_server.storage.sql import frames
from parley_server.storage.sql.database import Reader
from parley_server.storage.sql.rows import blob, number
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import run_archive, runs
from parley_server.storage.sql.tail import PAGE_BYTES

# A commit whose outcome nobody heard is tried again: its page is there then, and the same.
_INSERT = text(
    "INSERT INTO run_archive (run_id, first_seq, frames) VALUES (:run_id, :first_seq, :frames) ON CONFLICT DO NOTHING"
).bindparams(
    bindparam("run_id", type_=String), bindparam("first_seq", type_=BigInteger), bindparam("frames", type_=LargeBinary)
)
# The page that holds a seq is the last one that starts at or before it.
_PAGE = (
    select(run_archive.c.first_seq, run_archive.c.frames)
    .where(run_archive.c.run_id == bindparam("run_id"), run_archive.c.first_seq <= bindparam("seq"))
    .order_by(run_archive.c.first_seq.desc())
    .limit(1)
)
_UNFINISHED = (
    select(run_archive)
    .join(runs, runs.c.run_id == run_archive.c.run_id)
    .where(runs.c.finish_time.is_(None))
    .order_by(run_archive.c.run_id, run_archive.c.first_seq)
)


def insert(connection: Connection, run_id: str, events: Iterable[StoredEvent]) -> None:
    """Write events as pages."""
    rows = [
        {"run_id": run_id, "first_seq": page[0].seq, "frames": frames.pack(event.payload for event in page)}
        for page in _pages(events)
    ]
    if rows:
        write(connection, _INSERT, *rows)


def of_unfinished_runs(connection: Connection) -> Iterator[tuple[str, tuple[StoredEvent, ...]]]:
    """Yield what the archive has of runs that have not ended: a run's id and the events of a page, in order."""
    for row in connection.execute(_UNFINISHED):
        yield row.run_id, frames.unpack(row.first_seq, row.frames)


def _pages(events: Iterable[StoredEvent]) -> Iterator[list[StoredEvent]]:
    page: list[StoredEvent] = []
    size = 0
    for event in events:
        if page and size + len(event.payload) > PAGE_BYTES:
            yield page
            page, size = [], 0
        page.append(event)
        size += len(event.payload)
    if page:
        yield page


class ArchiveReader:
    """Reads pages. Calls of one user that have the same one in their hands share it, and the read that fetches it."""

    def __init__(self) -> None:
        self._pages: UserReads[tuple[str, int], frames.Page] = UserReads()

    async def page(self, reader: Reader, user: UserKey, run_id: str, seq: int) -> frames.Page:
        """Return the page of a user's run that holds a seq, which the archive has, by a reader that acts for him.

        Raises:
            NotFoundError: the run has been deleted.
            StorageUnavailableError: the engine could not answer.
        """
        return await self._pages.get(user, (run_id, seq), lambda: _read(reader, run_id, seq))


async def _read(reader: Reader, run_id: str, seq: int) -> frames.Page:
    rows = await reader.fetch(_PAGE, {"run_id": run_id, "seq": seq})
    if not rows:
        raise NotFoundError("run")
    return frames.read_page(number(rows[0], "first_seq"), blob(rows[0], "frames"))
