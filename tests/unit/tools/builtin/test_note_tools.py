"""Notes as the model keeps them: on a real database, for the user of the context alone."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from parley_server.domain.note import MAX_NOTE_BYTES, MAX_NOTES
from parley_server.domain.tool import ToolEffect
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from parley_server.storage.sql.tables import notes
from parley_server.tools.builtin.notes import RecalledNotes, ToldNote, note_tools
from parley_server.tools.errors import InvalidArgumentsError, ToolError
from parley_server.tools.tool import JsonObject, ToolContext
from sqlalchemy import insert
from unit.tools.user_context import context_of


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with (
        SqliteDatabase(tmp_path / "parley.db") as database,
        open_store(database, ProtoEventCodec(), b"page token key") as opened,
    ):
        yield opened


async def ask(store: SqlStore, name: str, arguments: JsonObject, *, user: str = "ann", key: str = "key") -> object:
    called = next(each for each in note_tools(store) if each.spec.name == name)
    context = ToolContext(context_of(user), run_id="run_1", call_id="call_1", idempotency_key=key, deadline=0.0)
    return await called.call(context, arguments)


async def remember(store: SqlStore, text: str, *, user: str = "ann", key: str = "key") -> ToldNote:
    return ToldNote.model_validate(await ask(store, "remember", {"text": text}, user=user, key=key))


async def recall(store: SqlStore, arguments: JsonObject, *, user: str = "ann") -> RecalledNotes:
    return RecalledNotes.model_validate(await ask(store, "recall", arguments, user=user))


async def test_what_is_remembered_is_recalled_until_it_is_forgotten(store: SqlStore) -> None:
    note = await remember(store, "Drinks tea, never coffee")
    assert await recall(store, {"query": "tea"}) == RecalledNotes(notes=[note], more=False)
    assert await recall(store, {}) == RecalledNotes(notes=[note], more=False)
    assert await recall(store, {"query": "beer"}) == RecalledNotes(notes=[], more=False)
    assert await ask(store, "forget_note", {"note_id": note.note_id}) == {"note_id": note.note_id}
    assert (await recall(store, {})).notes == []
    with pytest.raises(ToolError) as caught:
        await ask(store, "forget_note", {"note_id": note.note_id})
    assert caught.value.code == "no_such_note"


async def test_a_repeated_call_keeps_one_note_and_another_call_another(store: SqlStore) -> None:
    first = await remember(store, "Drinks tea", key="1")
    assert await remember(store, "Drinks tea", key="1") == first
    assert (await recall(store, {})).notes == [first]
    await remember(store, "Drinks tea", key="2")
    assert len((await recall(store, {})).notes) == 2


async def test_everybody_has_notes_of_their_own(store: SqlStore) -> None:
    note = await remember(store, "The code is 4711")
    assert (await recall(store, {"query": "code"}, user="bob")).notes == []
    with pytest.raises(ToolError) as caught:
        await ask(store, "forget_note", {"note_id": note.note_id}, user="bob")
    assert caught.value.code == "no_such_note"
    assert (await recall(store, {})).notes == [note]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("remember", {"text": "x", "user_id": "bob"}),
        ("recall", {"query": "x", "user_id": "bob"}),
        ("forget_note", {"note_id": "note_1", "user_id": "bob"}),
        ("remember", {"text": " \n"}),
        ("remember", {"text": "a\0b"}),
        ("remember", {"text": "\ud800"}),
        ("remember", {"text": "\N{EURO SIGN}" * (MAX_NOTE_BYTES // 3 + 1)}),
        ("recall", {"limit": 0}),
        ("recall", {"query": "x" * 201}),
        ("forget_note", {"note_id": "conv_1"}),
    ],
)
async def test_arguments_that_do_not_fit_change_nothing(store: SqlStore, name: str, arguments: JsonObject) -> None:
    with pytest.raises(InvalidArgumentsError):
        await ask(store, name, arguments)
    assert (await recall(store, {})).notes == (await recall(store, {}, user="bob")).notes == []


async def test_as_many_are_recalled_as_fit_and_the_rest_is_told_of(store: SqlStore) -> None:
    texts = [f"{n} ".ljust(MAX_NOTE_BYTES, "x") for n in range(8)]
    for text in texts:
        await remember(store, text, key=text[0])
    found = await recall(store, {})
    assert [note.text for note in found.notes] == texts[:-6:-1]
    assert found.more
    assert (await recall(store, {"limit": 3})).more
    assert not (await recall(store, {"query": "0"})).more


async def test_a_full_store_of_notes_is_told_to_the_model(store: SqlStore, tmp_path: Path) -> None:
    rows = [{"note_id": f"note_{n}", "user_id": "ann", "text": "x", "create_time": 0} for n in range(MAX_NOTES)]
    async with SqliteDatabase(tmp_path / "parley.db") as database:
        await database.transaction(lambda connection: connection.execute(insert(notes), rows))
    with pytest.raises(ToolError) as caught:
        await remember(store, "one too many")
    assert (caught.value.code, caught.value.retryable) == ("too_many_notes", False)
    await remember(store, "his first", user="bob")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("remember", {"text": "x"}), ("recall", {}), ("recall", {"query": "x"}), ("forget_note", {"note_id": "note_1"})],
)
async def test_a_database_in_trouble_is_told_to_the_model(
    store: SqlStore, tmp_path: Path, name: str, arguments: JsonObject
) -> None:
    with closing(sqlite3.connect(tmp_path / "parley.db", isolation_level=None)) as database:
        database.execute("DROP TABLE notes")
    with pytest.raises(ToolError) as caught:
        await ask(store, name, arguments)
    assert (caught.value.code, caught.value.retryable) == ("unavailable", True)


def test_what_they_do_to_the_world(store: SqlStore) -> None:
    assert {each.spec.name: each.spec.effect for each in note_tools(store)} == {
        "remember": ToolEffect.IDEMPOTENT,
        "recall": ToolEffect.READ,
        "forget_note": ToolEffect.IDEMPOTENT,
    }
