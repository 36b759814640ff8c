"""Words that are added to a run under way, on every engine: each is put before the model once, or named as not."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of
from contract.recovery.talking_model import TalkingModel
from contract.recovery.test_every_commit import SnapshottingDatabase, durable_events, recover
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_event_pb2, run_pb2
from parley_server.domain.content import ContentPart, ImagePart, TextPart, text_of
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    RequestIdReusedError,
    RunNotSteerableError,
    StorageUnavailableError,
)
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.message import AssistantItem, ToolCallItem, UserItem
from parley_server.domain.tool import ToolEffect
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.runs.engine import RunEngine
from parley_server.storage.page import PageRequest
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from parley_server.tools.tool import JsonObject, ToolContext
from sqlalchemy import Connection
from unit.agents.scripted_model import say
from unit.tools.made_tools import made_tool

T = TypeVar("T")

Events = Sequence[run_event_pb2.RunEvent]


def words(text: str) -> tuple[ContentPart, ...]:
    return (TextPart(text),)


def applied(events: Events) -> list[str]:
    return [event.steer_applied.steer_id for event in events if event.HasField("steer_applied")]


async def told(store: SqlStore, ann: RequestContext, conversation_id: str) -> list[str]:
    """Write a conversation's texts as a user reads them; what was cut ends in dots."""
    page = await store.for_user(ann).conversations.messages(conversation_id, PageRequest(50))
    lines = []
    for message in page.items:
        if isinstance(message.item, UserItem):
            lines.append(f"user: {text_of(message.item.parts)}")
        elif isinstance(message.item, AssistantItem):
            lines.append(f"assistant: {message.item.text}{'...' if message.incomplete else ''}")
        elif isinstance(message.item, ToolCallItem):
            lines.append(f"call: {message.item.name}")
    return lines


async def talking_run(engine: RunEngine, ann: RequestContext, model: TalkingModel) -> tuple[str, str]:
    """Start a run and wait until its model has begun to answer; return it and its conversation."""
    run = await engine.start(ann, spec("a"), None)
    await model.questions(1)
    return run.run_id, run.conversation_id


async def test_words_for_an_answer_under_way_are_answered_next(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        run_id, conversation_id = await talking_run(engine, ann, model)
        steered = [await engine.steer(ann, run_id, words(text), None) for text in ("b", "c")]
        model.may_end.set()
        events = await history_of(store, ann, run_id)
        lines = await told(store, ann, conversation_id)
    assert model.asked == [["user: a"], ["user: a", "assistant: On a", "user: b", "user: c"]]
    assert lines == ["user: a", "assistant: On a", "user: b", "user: c", "assistant: On c"]
    assert applied(events) == [steer_id for steer_id, _ in steered]
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED)
    assert not end.unapplied_steer_ids
    texts = [event.message_completed.text for event in events if event.HasField("message_completed")]
    assert texts == ["On a", "On c"]


