"""A run that interrupts another, on every engine: the one is cancelled and the other is the next, whatever dies."""

import asyncio

import pytest
from contract.recovery.recovering import RememberingModel, an_engine, history_of, statuses_of
from contract.recovery.talking_model import TalkingModel
from contract.recovery.test_cut_runs import cut_run
from contract.recovery.test_steering import after, talking_run, told
from contract.recovery.test_stopping import STEPS, Booking, begun_run
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_event_pb2, run_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, QueueFullError
from parley_server.domain.run import ConcurrencyPolicy, RunSpec, RunState
from parley_server.domain.run_event import RunStarted, TextDelta

SUCCEEDED = (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED)
INTERRUPTED = (run_pb2.RUN_STATE_CANCELLED, run_pb2.STOP_REASON_INTERRUPTED)


def interrupting(text: str, conversation_id: str) -> RunSpec:
    return spec(text, conversation_id, concurrency_policy=ConcurrencyPolicy.INTERRUPT)


def end_of(events: list[run_event_pb2.RunEvent]) -> tuple[int, int]:
    return events[-1].run_finished.state, events[-1].run_finished.stop_reason


async def test_the_busy_run_is_cancelled_and_those_that_wait_go_on_waiting(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        first, conversation_id = await talking_run(engine, ann, model)
        waiting = [(await engine.start(ann, spec(text, conversation_id), None)).run_id for text in ("b", "c")]
        await engine.cancel(ann, waiting[0], "")
        waiting.append((await engine.start(ann, spec("d", conversation_id), None)).run_id)
        run = await engine.start(ann, interrupting("now", conversation_id), None)
        model.may_end.set()
        ends = [end_of(await history_of(store, ann, run_id)) for run_id in (first, run.run_id, *waiting[1:])]
        lines = await told(store, ann, conversation_id)
    assert ends == [INTERRUPTED, SUCCEEDED, SUCCEEDED, SUCCEEDED]
    assert lines == [
        *("user: a", "assistant: On ...", "user: b", "user: now", "assistant: On now"),
        *("user: c", "assistant: On c", "user: d", "assistant: On d"),
    ]
    assert [asked[-1] for asked in model.asked] == ["user: a", "user: now", "user: c", "user: d"]


async def test_nothing_is_interrupted_where_nothing_is_busy(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store, an_engine(store, TalkingModel(waits=False), []) as engine:
        run = await engine.start(ann, interrupting("a", ""), None)
        assert end_of(await history_of(store, ann, run.run_id)) == SUCCEEDED
        again = await engine.start(ann, interrupting("b", run.conversation_id), None)
        events = await history_of(store, ann, again.run_id)
    assert end_of(events) == SUCCEEDED
    assert events[0].run_accepted.queue_position == 0


async def test_an_interrupted_write_has_its_time(open_same_store: OpenStore, ann: RequestContext) -> None:
    booking = Booking()
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
        first = await begun_run(engine, ann, booking)
        conversation_id = (await store.for_user(ann).runs.get(first)).conversation_id
        run = await engine.start(ann, interrupting("now", conversation_id), None)
        await booking.told.wait()
        states = [(await store.for_user(ann).runs.get(run_id)).state for run_id in (first, run.run_id)]
        assert states == [RunState.CANCELLING, RunState.QUEUED]
        booking.may_end.set()
        events = await history_of(store, ann, first)
        assert end_of(await history_of(store, ann, run.run_id)) == SUCCEEDED
    assert end_of(events) == INTERRUPTED
    assert statuses_of(events) == {("book", 1): "OK", ("read", 2): "CANCELLED"}


async def test_the_first_wish_is_the_reason(open_same_store: OpenStore, ann: RequestContext) -> None:
    booking = Booking()
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
        first = await begun_run(engine, ann, booking)
        run = await engine.cancel(ann, first, "")
        await engine.start(ann, interrupting("now", run.conversation_id), None)
        booking.may_end.set()
        events = await history_of(store, ann, first)
    assert events[-1].run_finished.stop_reason == run_pb2.STOP_REASON_CANCEL_REQUESTED


async def test_where_four_wait_nothing_is_interrupted(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        first, conversation_id = await talking_run(engine, ann, model)
        for _ in range(4):
            await engine.start(ann, spec("b", conversation_id), None)
        with pytest.raises(QueueFullError):
            await engine.start(ann, interrupting("now", conversation_id), None)
        model.may_end.set()
        assert end_of(await history_of(store, ann, first)) == SUCCEEDED


async def test_a_crash_behind_the_acceptance_leaves_both_runs_their_ends(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        first = await cut_run(store, ann, [(RunStarted("m"), ""), (TextDelta("Half "), "x")], spec("a"))
        unbegun = await cut_run(store, ann, [], spec("b"))
        runs = store.for_user(ann).runs
        nexts = [
            (await runs.accept(interrupting("now", run.conversation_id), None)).run.run_id for run in (first, unbegun)
        ]
    model = TalkingModel(waits=False)
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        await engine.recover()
        cut = [await history_of(store, ann, run.run_id) for run in (first, unbegun)]
        followed = [end_of(await history_of(store, ann, run_id)) for run_id in nexts]
        lines = [await told(store, ann, run.conversation_id) for run in (first, unbegun)]
    assert [end_of(events) for events in cut] == [INTERRUPTED, INTERRUPTED]
    assert not any(event.HasField("attempt_restarted") for events in cut for event in events)
    assert followed == [SUCCEEDED, SUCCEEDED]
    assert lines == [
        ["user: a", "assistant: Half ...", "user: now", "assistant: On now"],
        ["user: b", "user: now", "assistant: On now"],
    ]


async def test_an_interrupt_that_races_with_the_end_finds_it_or_comes_too_late(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    ends = set()
    for lead in range(-8, 8):
        model = TalkingModel()
        async with open_same_store() as store, an_engine(store, model, []) as engine:
            first, conversation_id = await talking_run(engine, ann, model)
            release = asyncio.create_task(after(max(lead, 0), model.may_end.set))
            await after(max(-lead, 0), lambda: None)
            run = await engine.start(ann, interrupting("now", conversation_id), None)
            await release
            ends.add(end_of(await history_of(store, ann, first)))
            assert end_of(await history_of(store, ann, run.run_id)) == SUCCEEDED
    assert ends == {SUCCEEDED, INTERRUPTED}


async def test_each_of_many_interrupts_at_once_is_accepted_and_ends(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store, an_engine(store, TalkingModel(waits=False), []) as engine:
        conversation = await store.for_user(ann).conversations.create("", {})
        wishes = [interrupting(f"{n}", conversation.conversation_id) for n in range(5)]
        runs = await asyncio.gather(*(engine.start(ann, wish, None) for wish in wishes))
        ends = [end_of(await history_of(store, ann, run.run_id)) for run in runs]
        after_all = await store.for_user(ann).conversations.get(conversation.conversation_id)
    assert set(ends) <= {SUCCEEDED, INTERRUPTED}
    assert SUCCEEDED in ends
    assert not after_all.active_run_id


async def test_nobody_keeps_anothers_run_from_ending_by_the_id_of_its_conversation(
    open_same_store: OpenStore, ann: RequestContext, bob: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, []) as engine:
        first, conversation_id = await talking_run(engine, ann, model)
        wish = interrupting("now", conversation_id)
        # What it holds up is a moment of a race; so it is asked for what it would hold up.
        assert engine._to_interrupt(ann, wish) is not None
        assert engine._to_interrupt(bob, wish) is None
        with pytest.raises(NotFoundError):
            await engine.start(bob, wish, None)
        model.may_end.set()
        assert end_of(await history_of(store, ann, first)) == SUCCEEDED
