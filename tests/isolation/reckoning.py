"""What is left at the end of an example: everybody has all of his and nothing else, and what is deleted is nowhere."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from catalogue.door import Caller
from isolation.canary import has_token, ids_in
from isolation.cast import Cast, Speaker
from isolation.echo_model import MOST_NOTES
from isolation.stage import Stage
from isolation.world import World
from parley.v1 import admin_service_pb2 as admin
from parley.v1 import content_pb2, run_pb2
from parley.v1 import conversation_service_pb2 as conversations

_PAGE_SIZE = 200
# What a deletion leaves on purpose: that a request was made, and that somebody did something.
_REMEMBERING = ("request_ids", "audit")


async def reckon(stage: Stage, cast: Cast) -> None:
    """Look at what each user of a cast has, at the audit log, and at what the database has of what is deleted."""
    speakers = {speaker.owner: speaker for speaker in cast.speakers.values()}
    for speaker in speakers.values():
        await _reckon_with(stage, speaker)
    entries = admin.ListAuditEventsRequest(page_size=_PAGE_SIZE)
    stage.audit.judge(stage.world, await Caller(stage.channel).ask(entries, admin.ListAuditEventsResponse))
    database = stage.server.data_dir / "parley.db"
    if database.exists():
        await asyncio.to_thread(_search_remains, stage.world, database)


async def _reckon_with(stage: Stage, speaker: Speaker) -> None:
    caller = Caller(stage.channel, speaker.claiming(speaker.owner))
    listed: set[str] = set()
    request = conversations.ListConversationsRequest(page_size=_PAGE_SIZE)
    while True:
        page = await caller.ask(request, conversations.ListConversationsResponse)
        stage.world.scan(speaker.owner, "all conversations", page.SerializeToString())
        listed |= {conversation.conversation_id for conversation in page.conversations}
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    _compare(stage.world, speaker.owner, listed)
    await _reckon_notes(stage.world, caller, speaker)


async def _reckon_notes(world: World, caller: Caller, speaker: Speaker) -> None:
    """Ask for all notes, as only a tool can: what nobody of his has named to be forgotten is there.

    The administrator is the same in all examples, and has more of them by and by than are told at once.
    """
    spec = run_pb2.RunSpec(input=[content_pb2.ContentPart(text="find")])
    told = b"".join(event.SerializeToString() for event in await caller.run_to_the_end(spec))
    world.scan(speaker.owner, "all notes", told)
    found = {thing_id for kind, thing_id in ids_in(told) if kind == "note"}
    oldest = min(found) if len(found) == MOST_NOTES else ""
    for note in world.of(speaker.owner, "note_id"):
        is_due = note.thing_id > oldest and (speaker.owner, note.thing_id) not in world.uttered
        if is_due and note.thing_id not in found:
            world.leak("all notes", f"{speaker.owner} misses {note.thing_id}, which nobody of his has forgotten")


def _compare(world: World, owner: str, listed: set[str]) -> None:
    expected = {thing.thing_id for thing in world.of(owner, "conversation_id") if not world.may_be_gone(thing)}
    for conversation_id in expected - listed:
        world.leak("all conversations", f"{owner} misses {conversation_id}, which nobody of his has deleted")
    for conversation_id in listed & world.deleted:
        world.leak("all conversations", f"{owner} still has {conversation_id}, which was deleted")


def _search_remains(world: World, database: Path) -> None:
    """Look for words and ids of deleted conversations in every byte of the database, compacted."""
    gone = world.deleted - world.reckoned
    world.reckoned |= gone
    words = {word for conversation_id in gone - world.spread for word in world.words[conversation_id]}
    elsewhere = {word for conversation_id, some in world.words.items() if conversation_id not in gone for word in some}
    if not gone:
        return
    with tempfile.TemporaryDirectory() as folder:
        compacted = Path(folder) / "compacted.db"
        _compact(database, compacted)
        raw = compacted.read_bytes()
        world.scanned_bytes["database"] += len(raw)
        if has_token(raw):
            world.leak("database", "has a token")
        for word in words - elsewhere:
            if word.encode() in raw:
                world.leak("database", f"still has {word} of a deleted conversation")
        _search_rows(world, compacted, gone)


def _compact(database: Path, compacted: Path) -> None:
    """Copy a database that is in use, and do to the copy what the server does once a day."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (str(compacted),))
    with closing(sqlite3.connect(compacted, isolation_level=None)) as connection:
        # FTS5 only notes that a text is gone; its words go when the index's parts are merged.
        connection.execute("INSERT INTO search_texts (search_texts) VALUES ('optimize')")
        connection.execute("VACUUM")


def _search_rows(world: World, compacted: Path, gone: set[str]) -> None:
    runs = {
        thing.thing_id
        for thing in world.things.values()
        if thing.kind == "run_id" and thing.related.get("conversation_id") in gone
    }
    with closing(sqlite3.connect(compacted)) as connection:
        for table, column in _columns(connection):
            found = connection.execute(f"SELECT DISTINCT {column} FROM {table}")  # noqa: S608  # names of ours
            for (value,) in found:
                if value in gone or value in runs:
                    world.leak("database", f"{table}.{column} still names {value}, which is deleted")


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the columns that name conversations and runs, of all tables that do not remember on purpose."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        if not str(table).startswith(_REMEMBERING):
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})"):
                if str(column) in {"conversation_id", "run_id"}:
                    yield str(table), str(column)
