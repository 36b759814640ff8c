"""The user's notes, on any engine."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.identifiers import new_id
from parley_server.domain.note import MAX_NOTES, Note, NotesFullError
from parley_server.storage.sql import request_ids, search
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Reader, Row, from_micros
from parley_server.storage.sql.rows import number, string
from parley_server.storage.sql.tables import notes
from parley_server.storage.sql.user_writer import UserWriter

_BATCH = 200

_OWN = notes.c.user_id == bindparam("user_id")
_GET = select(notes).where(_OWN, notes.c.note_id == bindparam("note_id"))
_COUNT = select(func.count()).select_from(notes).where(_OWN)
_FIND = select(notes).where(_OWN).order_by(notes.c.note_id.desc()).limit(bindparam("limit"))
_SOME = select(notes.c.note_id).where(_OWN).limit(_BATCH)


class SqlNoteRepository:
    """Implements `NoteRepository` for one user."""

    def __init__(self, context: RequestContext, reader: Reader, writes: UserWriter) -> None:
        self._context = context
        self._reader = reader
        self._writes = writes

    async def add(self, text: str, idempotency: Idempotency | None = None) -> Note:
        """Store a note; see `NoteRepository.add`."""
        note_id, now = new_id("note"), now_micros()

        def tx(connection: Connection) -> str | None:
            existing = request_ids.find(connection, self._context, idempotency)
            if existing is None and connection.execute(_COUNT, self._own).scalar_one() >= MAX_NOTES:
                return None
            if existing is None:
                row = {"note_id": note_id, **self._own, "text": text, "create_time": now}
                connection.execute(insert(notes).values(row))
                search.add_note(connection, self._context.user_id, note_id, text)
                request_ids.remember(connection, self._context, idempotency, note_id, now)
            return existing or note_id

        stored_id = await self._writes.run(tx)
        if stored_id is None:
            raise NotesFullError
        rows = await self._reader.fetch(_GET, {**self._own, "note_id": stored_id})
        if not rows:
            raise NotFoundError("note")
        return _note_of(rows[0])

    async def find(self, query: str = "", limit: int = 20) -> tuple[Note, ...]:
        """Return the notes that have all words; see `NoteRepository.find`."""
        statement = _FIND.where(*search.matching(self._context.user_id, query, notes.c.note_id))
        rows = await self._reader.fetch(statement, {**self._own, "limit": limit})
        return tuple(map(_note_of, rows))

    async def delete(self, note_id: str) -> None:
        """Delete one; see `NoteRepository.delete`."""

        def tx(connection: Connection) -> None:
            if connection.execute(_GET, {**self._own, "note_id": note_id}).first() is None:
                raise NotFoundError("note")
            self._remove(connection, [note_id])

        await self._writes.run(tx)

    async def delete_all(self) -> None:
        """Delete all of the user's; see `NoteRepository.delete_all`."""

        def tx(connection: Connection) -> bool:
            some = connection.execute(_SOME, self._own).scalars().all()
            self._remove(connection, some)
            return bool(some)

        while await self._writes.run(tx):
            pass

    def _remove(self, connection: Connection, note_ids: Iterable[str]) -> None:
        own = notes.c.user_id == self._context.user_id
        for note_id in note_ids:
            search.remove(connection, note_id)
            connection.execute(delete(notes).where(own, notes.c.note_id == note_id))

    @property
    def _own(self) -> dict[str, object]:
        return {"user_id": self._context.user_id}


def _note_of(row: Row) -> Note:
    return Note(string(row, "note_id"), string(row, "text"), from_micros(number(row, "create_time")))
