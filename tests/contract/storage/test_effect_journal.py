"""The journal of effects on every engine: rows change in the transaction of their events, and only by their owner."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_repositories import ANSWERED, answer
from contract.storage.test_run_log import accept, decoded, watched
from parley_server.domain.context import RequestContext
from parley_server.domain.run import StopReason
from parley_server.domain.run_event import (
    AttemptRestarted,
    ItemEvent,
    MessageCompleted,
    RunStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import OwnershipLostError, RunAppender, RunConclusion
from parley_server.storage.sql.store import SqlStore
from run_history import check_run

ROWS = (
    "SELECT call_id, effect, state, status, idempotency_key, dispatch_time IS NULL, finish_time IS NULL FROM tool_calls"
)


LARGE = ToolCallFinished("c1", "book", ToolCallStatus.OK, "{}", result_id="result_1", whole_json="{}")


def told(call_id: str, effect: ToolEffect | None = ToolEffect.WRITE) -> ItemEvent:
    return ToolCallStarted(call_id, "book", "{}", effect), f"item_{call_id}"


def answered(call_id: str, status: ToolCallStatus = ToolCallStatus.OK) -> ItemEvent:
    return ToolCallFinished(call_id, "book", status, "{}"), f"item_{call_id}"


def record(
    call_id: str, state: CallState = CallState.PLANNED, effect: ToolEffect | None = ToolEffect.WRITE
) -> CallRecord:
    return CallRecord(call_id, f"item_{call_id}", "book", effect, state, "print", f"key_{call_id}")


async def test_a_call_goes_from_planned_over_dispatched_to_finished(
    engine: Engine, store: SqlStore, ann: RequestContext
) -> None:
    run, appender = await accept(store, ann)
    await appender.begin(RunStarted("m"))
    await appender.append_all(
        [told("c1"), told("c2", None), answered("c2", ToolCallStatus.UNKNOWN_TOOL)],
        [
            record("c1"),
            record("c2", effect=None),
        ],
    )
    await appender.flush()
    refused = ("c2", None, "finished", "unknown_tool", "key_c2", True, False)
    assert await rows(engine) == [("c1", "write", "planned", None, "key_c1", True, True), refused]
    await appender.dispatch(["c1"])
    assert await rows(engine) == [("c1", "write", "dispatched", None, "key_c1", False, True), refused]
    await appender.append(*answered("c1"))
    await appender.flush()
    assert await rows(engine) == [("c1", "write", "finished", "ok", "key_c1", False, False), refused]
    await appender.finish(RunConclusion(ANSWERED, Usage(), ()))
    check_run(decoded(await watched(store, ann, run.run_id)))


async def rows(engine: Engine) -> list[tuple[object, ...]]:
    """Read the journal; booleans as every engine writes them."""
    return [(*row[:5], bool(row[5]), bool(row[6])) for row in await engine.rows(f"{ROWS} ORDER BY call_id")]


async def test_events_of_one_step_are_one_commit_and_wait_together(
    engine: Engine, store: SqlStore, ann: RequestContext
) -> None:
    _, appender = await accept(store, ann)
    await appender.append_all([(MessageCompleted(""), "item_a"), told("c1"), told("c2")], [record("c1"), record("c2")])
    await appender.flush()
    assert len(await engine.rows("SELECT journal_id FROM run_journal")) == 2


async def test_the_end_closes_what_is_open_in_its_own_transaction(
    engine: Engine, store: SqlStore, ann: RequestContext
) -> None:
    run, appender = await accept(store, ann)
    await appender.begin(RunStarted("m"))
    await appender.append_all([told("c1")], [record("c1", CallState.DISPATCHED)])
    conclusion = RunConclusion(ANSWERED, Usage(), ())
    await appender.finish(conclusion, [answered("c1", ToolCallStatus.UNKNOWN_OUTCOME)])
    assert [row[:4] for row in await rows(engine)] == [("c1", "write", "finished", "unknown_outcome")]
    check_run(decoded(await watched(store, ann, run.run_id)))


async def test_what_is_unanswered_comes_back_with_the_run(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        _, appender = await accept(store, ann)
        await appender.begin(RunStarted("m"))
        calls = [record("c1", CallState.DISPATCHED), record("c2", effect=ToolEffect.READ), record("c3", effect=None)]
        await appender.append_all(
            [told("c1"), told("c2", ToolEffect.READ), told("c3", None), answered("c3", ToolCallStatus.UNKNOWN_TOOL)],
            calls,
        )
        await appender.flush()
    async with open_same_store() as store:
        [left], _ = await store.worker.take_over()
        assert left.calls == tuple(calls[:2])
        appender = store.worker.appender(left.stored.run.run_id)
        await appender.restart(AttemptRestarted(2, (), "SERVER_RESTARTED"))
        run = await store.for_user(ann).runs.get(left.stored.run.run_id)
        assert run.attempt == 2
    async with open_same_store() as store:
        [left], _ = await store.worker.take_over()
        assert (left.stored.run.attempt, left.events[-1].attempt) == (2, 2)


async def test_a_stale_owner_can_write_nothing_on_any_path(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as stale, open_same_store() as fresh:
        paths: dict[str, Callable[[RunAppender], Awaitable[object]]] = {
            "append": lambda pen: flushed(pen, [(TextDelta("late"), "item_a")]),
            "append_all": lambda pen: flushed(pen, [told("c9")], [record("c9")]),
            "answer": lambda pen: flushed(pen, [answered("c1")]),
            "result": lambda pen: flushed(pen, [(LARGE, "item_c1")]),
            "dispatch": lambda pen: pen.dispatch(["c1"]),
            "begin": begun,
            "restart": lambda pen: pen.restart(AttemptRestarted(2, (), "SERVER_RESTARTED")),
            "mark_cancelling": lambda pen: pen.mark_cancelling(StopReason.CANCEL_REQUESTED),
            "finish": lambda pen: pen.finish(answer("late"), [answered("c1")]),
        }
        pens: dict[str, RunAppender] = {}
        for path in paths:
            _, pens[path] = await accept(stale, ann)
            await flushed(pens[path], [told("c1")], [record("c1")])
        await fresh.worker.take_over()
        before = await everything(engine)
        for path, write in paths.items():
            with pytest.raises(OwnershipLostError):
                await write(pens[path])
        assert await everything(engine) == before
        for pen in pens.values():
            await fresh.worker.appender(pen.run_id).finish(RunConclusion(ANSWERED, Usage(), ()))


async def flushed(pen: RunAppender, events: list[ItemEvent], calls: list[CallRecord] | None = None) -> None:
    await pen.append_all(events, calls or ())
    await pen.flush()


async def begun(pen: RunAppender) -> None:
    await pen.begin(RunStarted("m"))
    await pen.flush()


async def everything(engine: Engine) -> list[list[tuple[object, ...]]]:
    """Read all that a run's owner may write."""
    queries = (
        "SELECT * FROM run_journal ORDER BY 1",
        "SELECT * FROM runs ORDER BY 1",
        "SELECT * FROM messages ORDER BY 1",
        "SELECT * FROM run_archive ORDER BY 1",
        "SELECT * FROM conversations ORDER BY 1",
        "SELECT * FROM tool_results ORDER BY 1",
        "SELECT * FROM tool_result_contents ORDER BY 1",
    )
    return [*[await engine.rows(query) for query in queries], await rows(engine)]


