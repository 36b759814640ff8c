"""When the caller of RunAgent is gone under the policy CANCEL: which ends of a call count, and what undoes it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from parley.v1 import agent_service_pb2 as pb
from parley.v1 import run_pb2
from rpc.run_server import RunServer, run_server, wish

GRACE = timedelta(seconds=1)
DISCONNECTED = (run_pb2.RUN_STATE_CANCELLED, run_pb2.STOP_REASON_DISCONNECTED)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunServer]:
    async with run_server(tmp_path_factory.mktemp("disconnects"), GRACE) as running:
        yield running


def needy(text: str = "stall", request_id: str = "") -> pb.RunAgentRequest:
    spec = wish(text)
    spec.disconnect_policy = run_pb2.DISCONNECT_POLICY_CANCEL
    return pb.RunAgentRequest(run=spec, request_id=request_id)


Call = grpc.aio.UnaryStreamCall[pb.RunAgentRequest, pb.RunAgentResponse]


async def read_until_text(call: Call) -> str:
    """Read until the model has begun to answer; return the run."""
    async for response in call:
        if response.event.HasField("text_delta"):
            return response.event.run_id
    raise AssertionError("the stream ended without text")


async def end_of(server: RunServer, run_id: str) -> tuple[int, int]:
    run = await server.over(run_id)
    return run.state, run.stop_reason


async def test_a_caller_who_cancels_is_gone(server: RunServer) -> None:
    call = server.agents.RunAgent(needy(), timeout=30)
    run_id = await read_until_text(call)
    call.cancel()
    assert await end_of(server, run_id) == DISCONNECTED


async def test_a_caller_whose_deadline_passes_is_gone(server: RunServer) -> None:
    run_id = await read_until_text(server.agents.RunAgent(needy(), timeout=0.5))
    assert await end_of(server, run_id) == DISCONNECTED


async def test_a_caller_whose_connection_is_lost_is_gone(server: RunServer) -> None:
    channel, agents = await server.connect()
    run_id = await read_until_text(agents.RunAgent(needy(), timeout=30))
    await channel.close()
    assert await end_of(server, run_id) == DISCONNECTED


async def test_a_caller_who_leaves_while_the_run_is_accepted_is_gone(server: RunServer) -> None:
    known = {run.run_id for run in await runs_of(server)}
    calls = []
    for turn in range(30):
        call = server.agents.RunAgent(needy(), timeout=30)
        calls.append(call)
        await asyncio.sleep(turn * 0.0004)
        call.cancel()
    accepted = [run.run_id for run in await runs_of(server) if run.run_id not in known]
    assert {await end_of(server, run_id) for run_id in accepted} <= {DISCONNECTED}


async def runs_of(server: RunServer) -> list[run_pb2.Run]:
    return list((await server.agents.ListRuns(pb.ListRunsRequest(page_size=100), timeout=10)).runs)


@pytest.mark.parametrize("returns_by", ["WatchRun", "RunAgent"])
async def test_a_caller_who_returns_in_time_has_his_run(server: RunServer, returns_by: str) -> None:
    request = needy(request_id=f"returns by {returns_by}")
    call = server.agents.RunAgent(request, timeout=30)
    run_id = await read_until_text(call)
    call.cancel()
    await asyncio.sleep(GRACE.total_seconds() / 3)
    if returns_by == "WatchRun":
        again: object = server.agents.WatchRun(pb.WatchRunRequest(run_id=run_id), timeout=30)
    else:
        again = server.agents.RunAgent(request, timeout=30)
    await asyncio.sleep(GRACE.total_seconds() * 1.5)
    assert (await server.get(run_id)).state == run_pb2.RUN_STATE_RUNNING
    await server.cancel(run_id)
    assert await end_of(server, run_id) == (run_pb2.RUN_STATE_CANCELLED, run_pb2.STOP_REASON_CANCEL_REQUESTED)
    del again


async def test_who_came_back_before_the_loss_was_noticed_has_his_run(server: RunServer) -> None:
    call = server.agents.RunAgent(needy(), timeout=30)
    run_id = await read_until_text(call)
    watching = server.agents.WatchRun(pb.WatchRunRequest(run_id=run_id), timeout=30)
    await watching.read()
    call.cancel()
    await asyncio.sleep(GRACE.total_seconds() * 1.5)
    assert (await server.get(run_id)).state == run_pb2.RUN_STATE_RUNNING
    await server.cancel(run_id)


async def test_without_the_policy_nobody_need_be_there(server: RunServer) -> None:
    call = server.agents.RunAgent(pb.RunAgentRequest(run=wish("stall")), timeout=30)
    run_id = await read_until_text(call)
    call.cancel()
    await asyncio.sleep(GRACE.total_seconds() * 1.5)
    assert (await server.get(run_id)).state == run_pb2.RUN_STATE_RUNNING
    await server.cancel(run_id)


async def test_a_drain_is_no_disconnect(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("drained")
    async with run_server(folder, timedelta(0)) as stopping:
        run_id = await read_until_text(stopping.agents.RunAgent(needy(), timeout=30))
        stopping.drain.start()
        await asyncio.sleep(0.2)
    async with run_server(folder, timedelta(0)) as restarted:
        run = await restarted.get(run_id)
        assert run.state == run_pb2.RUN_STATE_RUNNING
