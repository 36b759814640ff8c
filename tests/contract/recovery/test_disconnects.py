"""A run whose caller is gone, on every engine: it has a grace, which the store keeps, and ends when nobody returns."""

import asyncio
from datetime import UTC, datetime, timedelta

from contract.recovery.recovering import an_engine, history_of
from contract.recovery.talking_model import TalkingModel
from contract.recovery.test_interrupting import SUCCEEDED, end_of
from contract.recovery.test_steering import told
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_repositories import spec
from parley.v1 import run_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.run import DisconnectPolicy, RunSpec
from parley_server.runs.engine import RunEngine
from parley_server.runs.presence import Attendance

SHORT = timedelta(milliseconds=100)
LONG = timedelta(hours=1)
DISCONNECTED = (run_pb2.RUN_STATE_CANCELLED, run_pb2.STOP_REASON_DISCONNECTED)
NEEDY: RunSpec = spec("a", disconnect_policy=DisconnectPolicy.CANCEL)


async def followed_run(
    engine: RunEngine, ann: RequestContext, model: TalkingModel, wish: RunSpec = NEEDY
) -> tuple[str, str, Attendance]:
    """Start a run as RunAgent does and wait until its model has begun to answer."""
    run = await engine.start(ann, wish, None)
    attendance = await engine.attend(ann, run.run_id, is_caller=True)
    await model.questions(1)
    return run.run_id, run.conversation_id, attendance


async def grace_of(engine: Engine) -> int | None:
    [(end_time,)] = await engine.rows("SELECT grace_end_time FROM runs")
    assert end_time is None or isinstance(end_time, int)
    return end_time


async def stored_grace(engine: Engine, *, is_running: bool) -> None:
    """Wait until the store knows of a grace, or of none."""
    async with asyncio.timeout(10):
        while (await grace_of(engine) is not None) is not is_running:  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0.005)


async def test_a_run_whose_caller_does_not_return_is_cancelled(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=SHORT) as runs:
        run_id, conversation_id, attendance = await followed_run(runs, ann, model)
        attendance.leave(is_lost=True)
        events = await history_of(store, ann, run_id)
        assert await told(store, ann, conversation_id) == ["user: a", "assistant: On ..."]
    assert end_of(events) == DISCONNECTED


async def test_who_returns_ends_the_grace_and_may_leave_again(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext, bob: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=LONG) as runs:
        run_id, _, attendance = await followed_run(runs, ann, model)
        attendance.leave(is_lost=True)
        await stored_grace(engine, is_running=True)
        await runs.attend(bob, run_id, is_caller=False)
        assert await grace_of(engine) is not None
        watching = await runs.attend(ann, run_id, is_caller=False)
        assert await grace_of(engine) is None
        watching.leave(is_lost=True)
        model.may_end.set()
        assert end_of(await history_of(store, ann, run_id)) == SUCCEEDED
        assert await grace_of(engine) is None


async def test_the_same_call_again_may_be_lost_again(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=SHORT * 10) as runs:
        run_id, _, attendance = await followed_run(runs, ann, model)
        attendance.leave(is_lost=True)
        await stored_grace(engine, is_running=True)
        again = await runs.attend(ann, run_id, is_caller=True)
        again.leave(is_lost=True)
        assert end_of(await history_of(store, ann, run_id)) == DISCONNECTED


async def test_who_is_there_already_counts_as_returned(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=timedelta(0)) as runs:
        run_id, _, attendance = await followed_run(runs, ann, model)
        watching = await runs.attend(ann, run_id, is_caller=False)
        attendance.leave(is_lost=True)
        watching.leave(is_lost=True)
        model.may_end.set()
        assert end_of(await history_of(store, ann, run_id)) == SUCCEEDED


async def test_neither_the_servers_end_of_a_call_nor_another_policy_cancels(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    for wish, is_lost in ((NEEDY, False), (spec("a"), True)):
        model = TalkingModel()
        async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=timedelta(0)) as runs:
            run_id, _, attendance = await followed_run(runs, ann, model, wish)
            attendance.leave(is_lost=is_lost)
            await asyncio.sleep(0.05)
            model.may_end.set()
            assert end_of(await history_of(store, ann, run_id)) == SUCCEEDED


async def test_a_run_that_waits_is_cancelled_too(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=SHORT) as runs:
        first, conversation_id, _ = await followed_run(runs, ann, model)
        wish = spec("b", conversation_id, disconnect_policy=DisconnectPolicy.CANCEL)
        waiting = await runs.start(ann, wish, None)
        (await runs.attend(ann, waiting.run_id, is_caller=True)).leave(is_lost=True)
        assert end_of(await history_of(store, ann, waiting.run_id)) == DISCONNECTED
        model.may_end.set()
        assert end_of(await history_of(store, ann, first)) == SUCCEEDED


async def test_a_grace_that_was_running_goes_on_after_a_restart(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=timedelta(seconds=3)) as runs:
        run_id, _, attendance = await followed_run(runs, ann, model)
        attendance.leave(is_lost=True)
        await stored_grace(engine, is_running=True)
    end_time = await grace_of(engine)
    assert end_time is not None
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=LONG) as runs:
        await runs.recover()
        events = await history_of(store, ann, run_id)
    assert end_of(events) == DISCONNECTED
    assert events[-1].attempt == 2
    assert events[-1].emit_time.ToDatetime(UTC) >= datetime.fromtimestamp(end_time / 1e6, UTC)


async def test_a_grace_that_passed_while_nobody_was_there_ends_the_run_without_another_attempt(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=timedelta(seconds=1)) as runs:
        run_id, _, attendance = await followed_run(runs, ann, model)
        attendance.leave(is_lost=True)
        await stored_grace(engine, is_running=True)
    await asyncio.sleep(1.1)
    async with open_same_store() as store, an_engine(store, model, []) as runs:
        await runs.recover()
        events = await history_of(store, ann, run_id)
    assert end_of(events) == DISCONNECTED
    assert events[-1].attempt == 1


async def test_a_restart_begins_no_grace(open_same_store: OpenStore, ann: RequestContext) -> None:
    model = TalkingModel()
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=timedelta(0)) as runs:
        run_id, _, _ = await followed_run(runs, ann, model)
    model = TalkingModel(waits=False)
    async with open_same_store() as store, an_engine(store, model, [], disconnect_grace=timedelta(0)) as runs:
        await runs.recover()
        assert end_of(await history_of(store, ann, run_id)) == SUCCEEDED
