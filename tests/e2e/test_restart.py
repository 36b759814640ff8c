"""What survives when the server dies: nothing a client saw is taken back, and every accepted run ends once."""

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on, watch
from e2e.test_runs import reason_of
from parley.v1 import agent_service_pb2, run_event_pb2, run_pb2
from postgres_server import PostgresServer
from run_history import check_run, text_of
from server_process import ServerProcess, running_server

# Two seconds: enough to be cut in, and not much to wait for.
LONG = "Please count to 50"


@pytest.fixture(params=["sqlite", "postgres"])
async def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server a test may kill, on either store."""
    async with AsyncExitStack() as stack:
        environment: dict[str, str] = {}
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            environment["PARLEY_STORAGE__URL"] = await stack.enter_async_context(postgres.database())
        yield stack.enter_context(running_server(tmp_path / "data", environment=environment))


def channel_to(server: ServerProcess) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(server.address, options=[("grpc.max_reconnect_backoff_ms", 200)])


async def read_some(stubs: Stubs, request_id: str, deltas: int) -> list[run_event_pb2.RunEvent]:
    """Start a long run and read until it has said a little."""
    request = agent_service_pb2.RunAgentRequest(run=run_spec(LONG), request_id=request_id)
    call = stubs.agents.RunAgent(request, timeout=RPC_DEADLINE_S)
    seen: list[run_event_pb2.RunEvent] = []
    async for response in call:
        seen.append(response.event)
        if sum(event.HasField("text_delta") for event in seen) == deltas:
            break
    return seen


async def read_until_stopped(
    server: ServerProcess,
    call: grpc.aio.UnaryStreamCall[agent_service_pb2.RunAgentRequest, agent_service_pb2.RunAgentResponse],
    seen: list[run_event_pb2.RunEvent],
) -> None:
    """Read a stream to its end, stopping the server at the first text."""
    async for response in call:
        if response.event.HasField("text_delta") and not any(event.HasField("text_delta") for event in seen):
            server.signal(signal.SIGTERM)
        seen.append(response.event)


async def test_after_a_kill_the_run_goes_on_by_itself_and_what_was_seen_stands(own_server: ServerProcess) -> None:
    async with channel_to(own_server) as channel:
        seen = await read_some(stubs_on(channel), "r1", 5)
        own_server.kill()
    own_server.start()
    async with channel_to(own_server) as channel:
        stubs = stubs_on(channel)
        events = await watch(stubs, seen[0].run_id)
        check_run(events)
        assert events[: len(seen)] == seen
        end = events[-1].run_finished
        assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED)
        [restarted] = [event.attempt_restarted for event in events if event.HasField("attempt_restarted")]
        assert (restarted.attempt, restarted.reason) == (2, "SERVER_RESTARTED")
        assert list(restarted.discarded_item_ids) == [next(event.item_id for event in seen if event.item_id)]
        [whole] = [event.message_completed for event in events if event.HasField("message_completed")]
        assert not whole.incomplete
        assert whole.text == text_of(events)
        run = (await stubs.agents.GetRun(agent_service_pb2.GetRunRequest(run_id=seen[0].run_id))).run
        assert (run.attempt, run.output_text) == (2, whole.text)
        assert await run_agent(stubs, run_spec(LONG), "r1") == events
        goes_on = await run_agent(stubs, run_spec("What is 6 * 7?", seen[0].conversation_id))
        assert "42" in text_of(goes_on)


async def test_a_start_that_fails_costs_a_cut_run_no_attempt(own_server: ServerProcess) -> None:
    async with channel_to(own_server) as channel:
        run_id = (await read_some(stubs_on(channel), "", 2))[0].run_id
        own_server.kill()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for listen in (f"127.0.0.1:{port}", "0.0.0.0:0"):
            failing = ServerProcess(own_server.data_dir, ["--listen", listen], own_server.environment)
            with pytest.raises(AssertionError, match="the server ended"):
                failing.start()
    own_server.start()
    async with channel_to(own_server) as channel:
        events = await watch(stubs_on(channel), run_id)
        assert [event.attempt_restarted.attempt for event in events if event.HasField("attempt_restarted")] == [2]


async def test_a_waiting_run_goes_on_after_a_kill(own_server: ServerProcess) -> None:
    async with channel_to(own_server) as channel:
        stubs = stubs_on(channel)
        seen = await read_some(stubs, "", 2)
        request = agent_service_pb2.StartRunRequest(run=run_spec("What is 6 * 7?", seen[0].conversation_id))
        waiting = (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run
        own_server.kill()
    own_server.start()
    async with channel_to(own_server) as channel:
        events = await watch(stubs_on(channel), waiting.run_id)
        check_run(events)
        assert "42" in text_of(events)


async def test_a_cancel_that_was_accepted_is_honoured_after_a_kill(own_server: ServerProcess) -> None:
    async with channel_to(own_server) as channel:
        stubs = stubs_on(channel)
        run_id = (await read_some(stubs, "", 2))[0].run_id
        await stubs.agents.CancelRun(agent_service_pb2.CancelRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
        own_server.kill()
    own_server.start()
    async with channel_to(own_server) as channel:
        events = await watch(stubs_on(channel), run_id)
        check_run(events)
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED


async def test_a_stop_ends_streams_at_an_event_boundary_and_parks_the_runs(own_server: ServerProcess) -> None:
    async with channel_to(own_server) as channel:
        request = agent_service_pb2.RunAgentRequest(run=run_spec(LONG))
        call = stubs_on(channel).agents.RunAgent(request, timeout=RPC_DEADLINE_S)
        seen: list[run_event_pb2.RunEvent] = []
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read_until_stopped(own_server, call, seen)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reason_of(ended.value) == "SERVER_DRAINING"
        assert await asyncio.to_thread(own_server.wait) == 0
    check_run(seen, finished=False)
    own_server.start()
    async with channel_to(own_server) as channel:
        events = await watch(stubs_on(channel), seen[0].run_id)
        check_run(events)
        assert events[: len(seen)] == seen


async def test_a_second_server_on_the_data_is_refused_and_told_where_the_first_one_listens(
    own_server: ServerProcess,
) -> None:
    second = ServerProcess(own_server.data_dir)
    with pytest.raises(AssertionError, match=re.escape(own_server.address)) as refused:
        second.start()
    assert "Traceback" not in str(refused.value)
    assert second.wait() != 0
