"""A crash between the summary of a conversation that had grown too long, and the answer: the run goes on with it."""

from collections.abc import AsyncGenerator
from pathlib import Path

from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of
from contract.recovery.test_every_commit import Crash, SnapshottingDatabase, durable_events, outcome
from contract.storage.test_repositories import spec
from parley.v1 import run_event_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ToolCall
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import (
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelRequest,
    SystemMessage,
    TextChunk,
)
from parley_server.llm.provider_profiles import ProviderProfile
from parley_server.rpc.mapping.conversation import write_message
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.page import PageRequest
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from run_history import check_messages
from unit.agents.scripted_model import Step, say

SUMMARY = "They spoke of ships."
STEPS: list[Step] = [calls(("read", 1)), say("All ", "is ", "done.")]
LONG = "ship " * 200


class SummarizingModel(RememberingModel):
    """Also writes summaries, and counts them."""

    summaries = 0

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        first = request.messages[0]
        if not isinstance(first, SystemMessage) or "summary" not in first.text:
            async for chunk in super().stream(context, request):
                yield chunk
            return
        self.summaries += 1
        for chunk in (TextChunk(SUMMARY), FinishChunk(FinishReason.STOP)):
            yield chunk


def profiles(_model: str) -> ProviderProfile:
    return ProviderProfile(context_window=1000)


def summaries_of(events: list[run_event_pb2.RunEvent]) -> list[str]:
    return [event.history_compacted.summary_text for event in events if event.HasField("history_compacted")]


async def crashes_of(folder: Path, ann: RequestContext) -> tuple[str, list[Crash], list[run_event_pb2.RunEvent]]:
    """Let a conversation grow too long; return the run that it is compacted in, and a crash for all commits of it."""
    world, conversation_id = World(), ""
    database = SnapshottingDatabase(folder / "whole.db", world)
    async with database.opened() as store:
        for number in range(3):
            async with an_engine(store, RememberingModel(STEPS[1:]), world.tools()) as engine:
                run = await engine.start(ann, spec(f"{number}: {LONG}", conversation_id), None)
                conversation_id = run.conversation_id
                await history_of(store, ann, run.run_id)
        before = len(database.crashes())
        async with an_engine(store, SummarizingModel(STEPS), world.tools(), profiles=profiles) as engine:
            run = await engine.start(ann, spec("And now?", conversation_id), None)
            events = await history_of(store, ann, run.run_id)
    return run.run_id, database.crashes()[before:], events


async def recover(
    crash: Crash, ann: RequestContext, run_id: str
) -> tuple[SummarizingModel, list[run_event_pb2.RunEvent]]:
    model = SummarizingModel(STEPS)
    async with SqliteDatabase(crash.path) as database, open_store(database, ProtoEventCodec(), b"key") as store:
        async with an_engine(store, model, World().tools(), profiles=profiles) as engine:
            await engine.recover()
            events = await history_of(store, ann, run_id)
        page = await store.for_user(ann).conversations.messages(events[0].conversation_id, PageRequest(1000))
    of_run = [write_message(message) for message in page.items if message.run_id == run_id]
    check_messages(events, of_run, prompt="And now?")
    assert len(page.items) == 6 + len(of_run), "a message is gone"
    return model, events


async def test_after_a_crash_a_run_goes_on_with_the_summary_that_is_there(tmp_path: Path, ann: RequestContext) -> None:
    run_id, crashes, whole = await crashes_of(tmp_path, ann)
    assert summaries_of(whole) == [SUMMARY]
    kinds = [event.WhichOneof("event") for event in whole]
    assert kinds.index("history_compacted") < kinds.index("tool_call_started")
    assert whole[-1].run_finished.usage.model_calls == 3
    made = 0
    for crash in crashes:
        was_there = len(summaries_of(durable_events(crash.path, run_id)))
        model, events = await recover(crash, ann, run_id)
        assert outcome(events) == outcome(whole)
        assert summaries_of(events) == [SUMMARY]
        if events[-1].attempt != 1:
            assert model.summaries == 1 - was_there
            assert all("0: ship" not in str(request.messages) for request in model.requests)
        made += was_there
    assert made, "no crash came after the summary"


async def test_what_the_server_reports_corrects_the_estimate_within_a_run(tmp_path: Path, ann: RequestContext) -> None:
    asked = FinishChunk(
        FinishReason.TOOL_CALLS, (ToolCall("c", "read", '{"n":1}'),), Usage(input_tokens=900, output_tokens=1)
    )
    model, conversation_id = SummarizingModel([[asked], STEPS[-1]]), ""
    events: list[run_event_pb2.RunEvent] = []
    async with SqliteDatabase(tmp_path / "a.db") as database, open_store(database, ProtoEventCodec(), b"key") as store:
        for text, answering in ((LONG, RememberingModel(STEPS[1:])), ("And now?", model)):
            async with an_engine(store, answering, World().tools(), profiles=profiles) as engine:
                run = await engine.start(ann, spec(text, conversation_id), None)
                events, conversation_id = await history_of(store, ann, run.run_id), run.conversation_id
    assert summaries_of(events) == [SUMMARY]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.index("tool_call_finished") < kinds.index("history_compacted") < kinds.index("message_completed")
    # The run's own call stays, with its result.
    assert [type(message).__name__ for message in model.requests[-1].messages] == [
        "SystemMessage",
        "UserMessage",
        "UserMessage",
        "AssistantMessage",
        "ToolMessage",
    ]
