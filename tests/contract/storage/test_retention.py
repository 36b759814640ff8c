"""Letting go on every engine: folded logs keep what matters, expired conversations are gone, nothing else changes."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_conversation_changes import TOMBSTONES
from contract.storage.test_repositories import answer, spec
from contract.storage.test_run_log import decoded, watched
from parley_server.domain.context import RequestContext
from parley_server.domain.conversation import ConversationChanges
from parley_server.domain.errors import CursorAheadError, EtagMismatchError, NotFoundError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.run import Run
from parley_server.domain.run_event import (
    HistoryTruncated,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    RunStarted,
    StoredEvent,
    TextDelta,
)
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import RunFilter
from parley_server.storage.retention import RetentionSettings, Sweeper
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tables import metadata
from sqlalchemy import select

HOUR = timedelta(hours=1)
NOW_ON = timedelta(0)


def now() -> datetime:
    return datetime.now(UTC)


async def sweep(store: SqlStore, fold_after: timedelta = NOW_ON) -> dict[str, int]:
    """Sweep; return what that came to, but for the space, which is SQLite's alone."""
    settings = RetentionSettings(fold_after_s=fold_after.total_seconds())
    done = await Sweeper(store.retention, settings).sweep()
    return {kind: count for kind, count in done.items() if kind != "pages_compacted"}


async def perform(store: SqlStore, context: RequestContext, *, deltas: int = 10, conversation_id: str = "") -> Run:
    """Do a run that thinks and says something, delta by delta."""
    run = (await store.for_user(context).runs.accept(spec(conversation_id=conversation_id), None)).run
    appender = store.worker.appender(run.run_id)
    await appender.begin(RunStarted("m"))
    for kind in (ReasoningDelta, TextDelta):
        for n in range(deltas):
            await appender.append(kind(f"{kind.__name__}{n} "), "item_a")
            await appender.flush()
    await appender.append(ReasoningCompleted("thought"), "item_a")
    await appender.append(MessageCompleted("said"), "item_a")
    await appender.finish(answer(f"said {run.run_id}"))
    return run


async def seen(store: SqlStore, context: RequestContext, run_id: str, after_seq: int = 0) -> list[object]:
    """Watch a run to its end; return seqs, and the notices between them."""
    told: list[object] = []
    async with aclosing(store.for_user(context).runs.watch(run_id, after_seq)) as batches:
        async for batch in batches:
            told += [batch] if isinstance(batch, HistoryTruncated) else [event.seq for event in batch]
    return told


