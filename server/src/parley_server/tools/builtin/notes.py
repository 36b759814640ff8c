"""The tools `remember`, `recall` and `forget_note`: what the assistant keeps of a user between conversations.

An example of tools over stored data: the store is opened for the user of the context, in every call anew.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from parley_server.domain.errors import NotFoundError, StorageUnavailableError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.note import MAX_NOTE_BYTES, MAX_NOTES, Note, NotesFullError
from parley_server.domain.tool import ToolEffect
from parley_server.storage.note_repository import NoteRepository
from parley_server.storage.repositories import Store
from parley_server.tools.errors import ToolError
from parley_server.tools.tool import Tool, ToolContext, tool

# So that a result stays below what is cut off in the middle.
_MAX_RESULT_BYTES = 24_000


def _storable(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("must have a text without NUL characters")
    if len(text.encode()) > MAX_NOTE_BYTES:
        raise ValueError(f"must be at most {MAX_NOTE_BYTES} bytes")
    return text


class RememberArguments(BaseModel):
    """What to keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Annotated[
        str,
        AfterValidator(_storable),
        Field(max_length=MAX_NOTE_BYTES, description="One fact, in words that can be found and understood later"),
    ]


class RecallArguments(BaseModel):
    """What to look for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: Annotated[
        str,
        Field(max_length=200, description="Words that all occur in the note; the fewer the better. Empty: any note"),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=50, description="How many notes at most")] = 10


class ForgetArguments(BaseModel):
    """Which note."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note_id: Annotated[str, Field(max_length=64, pattern="^note_[0-9A-Z]+$", description="As recall tells it")]


class ToldNote(BaseModel):
    """A note as the model sees it."""

    note_id: str
    text: str
    create_time: AwareDatetime


class RecalledNotes(BaseModel):
    """Notes, newest first; `more` tells whether further ones match."""

    notes: list[ToldNote]
    more: bool


class ForgottenNote(BaseModel):
    """The note that is gone."""

    note_id: str


def note_tools(store: Store) -> tuple[Tool, ...]:
    """Make the tools over the notes of a store."""

    def notes_of(context: ToolContext) -> NoteRepository:
        return store.for_user(context.request).notes

    @tool(effect=ToolEffect.IDEMPOTENT)
    async def remember(context: ToolContext, arguments: RememberArguments) -> ToldNote:
        """Keep a note about the user for later conversations.

        For what the user asks you to remember, and for lasting facts and wishes of the user. No passwords.
        """
        with _told_to_the_model():
            return _told(await notes_of(context).add(arguments.text, _once(context, arguments)))

    @tool(effect=ToolEffect.READ)
    async def recall(context: ToolContext, arguments: RecallArguments) -> RecalledNotes:
        """Look up notes about the user from earlier conversations, newest first.

        Every word of the query has to occur in a note, the last one at least as a word's beginning.
        """
        with _told_to_the_model():
            return _fitting(await notes_of(context).find(arguments.query, arguments.limit + 1), arguments.limit)

    @tool(effect=ToolEffect.IDEMPOTENT)
    async def forget_note(context: ToolContext, arguments: ForgetArguments) -> ForgottenNote:
        """Delete one note about the user for good, when the user wishes it or it is no longer true."""
        with _told_to_the_model():
            await notes_of(context).delete(arguments.note_id)
        return ForgottenNote(note_id=arguments.note_id)

    return remember, recall, forget_note


def _once(context: ToolContext, arguments: RememberArguments) -> Idempotency:
    return Idempotency(context.idempotency_key, "notes", hashlib.sha256(arguments.text.encode()).digest())


def _told(note: Note) -> ToldNote:
    return ToldNote(note_id=note.note_id, text=note.text, create_time=note.create_time)


def _fitting(found: tuple[Note, ...], limit: int) -> RecalledNotes:
    """Return as many notes as are wanted and fit; always the first."""
    taken: list[ToldNote] = []
    size_bytes = 0
    for note in found[:limit]:
        told = _told(note)
        size_bytes += len(told.model_dump_json().encode())
        if taken and size_bytes > _MAX_RESULT_BYTES:
            break
        taken.append(told)
    return RecalledNotes(notes=taken, more=len(taken) < len(found))


@contextmanager
def _told_to_the_model() -> Iterator[None]:
    """Turn what a store may raise into what the model can act on."""
    try:
        yield
    except NotFoundError as error:
        raise ToolError("no_such_note", "There is no such note.", hint="See what recall finds.") from error
    except NotesFullError as error:
        hint = "Use forget_note on notes that are no longer true."
        raise ToolError("too_many_notes", f"The user has {MAX_NOTES} notes already.", hint=hint) from error
    except StorageUnavailableError as error:
        raise ToolError("unavailable", "Notes cannot be read or written just now.", retryable=True) from error
