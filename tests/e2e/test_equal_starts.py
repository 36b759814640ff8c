"""One start that is sent a hundred times at once is one run, whichever rpc it comes by and whatever dies meanwhile."""

import asyncio
from contextlib import suppress

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on, watch
from parley.v1 import agent_service_pb2 as pb
from run_history import check_run
from server_process import ServerProcess

TIMES = 100
SPEC = run_spec("hello")


async def start(stubs: Stubs) -> str:
    request = pb.StartRunRequest(run=SPEC, request_id="same")
    return (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id


async def follow(stubs: Stubs) -> str:
    """Start by the other rpc, and leave."""
    call = stubs.agents.RunAgent(pb.RunAgentRequest(run=SPEC, request_id="same"), timeout=RPC_DEADLINE_S)
    async for response in call:
        return response.event.run_id
    raise AssertionError("the stream has no event")


async def answers_of(server: ServerProcess, *, until: float | None = None) -> list[str]:
    """Send them all at once, over several connections; kill the server meanwhile if that is wished."""
    channels = [
        grpc.aio.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
    ]
    stubs = [stubs_on(channel) for channel in channels]
    answers: list[str] = []

    async def ask(number: int) -> None:
        with suppress(grpc.aio.AioRpcError):
            answers.append(await (start if number % 2 else follow)(stubs[number % 4]))

    asking = asyncio.gather(*(ask(number) for number in range(TIMES)))
    if until is not None:
        await asyncio.sleep(until)
        server.kill()
    await asking
    for channel in channels:
        await channel.close()
    return answers


@pytest.mark.parametrize("until", [0.01, 0.05, 0.2])
async def test_a_hundred_equal_starts_are_one_run_also_across_a_kill(own_server: ServerProcess, until: float) -> None:
    before = await answers_of(own_server, until=until)
    own_server.start()
    after = await answers_of(own_server)
    assert len(after) == TIMES
    assert len({*before, *after}) == 1
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        stubs = stubs_on(channel)
        listed = await stubs.agents.ListRuns(pb.ListRunsRequest(), timeout=RPC_DEADLINE_S)
        assert [run.run_id for run in listed.runs] == [after[0]]
        check_run(await watch(stubs, after[0]))
