"""The space of a SQLite file: nothing of what was deleted is in it, and it does not grow without end."""

import asyncio
import random
import sqlite3
from contextlib import AbstractAsyncContextManager, closing
from datetime import timedelta
from pathlib import Path

import pytest
from contract.storage.conftest import context_for
from contract.storage.test_repositories import answer, spec
from contract.storage.test_run_log import watched
from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import MessageCompleted, RunStarted, TextDelta
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.retention import RetentionSettings, Sweeper
from parley_server.storage.sql import run_log
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store

CANARY = "CANARY7f3a"


def opened(database: SqliteDatabase, ttl: timedelta | None = None) -> AbstractAsyncContextManager[SqlStore]:
    return open_store(database, ProtoEventCodec(), b"page token key", conversation_ttl=ttl)


async def sweep(store: SqlStore) -> None:
    await Sweeper(store.retention, RetentionSettings(fold_after_s=0.0)).sweep()


async def perform(store: SqlStore, context: RequestContext, text: str, deltas: int = 30) -> str:
    """Do a run that says a text again and again, and has it in every other field a user can fill, too."""
    run = (await store.for_user(context).runs.accept(spec(f"asks {text}", labels={text: text}), None)).run
    appender = store.worker.appender(run.run_id)
    await appender.begin(RunStarted("m"))
    for n in range(deltas):
        await appender.append(TextDelta(f"{text} {n} "), "item_a")
        await appender.flush()
    await appender.append(MessageCompleted(text * deltas), "item_a")
    await appender.finish(answer(f"{run.run_id} {text}"))
    return run.conversation_id


def occurrences(path: Path) -> dict[str, int]:
    """Count the canary in every file of a database, as it was said and as the search has it."""
    files = path.parent.glob(f"{path.name}*")
    return {file.name: file.read_bytes().lower().count(CANARY.lower().encode()) for file in files}


@pytest.mark.parametrize("by", ["delete", "expiry"])
async def test_no_byte_of_a_deleted_conversation_is_in_the_file(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "SWEEP_GAP_S", 0.05)
    path, ann = tmp_path / "parley.db", context_for("ann")
    ttl = timedelta(seconds=2) if by == "expiry" else None
    async with SqliteDatabase(path) as database, opened(database, ttl) as store:
        kept = await perform(store, ann, "kept")
        doomed = [await perform(store, ann, CANARY) for _ in range(20)]
        assert sum(occurrences(path).values()) > 100
        await sweep(store)
        if by == "delete":
            for conversation_id in doomed:
                await store.for_user(ann).conversations.delete(conversation_id)
        else:
            await asyncio.sleep(2.1)
    # The merge of the search's index is due once a day and after every start.
    async with SqliteDatabase(path) as database, opened(database, ttl) as store:
        await store.worker.take_over()
        await sweep(store)
        if by == "delete":
            assert (await store.for_user(ann).conversations.get(kept)).title == "asks kept"
    assert sum(occurrences(path).values()) == 0


async def test_the_deltas_that_are_folded_away_are_not_in_the_file(tmp_path: Path) -> None:
    path, ann = tmp_path / "parley.db", context_for("ann")
    async with SqliteDatabase(path) as database, opened(database) as store:
        run = (await store.for_user(ann).runs.accept(spec("hello"), None)).run
        appender = store.worker.appender(run.run_id)
        for n in range(50):
            await appender.append(TextDelta(f"{CANARY}{n} "), "item_a")
            await appender.flush()
        await appender.finish(answer("x"))
        await watched(store, ann, run.run_id)
    async with SqliteDatabase(path) as database, opened(database) as store:
        await store.worker.take_over()
        await sweep(store)
    assert sum(occurrences(path).values()) == 0


async def test_a_file_that_is_mostly_free_is_cut_back(tmp_path: Path) -> None:
    path, ann = tmp_path / "parley.db", context_for("ann")
    async with SqliteDatabase(path) as database, opened(database) as store:
        runs = [(await store.for_user(ann).runs.accept(spec("hello " * 40_000), None)).run for _ in range(40)]
        kept = [(await store.for_user(ann).conversations.create("kept " * 30, {})).conversation_id for _ in range(50)]
        for run in runs:
            await store.worker.appender(run.run_id).finish(answer("x"))
            await store.for_user(ann).conversations.delete(run.conversation_id)
        await sweep(store)
        for conversation_id in kept:
            await store.for_user(ann).conversations.get(conversation_id)
    with closing(sqlite3.connect(path)) as connection:
        ((free,),) = connection.execute("PRAGMA freelist_count")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert free < 1024 + 256 + 64


@pytest.mark.parametrize("rounds", [12, pytest.param(100, marks=pytest.mark.soak)])
async def test_under_steady_load_with_short_retention_the_file_stops_growing(
    rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same many conversations again and again: the file of the second half is that of the first half."""
    monkeypatch.setattr(run_log, "SWEEP_GAP_S", 0.02)
    path, chance = tmp_path / "parley.db", random.Random(7)
    sizes: list[int] = []
    async with SqliteDatabase(path) as database, opened(database, timedelta(milliseconds=200)) as store:
        for _ in range(rounds):
            texts = [f"{chance.getrandbits(64):x} " * chance.randint(1, 200) for _ in range(25)]
            await asyncio.gather(*(perform(store, context_for("ann"), text, deltas=10) for text in texts))
            await asyncio.sleep(0.25)
            await sweep(store)
            sizes.append(path.stat().st_size)
    half = rounds // 2
    assert max(sizes[half:]) <= max(sizes[:half]) * 1.5, sizes