async def test_a_cancel_after_the_end_changes_nothing(store: SqlStore, ann: RequestContext) -> None:
    run, appender = await accept(store, ann)
    await appender.finish(answer("done"))
    with pytest.raises(OwnershipLostError):
        await appender.mark_cancelling(StopReason.CANCEL_REQUESTED)
    assert (await store.for_user(ann).runs.get(run.run_id)).end == ANSWERED


async def test_a_deleted_conversation_takes_its_calls_along(
    engine: Engine, store: SqlStore, ann: RequestContext
) -> None:
    run, appender = await accept(store, ann)
    await appender.append_all([told("c1"), answered("c1")], [record("c1")])
    await appender.finish(answer("done"))
    assert len(await rows(engine)) == 1
    await store.for_user(ann).conversations.delete(run.conversation_id)
    assert await rows(engine) == []


async def test_calls_of_many_runs_at_once_stay_apart(engine: Engine, store: SqlStore, ann: RequestContext) -> None:
    pens = [(await accept(store, ann))[1] for _ in range(20)]

    async def call(pen: RunAppender) -> None:
        await pen.append_all([told("c1")], [record("c1")])
        await pen.dispatch(["c1"])
        await pen.append(*answered("c1"))
        await pen.finish(RunConclusion(ANSWERED, Usage(), ()))

    await asyncio.gather(*map(call, pens))
    assert [row[2] for row in await rows(engine)] == ["finished"] * 20
