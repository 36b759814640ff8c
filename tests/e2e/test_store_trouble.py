"""A store or a log that cannot be written: nothing untrue is told, and the server comes back or goes cleanly."""

import asyncio
import contextlib
import random
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, run_agent, run_spec, stubs_on, watch
from e2e.test_runs import cancel, get, reason_of, start, until
from faults.postgres_trouble import IMPATIENT, SHIPPED
from parley.v1 import agent_service_pb2, run_pb2
from run_history import check_run, text_of
from server_process import ServerProcess

LONG = "Tell me a story"


@pytest.fixture
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server a test may kill; the shipped one unless it names another program."""
    server = ServerProcess(tmp_path / "data", program=getattr(request, "param", SHIPPED))
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.kill()


def silent_spec() -> run_pb2.RunSpec:
    """Ask a model that says a word and then nothing: the run goes on until it is stopped, however long that takes."""
    spec = run_spec(LONG)
    spec.model_options.model = "offline-stall"
    return spec


@contextlib.contextmanager
def locked(server: ServerProcess) -> Iterator[None]:
    """Keep the server from writing, as another process's transaction would."""
    blocker = sqlite3.connect(server.data_dir / "parley.db", isolation_level=None, timeout=10)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()


async def test_no_cancel_is_confirmed_before_it_is_durable(own_server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        stubs = stubs_on(channel)
        run = await start(stubs, silent_spec())
        await until(stubs, run.run_id, "text_delta")
        with locked(own_server):
            cancels = [asyncio.create_task(cancel(stubs, run.run_id)) for _ in range(3)]
            await asyncio.sleep(0.5)
            assert not any(each.done() for each in cancels)
        states = {(await each).state for each in cancels}
        assert states <= {run_pb2.RUN_STATE_CANCELLING, run_pb2.RUN_STATE_CANCELLED}
        events = await watch(stubs, run.run_id)
        check_run(events)
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED


async def test_a_cancel_that_could_not_be_stored_can_be_asked_again(own_server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        stubs = stubs_on(channel)
        run = await start(stubs, silent_spec())
        await until(stubs, run.run_id, "text_delta")
        with locked(own_server), pytest.raises(grpc.aio.AioRpcError) as refused:
            await cancel(stubs, run.run_id)
        assert (refused.value.code(), reason_of(refused.value)) == (
            grpc.StatusCode.UNAVAILABLE,
            "STORAGE_UNAVAILABLE",
        )
        assert (await cancel(stubs, run.run_id)).state != run_pb2.RUN_STATE_RUNNING
        events = await watch(stubs, run.run_id)
        check_run(events)
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED


async def test_a_cancelling_run_ends_cancelled_whenever_the_cancel_comes(own_server: ServerProcess) -> None:
    chance = random.Random(7)
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        stubs = stubs_on(channel)

        async def one() -> None:
            run = await start(stubs, run_spec("What is 2 + 2?"))
            await asyncio.sleep(chance.random() * 0.03)
            answered = (await cancel(stubs, run.run_id)).state
            events = await watch(stubs, run.run_id)
            check_run(events)
            end = events[-1].run_finished.state
            assert answered in (run_pb2.RUN_STATE_CANCELLING, end), (answered, end)
            if answered == run_pb2.RUN_STATE_CANCELLING:
                assert end == run_pb2.RUN_STATE_CANCELLED

        for _ in range(5):
            await asyncio.gather(*(one() for _ in range(20)))


@pytest.mark.parametrize("own_server", [IMPATIENT, pytest.param(SHIPPED, marks=pytest.mark.soak)], indirect=True)
async def test_a_stop_does_not_wait_for_a_store_that_cannot_be_written(own_server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        stubs = stubs_on(channel)
        run = await start(stubs, run_spec(LONG))
        seen = await until(stubs, run.run_id, "text_delta")
        with locked(own_server):
            # Its end cannot be written while the stop waits for it.
            cancelling = asyncio.create_task(cancel(stubs, run.run_id))
            await asyncio.sleep(0.2)
            own_server.signal(signal.SIGTERM)
            assert await asyncio.to_thread(own_server.wait, 60.0) == 0
        with contextlib.suppress(grpc.aio.AioRpcError):
            await cancelling
    own_server.start()
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        events = await watch(stubs_on(channel), run.run_id)
        check_run(events)
        assert seen in events


async def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", log=Path("/dev/full"))
    server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stubs = stubs_on(channel)
            assert "391" in text_of(await run_agent(stubs, run_spec("What is 17 * 23?")))
            run = await start(stubs, run_spec(LONG))
            await cancel(stubs, run.run_id)
            assert (await get(stubs, run.run_id)).state != run_pb2.RUN_STATE_RUNNING
            request = agent_service_pb2.GetRunRequest(run_id="absent")
            with pytest.raises(grpc.aio.AioRpcError):
                await stubs.agents.GetRun(request, timeout=RPC_DEADLINE_S)
        assert server.stop() == 0
    finally:
        if server.is_running:
            server.kill()
