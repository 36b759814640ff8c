"""A crash after any commit of a run: it goes on from there, and the world is as the effects promise."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from contract.recovery.marking_tools import Mark, World, check_effects
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.storage.test_repositories import spec
from contract.storage.test_run_log import decoded
from parley.v1 import run_event_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.run import Limits
from parley_server.llm.model_service import FinishChunk, FinishReason, ReasoningChunk, TextChunk
from parley_server.quotas.quotas import Quotas
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql import frames
from parley_server.storage.sql.integrity import check
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from sqlalchemy import Connection
from unit.agents.scripted_model import Step, ask_for, say

T = TypeVar("T")

ANSWER = say("All ", "is ", "done.")
THINKING: Step = [ReasoningChunk("Hm, "), ReasoningChunk("well."), *ANSWER]
MIXED = [("read", 1), ("put", 2), ("book", 3)]
SHAPES: dict[str, list[Step]] = {
    "an answer": [ANSWER],
    "an answer with reasoning": [THINKING],
    "a cut answer": [[TextChunk("Half"), FinishChunk(FinishReason.LENGTH)]],
    "a turn of every effect": [calls(*MIXED, text="Let me see."), ANSWER],
    "steps without text": [calls(("book", 1)), calls(("book", 2), ("read", 3)), calls(("put", 4)), ANSWER],
    "more calls than slots": [calls(*(("put", n) for n in range(8)), *(("book", n) for n in range(4))), ANSWER],
    "large results": [calls(("read", 100), ("book", 101)), ANSWER],
    "refused calls": [ask_for(("book", '{"n":1}'), ("book", '{"n":1}'), ("nowhere", '{"n":2}'), ("read", "{")), ANSWER],
}


@dataclass(frozen=True)
class Crash:
    """The database as a crash would leave it, and the marks there were then and once the next commit was done."""

    path: Path
    before: list[Mark]
    after: list[Mark]


class SnapshottingDatabase:
    """A database that is copied after every commit, before anybody hears of it."""

    def __init__(self, path: Path, world: World) -> None:
        self._path = path
        self._world = world
        self._database = SqliteDatabase(path)
        self._copies: list[tuple[Path, list[Mark]]] = []
        self.fetch = self._database.fetch
        self.scrub = self._database.scrub

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        result = await self._database.transaction(tx)
        copy = self._path.with_name(f"crash-{len(self._copies)}.db")
        with closing(sqlite3.connect(self._path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        self._copies.append((copy, list(self._world.marks)))
        return result

    def crashes(self) -> list[Crash]:
        after = [*(marks for _, marks in self._copies[1:]), list(self._world.marks)]
        return [Crash(path, before, marks) for (path, before), marks in zip(self._copies, after, strict=True)]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SqlStore]:
        async with self._database, open_store(self, ProtoEventCodec(), b"key") as store:
            yield store


async def crashes_of(
    folder: Path, ann: RequestContext, steps: Sequence[Step], limits: Limits, quotas: Quotas | None = None
) -> tuple[str, list[Crash], list[run_event_pb2.RunEvent]]:
    """Run once, undisturbed; return the run, a crash for each of its commits, and its history."""
    world = World()
    database = SnapshottingDatabase(folder / "whole.db", world)
    async with (
        database.opened() as store,
        an_engine(store, RememberingModel(steps), world.tools(), quotas=quotas) as engine,
    ):
        run = await engine.start(ann, spec(limits=limits), None)
        events = await history_of(store, ann, run.run_id)
    return run.run_id, database.crashes(), events


async def recover(
    crash: Crash, ann: RequestContext, run_id: str, steps: Sequence[Step], quotas: Quotas | None = None
) -> list[run_event_pb2.RunEvent]:
    """Start again on what a crash left, and check the run, its effects and that nothing seen was taken back."""
    world, seen = World(), durable_events(crash.path, run_id)
    assert stored_results(crash.path) == named_results(seen)
    async with SqliteDatabase(crash.path) as database, open_store(database, ProtoEventCodec(), b"key") as store:
        async with an_engine(store, RememberingModel(steps), world.tools(), quotas=quotas) as engine:
            await engine.recover()
            events = await history_of(store, ann, run_id)
        run = await store.for_user(ann).runs.get(run_id)
    assert events[: len(seen)] == seen
    assert run.attempt == events[-1].attempt
    for marks in (crash.before, crash.after):
        check_effects([*marks, *world.marks], statuses_of(events))
    assert stored_results(crash.path) == named_results(events)
    assert check(crash.path).problems == ()
    return events


def named_results(events: Sequence[run_event_pb2.RunEvent]) -> set[str]:
    """Return the ids of the large results that events tell of."""
    finished = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert all(bool(call.result_id) == call.truncated for call in finished)
    return {call.result_id for call in finished if call.truncated}


def stored_results(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {result_id for (result_id,) in connection.execute("SELECT result_id FROM tool_result_contents")}


def durable_events(path: Path, run_id: str) -> list[run_event_pb2.RunEvent]:
    """Read what a crash left of an unfinished run's log."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT first_seq, frames FROM run_journal WHERE run_id = ? ORDER BY journal_id", (run_id,)
        )
        return decoded([event for first_seq, blob in rows for event in frames.unpack(first_seq, blob)])


@pytest.mark.parametrize("steps", SHAPES.values(), ids=SHAPES.keys())
async def test_after_a_crash_at_any_commit_a_run_goes_on_to_its_answer(
    steps: list[Step], tmp_path: Path, ann: RequestContext
) -> None:
    run_id, crashes, whole = await crashes_of(tmp_path, ann, steps, Limits())
    assert len(crashes) >= 2 + len(steps)
    for crash in crashes:
        events = await recover(crash, ann, run_id, steps)
        assert outcome(events) == outcome(whole)


def outcome(events: Sequence[run_event_pb2.RunEvent]) -> tuple[int, int, list[str]]:
    """How a run ended, and what it said on the way."""
    end = events[-1].run_finished
    said = [event.message_completed.text for event in events if event.HasField("message_completed")]
    return end.state, end.stop_reason, said


@pytest.mark.parametrize(
    "limits",
    [Limits(max_steps=2), Limits(max_tool_calls=3), Limits(max_output_tokens=2)],
    ids=["steps", "calls", "tokens"],
)
async def test_limits_count_over_all_attempts(limits: Limits, tmp_path: Path, ann: RequestContext) -> None:
    steps = [calls(("read", 1), ("put", 2)), calls(("book", 3), ("book", 4)), calls(("read", 5)), ANSWER]
    run_id, crashes, whole = await crashes_of(tmp_path, ann, steps, limits)
    assert whole[-1].run_finished.HasField("error")
    for crash in crashes:
        events = await recover(crash, ann, run_id, steps)
        assert outcome(events) == outcome(whole)
        assert events[-1].run_finished.error == whole[-1].run_finished.error
        assert events[-1].run_finished.usage == whole[-1].run_finished.usage
