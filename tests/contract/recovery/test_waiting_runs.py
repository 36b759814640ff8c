"""What else may happen to a run that waits for its user, on every engine: each end, and what is added meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import timedelta

import pytest
from contract.recovery.asking import BOOKING, NO, WHOLE, WRITES, YES, kinds_of, resolutions_of, state_of, waiting_run
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, history_of, statuses_of
from contract.recovery.test_interrupting import SUCCEEDED, end_of
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_pb2
from parley_server.domain.approval import Approval, ApprovalCancelledError, ApprovalState
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ConversationBusyError, NotFoundError
from parley_server.domain.run import ConcurrencyPolicy, DisconnectPolicy, Limits, Run, RunSpec, RunState
from parley_server.domain.run_event import HistoryTruncated
from parley_server.metrics.prometheus import PrometheusRecorder
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql import live_run
from parley_server.storage.sql.store import SqlStore
from structlog.testing import capture_logs

SHORT = timedelta(milliseconds=300)

Ending = Callable[[RunEngine, RequestContext, Run], Awaitable[object]]


async def cancel(engine: RunEngine, ann: RequestContext, run: Run) -> None:
    assert (await engine.cancel(ann, run.run_id, "")).state is RunState.CANCELLED
    assert (await engine.cancel(ann, run.run_id, "")).state is RunState.CANCELLED


async def interrupt(engine: RunEngine, ann: RequestContext, run: Run) -> None:
    wish = spec("now", run.conversation_id, concurrency_policy=ConcurrencyPolicy.INTERRUPT)
    await engine.start(ann, wish, None)


async def wait(engine: RunEngine, ann: RequestContext, run: Run) -> None:
    """Let time pass."""


async def hang_up(engine: RunEngine, ann: RequestContext, run: Run) -> None:
    (await engine.attend(ann, run.run_id, is_caller=True)).leave(is_lost=True)


@pytest.mark.parametrize(
    ("ending", "wish", "stop_reason"),
    [
        (cancel, spec(), run_pb2.STOP_REASON_CANCEL_REQUESTED),
        (interrupt, spec(), run_pb2.STOP_REASON_INTERRUPTED),
        (wait, spec(limits=Limits(deadline=SHORT)), run_pb2.STOP_REASON_DEADLINE),
        (hang_up, spec(disconnect_policy=DisconnectPolicy.CANCEL), run_pb2.STOP_REASON_DISCONNECTED),
    ],
)
@pytest.mark.parametrize("restarts", [False, True])
async def test_with_the_run_its_approval_is_cancelled(  # how it ends, and where
    restarts: bool, ending: Ending, wish: RunSpec, stop_reason: int, open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with AsyncExitStack() as stack:
        store, engine = await opened(stack, open_same_store, world)
        run_id, [approval] = await patiently_waiting_run(engine, store, ann, wish)
        if restarts:
            await stack.aclose()
            store, engine = await opened(stack, open_same_store, world)
            await engine.recover()
        await ending(engine, ann, await store.for_user(ann).runs.get(run_id))
        events = await history_of(store, ann, run_id)
        with pytest.raises(ApprovalCancelledError):
            await engine.decide(ann, approval.approval_id, YES)
        kept = await store.for_user(ann).approvals.get(approval.approval_id)
    assert events[-1].run_finished.stop_reason == stop_reason
    assert (resolutions_of(events), statuses_of(events)) == (["CANCELLED"], {("book", 1): "CANCELLED"})
    assert kept.state is ApprovalState.CANCELLED
    assert world.marks == []


async def patiently_waiting_run(
    engine: RunEngine, store: SqlStore, ann: RequestContext, wish: RunSpec
) -> tuple[str, list[Approval]]:
    """Start a run that waits before its deadline; on a slow machine that is a later one."""
    while True:
        try:
            return await waiting_run(engine, store, ann, wish)
        except AssertionError:
            deadline = wish.limits.deadline * 4
            assert deadline < timedelta(minutes=1)
            wish = replace(wish, limits=Limits(deadline=deadline))


async def opened(stack: AsyncExitStack, open_same_store: OpenStore, world: World) -> tuple[SqlStore, RunEngine]:
    """Open an engine on the same store, where a lost caller has no time to come back."""
    store = await stack.enter_async_context(open_same_store())
    made = an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES, disconnect_grace=timedelta(0))
    return store, await stack.enter_async_context(made)


async def test_those_behind_it_wait_and_nothing_of_it_is_deleted(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        conversations = store.for_user(ann).conversations
        queued = await engine.start(ann, spec("b", approval.conversation_id), None)
        with pytest.raises(ConversationBusyError):
            await conversations.delete(approval.conversation_id)
        assert await state_of(store, ann, queued.run_id) is RunState.QUEUED
        await engine.decide(ann, approval.approval_id, YES)
        ends = [end_of(await history_of(store, ann, each)) for each in (run_id, queued.run_id)]
        assert ends == [SUCCEEDED, SUCCEEDED]
        await conversations.delete(approval.conversation_id)
        with pytest.raises(NotFoundError):
            await engine.decide(ann, approval.approval_id, YES)


async def test_words_that_are_added_meanwhile_are_put_before_the_model_then(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world, model = World(), RememberingModel(BOOKING)
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        steer_id, run = await engine.steer(ann, run_id, (TextPart("and for two"),), None)
        assert run.state is RunState.WAITING_APPROVAL
        await engine.decide(ann, approval.approval_id, YES)
        events = await history_of(store, ann, run_id)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.index("steer_applied") > kinds.index("tool_call_finished") > kinds.index("run_resumed")
    assert [event.steer_applied.steer_id for event in events if event.HasField("steer_applied")] == [steer_id]
    assert "and for two" in str(model.requests[-1].messages[-1])


async def test_while_it_waits_nothing_of_it_is_at_work_and_no_log_says_what_it_asks(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world, recorder = World(), PrometheusRecorder()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES, recorder=recorder) as engine,
    ):
        with capture_logs() as lines:
            tasks = len(asyncio.all_tasks())
            run_id, [approval] = await waiting_run(engine, store, ann)
            assert len(asyncio.all_tasks()) == tasks
            told = recorder.scrape().decode()
            assert "parley_runs_live 0.0" in told
            assert "parley_approvals_pending 1.0" in told
            await engine.decide(ann, approval.approval_id, NO)
            await history_of(store, ann, run_id)
        assert "parley_approvals_pending 0.0" in recorder.scrape().decode()
    assert [line["event"] for line in lines] == ["run_waiting", "approval_resolved", "run_finished"]
    assert not any(word in str(lines) for word in (approval.arguments_json, NO.reason))


async def test_who_watches_hears_that_the_stream_is_alive_and_what_comes_then(
    open_same_store: OpenStore, ann: RequestContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_run, "HEARTBEAT_S", 0.05)
    world, quiet, seqs = World(), 0, []
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        async with asyncio.timeout(10), aclosing(store.for_user(ann).runs.watch(run_id, 0)) as batches:
            async for batch in batches:
                assert not isinstance(batch, HistoryTruncated)
                seqs += [event.seq for event in batch]
                quiet += not batch
                if quiet == 2:
                    await engine.decide(ann, approval.approval_id, YES)
        events = await history_of(store, ann, run_id)
    assert seqs == [event.seq for event in events]
    assert quiet >= 2


async def test_a_call_that_an_engine_takes_while_it_stops_is_answered_at_the_next_start(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        await engine.park()
        decided = await engine.decide(ann, approval.approval_id, YES)
        assert (decided.state, world.marks) == (ApprovalState.APPROVED, [])
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        await engine.recover()
        events = await history_of(store, ann, run_id)
    assert (kinds_of(events), statuses_of(events)) == (WHOLE, {("book", 1): "OK"})
    assert (len(world.marks), {event.attempt for event in events}) == (1, {1})


async def test_an_answer_that_races_with_the_end_is_told_or_comes_too_late(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    for _ in range(4):
        world = World()
        async with (
            open_same_store() as store,
            an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
        ):
            run_id, [approval] = await waiting_run(engine, store, ann)
            await asyncio.gather(
                engine.decide(ann, approval.approval_id, YES),
                engine.cancel(ann, run_id, ""),
                return_exceptions=True,
            )
            events = await history_of(store, ann, run_id)
            kept = await store.for_user(ann).approvals.get(approval.approval_id)
        assert resolutions_of(events) == [kept.state.name]
        assert len(world.marks) <= (kept.state is ApprovalState.APPROVED)
