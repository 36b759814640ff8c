"""The run log on every engine: gapless, merged, durable before shown, one terminal event, the same again every time."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import cast

import pytest
from contract.storage.conftest import OpenStore, context_for
from contract.storage.engines import Engine
from contract.storage.test_repositories import ANSWERED, answer, spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parley.v1 import agent_service_pb2, run_event_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import CursorAheadError, NotFoundError, StorageUnavailableError
from parley_server.domain.run import Run, RunState
from parley_server.domain.run_event import (
    EventBody,
    HistoryTruncated,
    MessageCompleted,
    RunStarted,
    StoredEvent,
    TextDelta,
    UsageUpdated,
)
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import OwnershipLostError, RunAppender, RunConclusion
from parley_server.storage.sql.store import SqlStore
from run_history import check_run, text_of


async def accept(store: SqlStore, context: RequestContext, conversation_id: str = "") -> tuple[Run, RunAppender]:
    run = (await store.for_user(context).runs.accept(spec(conversation_id=conversation_id), None)).run
    return run, store.worker.appender(run.run_id)


async def watched(store: SqlStore, context: RequestContext, run_id: str, after_seq: int = 0) -> list[StoredEvent]:
    """Follow a run to its end."""
    events: list[StoredEvent] = []
    async with aclosing(store.for_user(context).runs.watch(run_id, after_seq)) as batches:
        async for batch in batches:
            assert not isinstance(batch, HistoryTruncated)
            events += batch
    return events


def decoded(events: Sequence[StoredEvent]) -> list[run_event_pb2.RunEvent]:
    found = [agent_service_pb2.WatchRunResponse.FromString(event.payload).event for event in events]
    assert [event.seq for event in found] == [event.seq for event in events]
    return found


async def test_a_watcher_sees_the_whole_run_and_later_watchers_the_same_bytes(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run, appender = await accept(store, ann)
        watching = asyncio.create_task(watched(store, ann, run.run_id))
        await appender.begin(RunStarted("m"))
        for word in ("one ", "two ", "three"):
            await appender.append(TextDelta(word), "item_a")
            await appender.flush()
        await appender.append(MessageCompleted("one two three"), "item_a")
        await appender.finish(answer("one two three"))
        live = await watching
        check_run(decoded(live))
        assert text_of(decoded(live)) == "one two three"
        assert await watched(store, ann, run.run_id) == live
        done = await store.for_user(ann).runs.get(run.run_id)
        assert (done.state, done.last_seq, done.output_text) == (RunState.SUCCEEDED, len(live), "one two three")
    async with open_same_store() as store:
        assert await watched(store, ann, run.run_id) == live
        for after_seq in range(len(live) + 1):
            assert await watched(store, ann, run.run_id, after_seq) == live[after_seq:]
        with pytest.raises(CursorAheadError):
            await watched(store, ann, run.run_id, len(live) + 1)


async def test_deltas_of_one_item_melt_while_they_wait(store: SqlStore, ann: RequestContext) -> None:
    run, appender = await accept(store, ann)
    for n in range(1000):
        await appender.append(TextDelta(f"{n} "), "item_a")
    text = "".join(f"{n} " for n in range(1000))
    await appender.append(MessageCompleted(text), "item_a")
    await appender.finish(answer(text))
    events = decoded(await watched(store, ann, run.run_id))
    check_run(events)
    assert len(events) < 10
    assert text_of(events) == text


async def test_a_cursor_ahead_of_a_live_run_is_refused(store: SqlStore, ann: RequestContext) -> None:
    run, _ = await accept(store, ann)
    with pytest.raises(CursorAheadError):
        await watched(store, ann, run.run_id, 2)


async def test_nobody_watches_somebody_elses_run(store: SqlStore, ann: RequestContext, bob: RequestContext) -> None:
    run, appender = await accept(store, ann)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await watched(store, bob, run.run_id)
        with pytest.raises(NotFoundError):
            await store.for_user(bob).runs.get(run.run_id)
        if not (await store.for_user(ann).runs.get(run.run_id)).state.is_terminal:
            await appender.finish(answer("x"))


async def test_nobody_sees_an_event_before_its_commit(engine: Engine, store: SqlStore, ann: RequestContext) -> None:
    run, appender = await accept(store, ann)
    async with engine.blocking_writes():
        await appender.append(TextDelta("precious"), "item_a")
        await asyncio.sleep(0.1)
        # Both the one that waits and one that comes while the commit is stuck.
        watchers = [asyncio.create_task(first_batch(store, ann, run.run_id)) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert not any(watcher.done() for watcher in watchers)
    for watcher in watchers:
        assert [event.seq for event in await watcher] == [2]
    ((blob,),) = await engine.rows("SELECT frames FROM run_journal WHERE first_seq = 2")
    assert b"precious" in cast("bytes", blob)


async def first_batch(store: SqlStore, context: RequestContext, run_id: str) -> tuple[StoredEvent, ...]:
    """Return what comes first after `run_accepted`."""
    async with aclosing(store.for_user(context).runs.watch(run_id, 1)) as batches:
        batch = await anext(batches)
        assert not isinstance(batch, HistoryTruncated)
        return batch


async def test_many_watchers_see_the_same(store: SqlStore, ann: RequestContext) -> None:
    run, appender = await accept(store, ann)
    watchers = [asyncio.create_task(watched(store, ann, run.run_id)) for _ in range(50)]
    for n in range(200):
        await appender.append(TextDelta(str(n)), f"item_{n % 3}")
        if n % 20 == 0:
            await asyncio.sleep(0.001)
    for item in range(3):
        await appender.append(MessageCompleted("".join(str(n) for n in range(item, 200, 3))), f"item_{item}")
    await appender.finish(RunConclusion(ANSWERED, Usage(), ()))
    seen = await asyncio.gather(*watchers)
    check_run(decoded(seen[0]))
    assert all(events == seen[0] for events in seen)


async def test_a_stale_owner_can_write_nothing(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as stale, open_same_store() as fresh:
        run, old = await accept(stale, ann)
        bystander, healthy = await accept(stale, ann)
        interrupted, unstarted = await fresh.worker.take_over()
        assert not interrupted
        assert {stored.run.run_id for stored in unstarted} == {run.run_id, bystander.run_id}
        await old.append(TextDelta("too late"), "item_a")
        with pytest.raises(OwnershipLostError):
            await old.flush()
        with pytest.raises(OwnershipLostError):
            await healthy.finish(answer("too late"))
        await fresh.worker.appender(run.run_id).finish(RunConclusion(ANSWERED, Usage(), ()))
        check_run(decoded(await watched(fresh, ann, run.run_id)))


async def test_one_lost_run_does_not_fail_its_neighbours(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as stale, open_same_store() as fresh:
        _, lost = await accept(stale, ann)
        await fresh.worker.take_over()
        kept, appender = await accept(stale, ann)
        await lost.append(TextDelta("x"), "item_a")
        await appender.append(TextDelta("y"), "item_a")
        await appender.flush()
        with pytest.raises(OwnershipLostError):
            await lost.flush()
        assert (await stale.for_user(ann).runs.get(kept.run_id)).last_seq == 2


async def test_an_unfinished_run_comes_back_with_its_log(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        run, appender = await accept(store, ann)
        queued, _ = await accept(store, ann, run.conversation_id)
        await appender.begin(RunStarted("m"))
        await appender.append(TextDelta("half an ans"), "item_a")
        await appender.flush()
        with pytest.raises(StorageUnavailableError):
            async with open_same_store() as elsewhere:
                await watched(elsewhere, ann, run.run_id)
    async with open_same_store() as store:
        interrupted, unstarted = await store.worker.take_over()
        assert [left.stored.run.run_id for left in interrupted] == [run.run_id]
        assert interrupted[0].stored.context == ann
        assert [event.body for event in interrupted[0].events][1:] == [RunStarted("m"), TextDelta("half an ans")]
        assert [(stored.run.run_id, stored.is_active) for stored in unstarted] == [(queued.run_id, False)]
        appender = store.worker.appender(run.run_id)
        await appender.append(MessageCompleted("half an ans", incomplete=True), "item_a")
        assert await appender.finish(answer("half an ans")) == queued.run_id
        check_run(decoded(await watched(store, ann, run.run_id)))


async def test_the_journal_is_swept_after_the_end(engine: Engine, store: SqlStore, ann: RequestContext) -> None:
    _, appender = await accept(store, ann)
    await appender.finish(answer("x"))
    for _ in range(100):
        if await engine.rows("SELECT count(*) FROM run_journal") == [(0,)]:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the journal still has rows of a finished run")


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.integers(0, 2), st.text(min_size=1, max_size=5)),
        st.tuples(st.just("usage"), st.integers(0, 9), st.just("")),
        st.tuples(st.just("pause"), st.integers(0, 3), st.just("")),
        st.tuples(st.just("watch"), st.integers(0, 5), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_any_sequence_of_appends_reads_the_same_live_and_later(
    store: SqlStore, steps: list[tuple[str, int, str]]
) -> None:
    ann = context_for("ann")
    run, appender = await accept(store, ann)
    texts: dict[str, str] = {}
    watchers: list[tuple[int, asyncio.Task[list[StoredEvent]]]] = []
    for kind, number, text in steps:
        if kind == "text":
            item_id = f"item_{run.run_id}_{number}"
            texts[item_id] = texts.get(item_id, "") + text.replace("\0", "�")
            await appender.append(TextDelta(text.replace("\0", "�")), item_id)
        elif kind == "usage":
            await appender.append(UsageUpdated(Usage(input_tokens=number)))
        elif kind == "pause":
            await asyncio.sleep(number / 1000)
        else:
            after_seq = min(number, (await store.for_user(ann).runs.get(run.run_id)).last_seq)
            watchers.append((after_seq, asyncio.create_task(watched(store, ann, run.run_id, after_seq))))
    closing: list[tuple[str, EventBody]] = [(item_id, MessageCompleted(text)) for item_id, text in texts.items()]
    for item_id, body in closing:
        await appender.append(body, item_id)
    await appender.finish(RunConclusion(ANSWERED, Usage(), ()))
    events = await watched(store, ann, run.run_id)
    check_run(decoded(events))
    for after_seq, task in watchers:
        assert await task == events[after_seq:]


async def test_a_run_that_is_told_as_over_is_told_with_its_last_event(store: SqlStore, ann: RequestContext) -> None:
    """Its row is there to be read a moment before the log in memory hears of the commit."""
    runs = store.for_user(ann).runs
    for number in range(40):
        run, appender = await accept(store, ann)
        ending = asyncio.create_task(appender.finish(answer(f"answer {number}")))
        while not (found := await runs.get(run.run_id)).state.is_terminal:  # noqa: ASYNC110  # at every moment
            await asyncio.sleep(0)
        await ending
        assert found.last_seq == len(await watched(store, ann, run.run_id))