async def test_a_folded_log_keeps_all_but_its_deltas_and_tells_so_first(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = await perform(store, ann)
        whole = await watched(store, ann, run.run_id)
    async with open_same_store() as store:
        user = store.for_user(ann)
        before = await user.runs.get(run.run_id), await user.conversations.messages(run.conversation_id, PageRequest(9))
        assert await sweep(store, HOUR) == await sweep(store, HOUR) == {}
        assert await watched(store, ann, run.run_id) == whole
        assert (await sweep(store))["runs_folded"] == 1
        assert await sweep(store) == {}
        assert before == (
            await user.runs.get(run.run_id),
            await user.conversations.messages(run.conversation_id, PageRequest(9)),
        )
        kept = [event.seq for event in whole if "delta" not in str(decoded_one(event))]
        last_delta = max(event.seq for event in whole if event.seq not in kept)
        for after_seq in range(len(whole) + 1):
            rest = [seq for seq in kept if seq > after_seq]
            notice = [HistoryTruncated(rest[0])] if after_seq < last_delta else []
            assert await seen(store, ann, run.run_id, after_seq) == notice + rest
        with pytest.raises(CursorAheadError):
            await seen(store, ann, run.run_id, len(whole) + 1)
        # What is kept is kept byte for byte.
        async with aclosing(user.runs.watch(run.run_id, last_delta)) as batches:
            told = [event async for batch in batches if not isinstance(batch, HistoryTruncated) for event in batch]
        assert told == whole[last_delta:]


def decoded_one(event: StoredEvent) -> str | None:
    (found,) = decoded([event])
    return found.WhichOneof("event")


async def test_many_runs_are_folded_in_parts_each_of_its_own(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        runs = [await perform(store, ann, deltas=1) for _ in range(40)]
    async with open_same_store() as store:
        # Cut off after a part, as by a stop, and taken up again.
        assert 0 < await store.retention.fold(now()) < len(runs)
    async with open_same_store() as store:
        await sweep(store)
        for run in runs:
            assert isinstance((await seen(store, ann, run.run_id))[0], HistoryTruncated)


async def test_a_long_log_is_folded_page_by_page(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        run = (await store.for_user(ann).runs.accept(spec(), None)).run
        appender = store.worker.appender(run.run_id)
        for n in range(20):
            await appender.append(TextDelta("x" * 100_000), f"item_{n}")
            await appender.flush()
        await appender.finish(answer("x"))
    async with open_same_store() as store:
        await sweep(store)
        assert await seen(store, ann, run.run_id) == [HistoryTruncated(1), 1, 22]
        assert await seen(store, ann, run.run_id, 7) == [HistoryTruncated(22), 22]
        assert await seen(store, ann, run.run_id, 21) == [22]


async def test_a_log_that_is_folded_while_it_is_read_says_so_before_the_gap(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = (await store.for_user(ann).runs.accept(spec(), None)).run
        appender = store.worker.appender(run.run_id)
        for n in range(6):
            await appender.append(TextDelta("x" * 100_000), f"item_{n}")
            await appender.flush()
        await appender.finish(answer("x"))
    async with open_same_store() as store, aclosing(store.for_user(ann).runs.watch(run.run_id, 0)) as batches:
        first = await anext(batches)
        assert not isinstance(first, HistoryTruncated)
        await sweep(store)
        rest = [batch if isinstance(batch, HistoryTruncated) else batch[0].seq async for batch in batches]
        assert first[-1].seq < 7
        assert rest == [HistoryTruncated(8), 8]


async def test_an_expired_conversation_is_not_found_at_once_and_soon_gone(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    # What was used stays used, whatever becomes of the conversation.
    tables = [table for table in metadata.sorted_tables if table.name not in {*TOMBSTONES, "usage_days"}]
    ttl = timedelta(milliseconds=1)
    async with open_same_store(ttl=ttl) as store:
        run = await perform(store, ann)
    async with open_same_store(ttl=ttl) as store:
        user = store.for_user(ann)
        for listing in (
            user.conversations.get(run.conversation_id),
            user.conversations.update(run.conversation_id, ConversationChanges(title="x")),
            user.conversations.delete(run.conversation_id),
            user.conversations.fork(run.conversation_id),
            user.conversations.messages(run.conversation_id, PageRequest(1)),
            user.runs.get(run.run_id),
            user.runs.list(RunFilter(conversation_id=run.conversation_id), PageRequest(1)),
            user.runs.accept(spec(conversation_id=run.conversation_id), None),
            watched(store, ann, run.run_id),
        ):
            with pytest.raises(NotFoundError):
                await listing
        assert (await user.conversations.list(PageRequest(9))).items == ()
        assert (await user.runs.list(RunFilter(), PageRequest(9))).items == ()
        assert (await sweep(store))["rows_expired"]
        for table in tables:
            assert await engine.rows(str(select(table))) == [], table.name


async def test_a_conversation_lives_from_its_last_change_and_while_a_run_goes_on(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    ttl = timedelta(seconds=1)
    async with open_same_store(ttl=ttl) as store:
        user = store.for_user(ann)
        made = await user.conversations.create("A", {})
        assert made.expire_time == made.update_time + ttl
        run = (await user.runs.accept(spec(conversation_id=made.conversation_id), None)).run
        accepted = await user.conversations.get(made.conversation_id)
        assert accepted.expire_time == accepted.update_time + ttl > made.update_time + ttl
        # Long past its time, were it not for the run.
        assert await store.retention.delete_expired(now() + HOUR) == 0
        await store.worker.appender(run.run_id).finish(answer("x"))
        ended = await user.conversations.get(made.conversation_id)
        assert ended.expire_time == ended.update_time + ttl > accepted.update_time + ttl
        # The etag follows the time of expiry, as the contract says.
        with pytest.raises(EtagMismatchError):
            await user.conversations.update(made.conversation_id, ConversationChanges(title="B"), made.etag)
        changed = await user.conversations.update(made.conversation_id, ConversationChanges(title="B"), ended.etag)
        assert changed.expire_time == changed.update_time + ttl
        assert await store.retention.delete_expired(now() + HOUR)


async def test_a_changed_lifetime_holds_for_what_is_there(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        made = [await store.for_user(ann).conversations.create(str(n), {}) for n in range(3)]
        assert {each.expire_time for each in made} == {None}
    for ttl in (HOUR, 2 * HOUR, None):
        async with open_same_store(ttl=ttl) as store:
            assert (await sweep(store)).get("ttl_adopted") == len(made)
            assert await sweep(store) == {}
            for each in (await store.for_user(ann).conversations.list(PageRequest(9))).items:
                assert each.expire_time == (None if ttl is None else each.update_time + ttl)


async def test_a_large_conversation_goes_in_parts_of_which_nobody_sees_any(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store(ttl=HOUR) as store:
        user = store.for_user(ann)
        made = await user.conversations.create("large", {})
        for _ in range(150):
            run = (await user.runs.accept(spec(conversation_id=made.conversation_id), None)).run
            await store.worker.appender(run.run_id).finish(answer(f"answer {run.run_id}"))
        parts = 0
        while await store.retention.delete_expired(now() + 2 * HOUR):
            parts += 1
        assert parts > 3
        assert await engine.rows("SELECT run_id FROM runs") == []


async def test_request_ids_are_forgotten_after_their_time(engine: Engine, store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    for n in range(3):
        await conversations.create("A", {}, Idempotency(f"r{n}", "conversation", b"a"))
    assert await store.retention.forget_request_ids(now() + 24 * HOUR) == 0
    assert len(await engine.rows("SELECT request_id FROM request_ids")) == 3
    assert await store.retention.forget_request_ids(now() + 49 * HOUR) == 3
    assert await engine.rows("SELECT request_id FROM request_ids") == []
