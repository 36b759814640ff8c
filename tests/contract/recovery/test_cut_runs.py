"""A run whose owner died, on every engine: cut after any event it goes on, unless it has no business to."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_event_pb2, run_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.run import Limits, Run, RunSpec, StopReason
from parley_server.domain.run_event import (
    AttemptRestarted,
    ItemEvent,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    RunStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageUpdated,
)
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.rpc.mapping.errors import read_run_error
from parley_server.runs.recovery import MAX_FRUITLESS_ATTEMPTS
from parley_server.storage.sql.store import SqlStore
from unit.agents.scripted_model import say

STEPS = [calls(("read", 1), ("book", 2), ("put", 3)), say("Here it is.")]
STARTED: ItemEvent = (RunStarted("m"), "")
PARTS: list[ItemEvent] = [
    STARTED,
    (ReasoningDelta("hm, "), "a"),
    (ReasoningDelta("well"), "a"),
    (TextDelta("Let me "), "a"),
    (TextDelta("look."), "a"),
    (ReasoningCompleted("hm, well"), "a"),
    (MessageCompleted("Let me look."), "a"),
    (UsageUpdated(Usage(output_tokens=3, model_calls=1, tool_calls=3)), ""),
    (ToolCallStarted("c1", "read", '{"n":1}', ToolEffect.READ), "b"),
    (ToolCallStarted("c2", "book", '{"n":2}', ToolEffect.WRITE), "c"),
    (ToolCallStarted("c3", "put", '{"n":3}', ToolEffect.IDEMPOTENT), "d"),
    (ToolCallFinished("c3", "put", ToolCallStatus.OK, '{"ok":true,"result":3}'), "d"),
    (ToolCallFinished("c1", "read", ToolCallStatus.OK, '{"ok":true,"result":1}'), "b"),
    (ToolCallFinished("c2", "book", ToolCallStatus.OK, '{"ok":true,"result":2}'), "c"),
    (TextDelta("Here "), "e"),
    (TextDelta("it"), "e"),
]


def record(started: ToolCallStarted, item_id: str, state: CallState = CallState.DISPATCHED) -> CallRecord:
    return CallRecord(
        started.call_id, item_id, started.name, started.effect, state, "print", f"key of {started.call_id}"
    )


async def cut_run(
    store: SqlStore, context: RequestContext, events: Sequence[ItemEvent], wishes: RunSpec | None = None
) -> Run:
    """Leave a run with such a log, as its owner's death would; items are given names of the run's own."""
    run = (await store.for_user(context).runs.accept(wishes or spec(), None)).run
    appender = store.worker.appender(run.run_id)
    for body, name in events:
        item_id = name and f"{name}_{run.run_id}"
        if isinstance(body, RunStarted):
            await appender.begin(body)
        elif isinstance(body, AttemptRestarted):
            await appender.flush()
            await appender.restart(body)
        else:
            calls_made = [record(body, item_id)] if isinstance(body, ToolCallStarted) else []
            await appender.append_all([(body, item_id)], calls_made)
    await appender.flush()
    return run


async def test_a_run_cut_after_any_event_comes_to_its_answer(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        runs = [await cut_run(store, ann, PARTS[:count]) for count in range(len(PARTS) + 1)]
    world = World()
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), world.tools()) as engine:
        await engine.recover()
        histories = [await history_of(store, ann, run.run_id) for run in runs]
    for count, events in enumerate(histories):
        end = events[-1].run_finished
        assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED), count
        assert [event.message_completed.text for event in events if event.message_completed.text][-1] == "Here it is."
        assert sum(event.HasField("attempt_restarted") for event in events) == (count > 0)
        in_doubt = statuses_of(events).get(("book", 2)) == "UNKNOWN_OUTCOME"
        told = count > PARTS.index(next(part for part in PARTS if part[1] == "c"))
        answered = count > max(index for index, part in enumerate(PARTS) if part[1] == "c")
        assert in_doubt == (told and not answered), count


async def test_what_was_answered_is_never_asked_again_and_keys_stay(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, PARTS[:11])
    world, model = World(), RememberingModel(STEPS)
    async with open_same_store() as store, an_engine(store, model, world.tools()) as engine:
        await engine.recover()
        events = await history_of(store, ann, run.run_id)
    assert sorted(world.marks) == [("put", 3, "key of c3"), ("read", 1, "key of c1")]
    assert len(model.requests) == 1
    assert sum(event.HasField("tool_call_started") for event in events) == 3
    assert events[-1].run_finished.usage.model_calls == 2
    assert events[-1].run_finished.usage.output_tokens == 4


async def test_what_was_only_planned_is_done(open_same_store: OpenStore, ann: RequestContext) -> None:
    started = ToolCallStarted("c2", "book", '{"n":2}', ToolEffect.WRITE)
    async with open_same_store() as store:
        run = await cut_run(store, ann, [STARTED])
        pen = store.worker.appender(run.run_id)
        await pen.append_all([(started, "c")], [record(started, "c", CallState.PLANNED)])
        await pen.flush()
    world, steps = World(), [calls(("book", 2)), say("Booked.")]
    async with open_same_store() as store, an_engine(store, RememberingModel(steps), world.tools()) as engine:
        await engine.recover()
        events = await history_of(store, ann, run.run_id)
    assert world.marks == [("book", 2, "key of c2")]
    assert statuses_of(events) == {("book", 2): "OK"}


async def ended(
    open_same_store: OpenStore, ann: RequestContext, run: Run, agent_id: str = "assistant", world: World | None = None
) -> tuple[run_event_pb2.RunEvent, list[run_event_pb2.RunEvent]]:
    """Recover; return the run's last event and all of them."""
    tools = [] if world is None else world.tools()
    async with open_same_store() as store:
        async with an_engine(store, RememberingModel(STEPS), tools, agent_id) as engine:
            await engine.recover()
            events = await history_of(store, ann, run.run_id)
        waits = (await store.for_user(ann).conversations.get(run.conversation_id)).active_run_id
        assert not waits
    return events[-1], events


