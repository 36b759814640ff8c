"""A run that is stopped while a WRITE is under way, on every engine: by its user, its deadline or the server's end."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.run import Limits, RunState
from parley_server.domain.tool import ToolEffect
from parley_server.llm.model_service import ModelChunk, ModelRequest
from parley_server.runs import engine as engine_module
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.store import SqlStore
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.agents.scripted_model import say
from unit.tools.made_tools import made_tool

STEPS = [calls(("book", 1), ("read", 2)), say("Booked.")]


class Booking:
    """A WRITE that ends in its own time after it was told to stop, beside a READ that never ends."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.told = asyncio.Event()
        self.may_end = asyncio.Event()
        self.times = 0

    def tools(self) -> list[Tool]:
        return [made_tool("book", self._book, effect=ToolEffect.WRITE), made_tool("read", self._read)]

    async def _book(self, context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG002
        self.begun.set()
        await context.cancelled.wait()
        self.told.set()
        await self.may_end.wait()
        self.times += 1
        return "booked"

    async def _read(self, context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG002
        if self.told.is_set():
            return "read"
        await asyncio.Event().wait()
        return None


async def begun_run(
    engine: RunEngine, ann: RequestContext, booking: Booking, deadline: timedelta = timedelta(minutes=10)
) -> str:
    run = await engine.start(ann, spec(limits=Limits(deadline=deadline)), None)
    async with asyncio.timeout(10):
        await booking.begun.wait()
    return run.run_id


async def state_of(store: SqlStore, ann: RequestContext, run_id: str) -> RunState:
    return (await store.for_user(ann).runs.get(run_id)).state


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_cancelled_run_waits_for_its_write(
    cancels: int, open_same_store: OpenStore, ann: RequestContext
) -> None:
    booking = Booking()
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
        run_id = await begun_run(engine, ann, booking)
        for _ in range(cancels):
            await engine.cancel(ann, run_id, "")
        await booking.told.wait()
        assert await state_of(store, ann, run_id) is RunState.CANCELLING
        booking.may_end.set()
        events = await history_of(store, ann, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED
    assert statuses_of(events) == {("book", 1): "OK", ("read", 2): "CANCELLED"}


async def test_a_run_whose_deadline_passes_waits_for_its_write(open_same_store: OpenStore, ann: RequestContext) -> None:
    booking = Booking()
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
        run_id = await begun_run(engine, ann, booking, timedelta(seconds=2))
        await booking.told.wait()
        booking.may_end.set()
        events = await history_of(store, ann, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_EXPIRED
    assert statuses_of(events) == {("book", 1): "OK", ("read", 2): "CANCELLED"}


async def test_a_cancel_after_the_deadline_leaves_the_write_its_time(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    booking = Booking()
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
        run_id = await begun_run(engine, ann, booking, timedelta(seconds=2))
        await booking.told.wait()
        await engine.cancel(ann, run_id, "")
        booking.may_end.set()
        events = await history_of(store, ann, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED
    assert statuses_of(events)["book", 1] == "OK"


async def test_a_parked_run_has_its_writes_result_and_goes_on_without_a_second_effect(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    booking = Booking()
    async with open_same_store() as store:
        async with an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
            run_id = await begun_run(engine, ann, booking)
            parking = asyncio.create_task(engine.park())
            await booking.told.wait()
            booking.may_end.set()
            await parking
        assert await state_of(store, ann, run_id) is RunState.RUNNING
    async with open_same_store() as store, an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
        await engine.recover()
        events = await history_of(store, ann, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert statuses_of(events) == {("book", 1): "OK", ("read", 2): "OK"}
    assert booking.times == 1


async def test_a_run_that_is_cancelled_while_it_is_parked_ends_cancelled(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    booking = Booking()
    async with open_same_store() as store:
        async with an_engine(store, RememberingModel(STEPS), booking.tools()) as engine:
            run_id = await begun_run(engine, ann, booking)
            parking = asyncio.create_task(engine.park())
            await booking.told.wait()
            await engine.cancel(ann, run_id, "")
            booking.may_end.set()
            await parking
        events = await history_of(store, ann, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED
    assert statuses_of(events)["book", 1] == "OK"


class StubbornModel(RememberingModel):
    """A model that says nothing, and stops only at the last of so many cancels."""

    def __init__(self, cancels: int) -> None:
        super().__init__(STEPS)
        self.asked = asyncio.Event()
        self.cancels = cancels

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        self.asked.set()
        while self.cancels > 0:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancels -= 1
                if self.cancels < 1:
                    raise
        async for chunk in super().stream(context, request):
            yield chunk


async def test_a_run_that_swallows_its_cancels_is_parked_and_goes_on_at_the_next_start(
    open_same_store: OpenStore, ann: RequestContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PARK_S", 0.1)
    monkeypatch.setattr(engine_module, "PARK_AGAIN_S", 0.05)
    # One when it is asked to stop, one when its time is over, and two more.
    model = StubbornModel(4)
    async with open_same_store() as store:
        try:
            async with asyncio.timeout(20), an_engine(store, model, []) as engine:
                run_id = (await engine.start(ann, spec(), None)).run_id
                await model.asked.wait()
            assert model.cancels == 0
        finally:
            model.cancels = 0
        assert await state_of(store, ann, run_id) is RunState.RUNNING
    async with open_same_store() as store, an_engine(store, RememberingModel([say("Here.")]), []) as engine:
        await engine.recover()
        events = await history_of(store, ann, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
