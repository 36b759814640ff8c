"""Notes on every engine: a user's own, found by their words, stored once, gone when deleted."""

import asyncio

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, RequestIdReusedError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.note import MAX_NOTES, NotesFullError
from parley_server.storage.note_repository import NoteRepository
from parley_server.storage.page import PageRequest
from parley_server.storage.sql.acting import acting_for
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tables import notes as notes_table
from parley_server.storage.sql.writer import Writer
from sqlalchemy import insert


async def texts(notes: NoteRepository, query: str = "", limit: int = 20) -> list[str]:
    return [note.text for note in await notes.find(query, limit)]


def once(key: str, fingerprint: bytes = b"f") -> Idempotency:
    return Idempotency(key, "notes", fingerprint)


async def test_notes_are_found_newest_first_by_all_their_words(store: SqlStore, ann: RequestContext) -> None:
    notes = store.for_user(ann).notes
    for text in ("Likes Café Central", "Is allergic to nuts", "Meets Tom in the café on Fridays"):
        await notes.add(text)
    assert await texts(notes) == ["Meets Tom in the café on Fridays", "Is allergic to nuts", "Likes Café Central"]
    assert await texts(notes, limit=1) == ["Meets Tom in the café on Fridays"]
    assert await texts(notes, "CAFE") == ["Meets Tom in the café on Fridays", "Likes Café Central"]
    assert await texts(notes, "central cafe") == ["Likes Café Central"]
    assert await texts(notes, "aller") == ["Is allergic to nuts"]
    assert await texts(notes, "nuts friday") == []
    assert await texts(notes, "' OR 1=1 --") == []


async def test_notes_are_the_users_own(store: SqlStore, ann: RequestContext, bob: RequestContext) -> None:
    hers = await store.for_user(ann).notes.add("The code is 4711")
    his = store.for_user(bob).notes
    assert await texts(his) == await texts(his, "code") == []
    with pytest.raises(NotFoundError):
        await his.delete(hers.note_id)
    await his.delete_all()
    assert await texts(store.for_user(ann).notes, "4711") == ["The code is 4711"]


async def test_notes_and_conversations_are_not_found_in_each_others_place(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    await user.notes.add("harbour")
    made = await user.conversations.create("harbour crane", {})
    found = await user.conversations.list(PageRequest(5), "harbour")
    assert [each.conversation_id for each in found.items] == [made.conversation_id]
    assert await texts(user.notes, "harbour") == ["harbour"]
    assert await texts(user.notes, "crane") == []


async def test_an_equal_request_stores_nothing_more_also_after_a_restart(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        notes = store.for_user(ann).notes
        first = await notes.add("Likes tea", once("key"))
        both = await asyncio.gather(*(notes.add("Likes tea", once("key")) for _ in range(2)))
    async with open_same_store() as store:
        notes = store.for_user(ann).notes
        again = await notes.add("Likes tea", once("key"))
        assert [first, first, first] == [*both, again]
        assert await notes.find() == (first,)
        with pytest.raises(RequestIdReusedError):
            await notes.add("Likes coffee", once("key", b"g"))
        await notes.delete(first.note_id)
        with pytest.raises(NotFoundError):
            await notes.add("Likes tea", once("key"))
        assert await notes.find() == ()


async def test_nothing_is_left_of_a_deleted_note(store: SqlStore, engine: Engine, ann: RequestContext) -> None:
    notes = store.for_user(ann).notes
    note = await notes.add("Likes tea")
    await notes.delete(note.note_id)
    with pytest.raises(NotFoundError):
        await notes.delete(note.note_id)
    assert await texts(notes, "tea") == []
    assert await engine.rows("SELECT * FROM notes") == await engine.rows("SELECT * FROM search_texts") == []


async def test_all_of_a_user_can_be_deleted(
    store: SqlStore, engine: Engine, ann: RequestContext, bob: RequestContext
) -> None:
    hers, his = store.for_user(ann).notes, store.for_user(bob).notes
    await asyncio.gather(*(hers.add(f"note {n}") for n in range(250)))
    await his.add("his own")
    await hers.delete_all()
    assert [row[0] for row in await engine.rows("SELECT user_id FROM notes")] == ["bob"]
    assert [row[0] for row in await engine.rows("SELECT user_id FROM search_texts")] == ["bob"]


async def test_a_user_has_only_so_many(
    store: SqlStore, engine: Engine, ann: RequestContext, bob: RequestContext
) -> None:
    rows = [{"note_id": f"note_{n}", "user_id": "ann", "text": "", "create_time": 0} for n in range(MAX_NOTES - 1)]
    async with engine.open() as database, Writer(database) as writer:
        await writer.run(lambda connection: connection.execute(insert(notes_table), rows), acting=acting_for("ann"))
    notes = store.for_user(ann).notes
    last = await notes.add("the last", once("key"))
    with pytest.raises(NotesFullError):
        await notes.add("one too many")
    assert await notes.add("the last", once("key")) == last
    await store.for_user(bob).notes.add("not his trouble")
    await notes.delete("note_0")
    await notes.add("room again")
