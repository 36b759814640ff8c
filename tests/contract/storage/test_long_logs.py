"""A log far longer than memory keeps: watchers anywhere in it, slow ones, a restart in the middle, and the bounds."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_repositories import ANSWERED, answer
from contract.storage.test_run_log import accept, decoded, watched
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.run_event import HistoryTruncated, MessageCompleted, StoredEvent, TextDelta
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import RunAppender, RunConclusion
from parley_server.storage.sql import live_run, run_log
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tail import PAGE_BYTES
from run_history import check_run, text_of

MIB = 1024 * 1024
DELTA = "0123456789abcdef" * 256
# Two pages, what waits for the store, and as much again for a reader's page and for Python.
MEMORY_BYTES = 2 * MIB

Batches = AsyncGenerator[tuple[StoredEvent, ...] | HistoryTruncated]


async def say(appender: RunAppender, size: int) -> int:
    """Append text of so many bytes in events of 4 KiB; return how many they were."""
    count = size // len(DELTA)
    for number in range(count):
        await appender.append(TextDelta(DELTA), f"item_{number % 2}")
        if number % 8 == 7:
            await appender.flush()
    await appender.flush()
    return count


async def fall_silent(appender: RunAppender, count: int) -> None:
    for item in range(2):
        await appender.append(MessageCompleted(DELTA * (count // 2)), f"item_{item}")
    await appender.finish(RunConclusion(ANSWERED, Usage(), ()))


async def pages(engine: Engine, run_id: str) -> list[tuple[object, ...]]:
    return await engine.rows(
        f"SELECT first_seq, length(frames) FROM run_archive WHERE run_id = '{run_id}' ORDER BY first_seq"  # noqa: S608
    )


async def test_watchers_anywhere_in_a_long_log_see_the_same_before_and_after_a_restart(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run, appender = await accept(store, ann)
        count = await say(appender, 10 * MIB)
        middle, end = count // 2, count + 1
        watchers = [asyncio.create_task(watched(store, ann, run.run_id, seq)) for seq in (0, middle, end)]
        await asyncio.sleep(0.2)
        for watcher in watchers:
            watcher.cancel()
    assert len(await pages(engine, run.run_id)) > 10 * MIB // PAGE_BYTES // 2
    async with open_same_store() as store:
        (interrupted,) = (await store.worker.take_over())[1]
        assert interrupted.run.run_id == run.run_id
        appender = store.worker.appender(run.run_id)
        watchers = [asyncio.create_task(watched(store, ann, run.run_id, seq)) for seq in (0, 1, middle, end)]
        count += await say(appender, 10 * MIB)
        await fall_silent(appender, count)
        whole, *others = await asyncio.gather(*watchers)
        check_run(decoded(whole))
        assert text_of(decoded(whole)) == DELTA * count
        assert others == [whole[1:], whole[middle:], whole[end:]]
        assert await watched(store, ann, run.run_id, middle) == whole[middle:]
    async with open_same_store() as store:
        assert await watched(store, ann, run.run_id) == whole


async def lagging(store: SqlStore, context: RequestContext, run_id: str) -> Batches:
    """Return a watcher that has seen the run's first event, and takes no more until it is asked to."""
    watcher = store.for_user(context).runs.watch(run_id, 0)
    assert [event.seq for event in events_of(await anext(watcher))] == [1]
    return watcher


def events_of(batch: tuple[StoredEvent, ...] | HistoryTruncated) -> tuple[StoredEvent, ...]:
    assert not isinstance(batch, HistoryTruncated)
    return batch


async def rest_of(watcher: Batches) -> list[StoredEvent]:
    async with aclosing(watcher):
        return [event async for batch in watcher for event in events_of(batch)]


async def test_neither_a_long_log_nor_watchers_that_lag_take_memory(store: SqlStore, ann: RequestContext) -> None:
    run, appender = await accept(store, ann)
    watchers = [await lagging(store, ann, run.run_id) for _ in range(100)]
    gc.collect()
    tracemalloc.start()
    try:
        await say(appender, 20 * MIB)
        grown = [tracemalloc.get_traced_memory()[0]]
        # Each of them now holds what comes next.
        held = await asyncio.gather(*(anext(watcher) for watcher in watchers))
        grown.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(grown) < MEMORY_BYTES, grown
    assert {events_of(batch)[0].seq for batch in held} == {2}
    assert len({id(event.payload) for batch in held for event in events_of(batch)}) == len(events_of(held[0]))
    for watcher in watchers:
        await watcher.aclose()