async def test_words_said_while_a_tool_works_come_behind_its_result(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def read(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        begun.set()
        await may_end.wait()
        return 1

    model = RememberingModel([calls(("read", 1)), say("Done.")])
    async with open_same_store() as store, an_engine(store, model, [made_tool("read", read)]) as engine:
        run = await engine.start(ann, spec("a"), None)
        await begun.wait()
        await engine.steer(ann, run.run_id, words("b"), None)
        may_end.set()
        events = await history_of(store, ann, run.run_id)
        lines = await told(store, ann, run.conversation_id)
    assert [type(message).__name__ for message in model.requests[1].messages[1:]] == [
        "UserMessage",
        "AssistantMessage",
        "ToolMessage",
        "UserMessage",
    ]
    assert lines == ["user: a", "call: read", "user: b", "assistant: Done."]
    assert len(applied(events)) == 1


async def test_words_for_a_run_that_waits_are_before_its_first_question(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        _, conversation_id = await talking_run(engine, ann, model)
        second = await engine.start(ann, spec("b", conversation_id), None)
        await engine.steer(ann, second.run_id, words("c"), None)
        model.may_end.set()
        events = await history_of(store, ann, second.run_id)
        lines = await told(store, ann, conversation_id)
    assert len(applied(events)) == 1
    assert lines == ["user: a", "assistant: On a", "user: b", "user: c", "assistant: On c"]


async def test_a_cancelled_run_names_what_its_model_never_saw(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        run_id, conversation_id = await talking_run(engine, ann, model)
        steer_id, _ = await engine.steer(ann, run_id, words("b"), Idempotency("r", "SteerRun", b"b"))
        await engine.cancel(ann, run_id, "")
        events = await history_of(store, ann, run_id)
        assert await told(store, ann, conversation_id) == ["user: a", "assistant: On ..."]
        with pytest.raises(RunNotSteerableError):
            await engine.steer(ann, run_id, words("c"), None)
        again, run = await engine.steer(ann, run_id, words("b"), Idempotency("r", "SteerRun", b"b"))
    assert list(events[-1].run_finished.unapplied_steer_ids) == [steer_id] == [again]
    assert run.state.is_terminal


async def test_a_repeated_steer_is_one(open_same_store: OpenStore, ann: RequestContext, bob: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        run_id, _ = await talking_run(engine, ann, model)
        request = Idempotency("r", "SteerRun", b"b")
        answers = await asyncio.gather(*(engine.steer(ann, run_id, words("b"), request) for _ in range(20)))
        with pytest.raises(RequestIdReusedError):
            await engine.steer(ann, run_id, words("c"), Idempotency("r", "SteerRun", b"c"))
        with pytest.raises(NotFoundError):
            await engine.steer(bob, run_id, words("b"), None)
        model.may_end.set()
        events = await history_of(store, ann, run_id)
    assert [steer_id for steer_id, _ in answers] == applied(events) * 20


async def test_a_restart_keeps_what_was_accepted_and_its_order(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        run_id, conversation_id = await talking_run(engine, ann, model)
        steered = [await engine.steer(ann, run_id, words(text), None) for text in "bcd"]
    model = TalkingModel(waits=False)
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        await engine.recover()
        events = await history_of(store, ann, run_id)
        lines = await told(store, ann, conversation_id)
    assert applied(events) == [steer_id for steer_id, _ in steered]
    assert lines == ["user: a", "user: b", "user: c", "user: d", "assistant: On d"]


async def test_a_crash_at_any_commit_loses_no_accepted_words_and_applies_none_twice(
    tmp_path: Path, ann: RequestContext
) -> None:
    world, steps = World(), [calls(("read", 1), text="Look."), calls(("put", 2)), say("All ", "done.")]
    database = SnapshottingDatabase(tmp_path / "whole.db", world)

    async def read_and_steer(context: ToolContext, arguments: JsonObject) -> object:
        world.marks.append(("read", 1, context.idempotency_key))
        for text in ("x", "y"):
            await engine.steer(ann, run.run_id, words(text), None)
        return arguments["n"]

    tools = [made_tool("read", read_and_steer, effect=ToolEffect.READ), *world.tools()[1:]]
    async with database.opened() as store, an_engine(store, RememberingModel(steps), tools) as engine:
        run = await engine.start(ann, spec(), None)
        assert len(applied(await history_of(store, ann, run.run_id))) == 2
    for crash in database.crashes():
        seen = durable_events(crash.path, run.run_id)
        accepted = [*applied(seen), *pending(crash.path)]
        events = await recover(crash, ann, run.run_id, steps)
        if not seen[-1].HasField("run_finished"):
            assert applied(events) == accepted
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED


def pending(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [steer_id for (steer_id,) in connection.execute("SELECT steer_id FROM steers ORDER BY steer_id")]


async def test_words_that_race_with_the_end_are_applied_or_refused(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    refused = 0
    for lead in range(-10, 10):
        model = TalkingModel()
        async with open_same_store() as store, an_engine(store, model, []) as engine:
            run_id, _ = await talking_run(engine, ann, model)
            release = asyncio.create_task(after(max(lead, 0), model.may_end.set))
            try:
                await after(max(-lead, 0), lambda: None)
                accepted = [(await engine.steer(ann, run_id, words("b"), None))[0]]
            except RunNotSteerableError:
                accepted, refused = [], refused + 1
            await release
            events = await history_of(store, ann, run_id)
            assert applied(events) == accepted
            assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert 0 < refused < 20


async def after(turns: int, act: Callable[[], None]) -> None:
    """Act after so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    act()


class MumblingDatabase:
    """A database of whose next commit, when `mumbles` is set, nobody hears that it has happened."""

    def __init__(self, path: Path) -> None:
        self.mumbles = False
        self._database = SqliteDatabase(path)
        self.fetch = self._database.fetch
        self.scrub = self._database.scrub

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        result = await self._database.transaction(tx)
        if self.mumbles:
            self.mumbles = False
            raise StorageUnavailableError
        return result

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SqlStore]:
        async with self._database, open_store(self, ProtoEventCodec(), b"key") as store:
            yield store


@pytest.mark.parametrize("is_repeated", [True, False])
async def test_words_whose_acceptance_nobody_heard_are_applied_when_they_are_sent_again(
    is_repeated: bool, tmp_path: Path, ann: RequestContext
) -> None:
    database, model = MumblingDatabase(tmp_path / "parley.db"), TalkingModel()
    request = Idempotency("r", "SteerRun", b"b")
    async with database.opened() as store, an_engine(store, model, []) as engine:
        run_id, _ = await talking_run(engine, ann, model)
        await store.worker.appender(run_id).flush()
        database.mumbles = True
        with pytest.raises(StorageUnavailableError):
            await engine.steer(ann, run_id, words("b"), request)
        accepted = [(await engine.steer(ann, run_id, words("b"), request))[0] for _ in range(2 * is_repeated)]
        model.may_end.set()
        events = await history_of(store, ann, run_id)
    assert applied(events) == accepted[:1]
    assert accepted == accepted[:1] * 2 * is_repeated
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert not pending(tmp_path / "parley.db")


def picture(mib: float) -> tuple[ContentPart, ...]:
    return (ImagePart("image/png", content=bytes(int(mib * 2**20))),)


async def test_the_images_of_a_run_and_of_all_that_is_added_to_it_have_3_mib(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        run = await engine.start(ann, replace(spec("a"), input=(*words("a"), *picture(1))), None)
        await model.questions(1)
        repeated = Idempotency("r", "SteerRun", b"b")
        accepted = [(await engine.steer(ann, run.run_id, picture(1), repeated))[0]]
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        await engine.recover()
        # It is applied by now, and counts all the same.
        await model.questions(1)
        adding = [engine.steer(ann, run.run_id, picture(0.75), None) for _ in range(3)]
        outcomes = await asyncio.gather(*adding, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, InvalidRequestError)]
        accepted += [outcome[0] for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert [violation.field for error in refused for violation in error.violations] == ["input", "input"]
        assert (await engine.steer(ann, run.run_id, picture(1), repeated))[0] == accepted[0]
        accepted.append((await engine.steer(ann, run.run_id, picture(0.25), None))[0])
        with pytest.raises(InvalidRequestError):
            await engine.steer(ann, run.run_id, (*words("c"), ImagePart("image/png", content=b"x")), None)
        accepted.append((await engine.steer(ann, run.run_id, words("c"), None))[0])
        model.may_end.set()
        events = await history_of(store, ann, run.run_id)
    assert applied(events) == accepted