async def test_an_accepted_cancel_is_honoured_and_what_was_said_is_kept(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, [*PARTS[:11], (TextDelta("And "), "x")])
        await store.worker.appender(run.run_id).mark_cancelling(StopReason.CANCEL_REQUESTED)
    last, events = await ended(open_same_store, ann, run, world=World())
    assert last.run_finished.state == run_pb2.RUN_STATE_CANCELLED
    assert not any(event.HasField("attempt_restarted") for event in events)
    assert statuses_of(events) == {("read", 1): "CANCELLED", ("book", 2): "UNKNOWN_OUTCOME", ("put", 3): "CANCELLED"}
    [cut] = [event.message_completed for event in events if event.message_completed.incomplete]
    assert cut.text == "And "


async def test_a_run_past_its_deadline_expires(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, PARTS[:4], spec(limits=Limits(deadline=timedelta(milliseconds=1))))
    last, _ = await ended(open_same_store, ann, run)
    assert (last.run_finished.state, last.run_finished.stop_reason) == (
        run_pb2.RUN_STATE_EXPIRED,
        run_pb2.STOP_REASON_DEADLINE,
    )


def fruitless(attempts: int, done_in_attempt: int = 0) -> list[ItemEvent]:
    """A log of so many attempts, of which one at most has completed an item."""
    events: list[ItemEvent] = []
    for attempt in range(1, attempts + 1):
        events.append(STARTED if attempt == 1 else (AttemptRestarted(attempt, (), "SERVER_RESTARTED"), ""))
        if attempt == done_in_attempt:
            events += [(TextDelta("So far."), "a"), (MessageCompleted("So far."), "a")]
    return events


@pytest.mark.parametrize(
    ("events", "goes_on"),
    [
        (fruitless(MAX_FRUITLESS_ATTEMPTS - 1), True),
        (fruitless(MAX_FRUITLESS_ATTEMPTS), False),
        (fruitless(MAX_FRUITLESS_ATTEMPTS + 3, done_in_attempt=4), True),
        (fruitless(MAX_FRUITLESS_ATTEMPTS + 1, done_in_attempt=1), False),
    ],
    ids=["one left", "used up", "something was done meanwhile", "used up since"],
)
async def test_attempts_that_complete_nothing_are_counted(
    events: list[ItemEvent], goes_on: bool, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, events)
    last, _ = await ended(open_same_store, ann, run, world=World())
    if goes_on:
        assert last.run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    else:
        assert read_run_error(last.run_finished.error).reason == "ATTEMPTS_EXHAUSTED"


async def test_a_run_whose_agent_is_gone_fails_and_says_so(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, PARTS[:11])
    last, _ = await ended(open_same_store, ann, run, "another", World())
    error = read_run_error(last.run_finished.error)
    assert (error.reason, error.metadata["resource_type"]) == ("RESOURCE_NOT_FOUND", "agent")


async def test_a_run_whose_tool_is_gone_goes_on_and_its_model_is_told(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, PARTS[:11])
    last, events = await ended(open_same_store, ann, run)
    assert last.run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    answers = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert {answer.call_id: answer.error_code for answer in answers} == {
        "c1": "UNAVAILABLE",
        "c2": "UNKNOWN_OUTCOME",
        "c3": "UNKNOWN_OUTCOME",
    }


async def test_the_next_run_of_the_conversation_waits_for_the_one_that_goes_on(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        first = await cut_run(store, ann, PARTS[:5])
        second = (await store.for_user(ann).runs.accept(spec(conversation_id=first.conversation_id), None)).run
    async with open_same_store() as store, an_engine(store, RememberingModel([say("Yes.")]), []) as engine:
        await engine.recover()
        earlier = await history_of(store, ann, first.run_id)
        later = await history_of(store, ann, second.run_id)
    assert earlier[-1].emit_time.ToNanoseconds() <= later[1].emit_time.ToNanoseconds()
    assert later[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
