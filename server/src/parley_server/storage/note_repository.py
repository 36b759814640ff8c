"""The door to what agents keep of a user."""

from typing import Protocol

from parley_server.domain.idempotency import Idempotency
from parley_server.domain.note import Note


class NoteRepository(Protocol):
    """What agents have kept of the user. It stays until it is deleted, whatever becomes of the conversations."""

    async def add(self, text: str, idempotency: Idempotency | None = None) -> Note:
        """Store a note; the same idempotency record answers with the first one.

        Raises:
            NotesFullError: the user has MAX_NOTES of them.
            NotFoundError: the first one is deleted meanwhile.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def find(self, query: str = "", limit: int = 20) -> tuple[Note, ...]:
        """Return at most `limit` notes in which every word of `query` occurs, newest first.

        Words are as in `ConversationRepository.list`; without one, all notes match.
        """
        ...

    async def delete(self, note_id: str) -> None:
        """Delete one. Raises NotFoundError."""
        ...

    async def delete_all(self) -> None:
        """Delete all of the user's, step by step; after an error what is left can be deleted by calling again."""
        ...