async def test_the_end_of_a_long_run_writes_no_more_than_a_page(
    engine: Engine, store: SqlStore, ann: RequestContext
) -> None:
    run, appender = await accept(store, ann)
    await say(appender, 2 * MIB)
    before = await pages(engine, run.run_id)
    await appender.finish(RunConclusion(ANSWERED, Usage(), ()))
    after = await pages(engine, run.run_id)
    assert after[: len(before)] == before
    assert sum(int(str(size)) for _, size in after[len(before) :]) < 2 * PAGE_BYTES


async def test_the_journal_holds_little_of_a_long_run(engine: Engine, store: SqlStore, ann: RequestContext) -> None:
    _, appender = await accept(store, ann)
    await say(appender, 4 * MIB)
    await asyncio.sleep(run_log.SWEEP_GAP_S)
    for _ in range(100):
        await asyncio.sleep(0.05)
        ((size,),) = await engine.rows("SELECT sum(length(frames)) FROM run_journal")
        if int(str(size)) < 4 * PAGE_BYTES:
            return
    pytest.fail("the journal still holds what the archive has")


async def test_a_watcher_goes_on_when_the_ended_run_has_left_memory(
    monkeypatch: pytest.MonkeyPatch, store: SqlStore, ann: RequestContext
) -> None:
    monkeypatch.setattr(run_log, "TAIL_GRACE_S", 0.0)
    run, appender = await accept(store, ann)
    slow = await lagging(store, ann, run.run_id)
    near = await lagging(store, ann, run.run_id)
    await say(appender, 4 * PAGE_BYTES)
    begun = events_of(await anext(near))
    await appender.finish(answer("x"))
    await asyncio.sleep(0.05)
    whole = await watched(store, ann, run.run_id)
    assert await rest_of(slow) == whole[1:]
    assert [*begun, *await rest_of(near)] == whole[1:]


async def test_a_watcher_that_lags_is_told_when_the_conversation_is_deleted(
    monkeypatch: pytest.MonkeyPatch, store: SqlStore, ann: RequestContext
) -> None:
    monkeypatch.setattr(run_log, "TAIL_GRACE_S", 0.0)
    run, appender = await accept(store, ann)
    slow = await lagging(store, ann, run.run_id)
    await say(appender, 4 * PAGE_BYTES)
    await appender.finish(answer("x"))
    await store.for_user(ann).conversations.delete(run.conversation_id)
    with pytest.raises(NotFoundError):
        await rest_of(slow)


async def test_a_page_whose_rows_were_not_swept_counts_once(open_same_store: OpenStore, ann: RequestContext) -> None:
    """A process dies between a page's commit and the sweep of its rows: both hold the same events."""
    async with open_same_store() as store:
        run, appender = await accept(store, ann)
        count = await say(appender, 2 * PAGE_BYTES)
    async with open_same_store() as store:
        await store.worker.take_over()
        appender = store.worker.appender(run.run_id)
        await fall_silent(appender, count)
        check_run(decoded(await watched(store, ann, run.run_id)))


async def test_every_watcher_of_a_quiet_run_is_given_a_sign_of_it(
    monkeypatch: pytest.MonkeyPatch, store: SqlStore, ann: RequestContext
) -> None:
    monkeypatch.setattr(live_run, "HEARTBEAT_S", 0.02)
    run, appender = await accept(store, ann)
    watchers = [await lagging(store, ann, run.run_id) for _ in range(3)]
    for _ in range(2):
        assert await asyncio.gather(*(anext(watcher) for watcher in watchers)) == [()] * 3
    await appender.finish(answer("x"))
    whole = await watched(store, ann, run.run_id)
    assert [await rest_of(watcher) for watcher in watchers] == [whole[1:]] * 3
