"""F12: a connection to PostgreSQL that falls silent. Nobody waits for ever; what was in doubt is known by its key."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import grpc
import pytest
from contract.storage.cutting_proxy import Cut
from e2e.conftest import run_spec, watch
from e2e.test_runs import reason_of
from e2e.test_store_faults import NOT_SERVING, SERVING, becomes, connected, create, exists
from faults.postgres_trouble import IMPATIENT, SHIPPED, becomes_active, behind_proxy, locked, serving
from parley.v1 import agent_service_pb2 as pb
from postgres_server import PostgresServer
from run_history import check_run
from server_process import ServerProcess

# What the server promises at most, whatever is silent.
LONGEST_WAIT_S = 10.0
START = pb.StartRunRequest(run=run_spec("What is 6 * 7?"), request_id="one")


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert (error.value.code(), reason_of(error.value)) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")


async def in_a_commit(postgres: PostgresServer, folder: Path, cut: Cut, program: tuple[str, ...]) -> None:
    async with (
        postgres.database() as url,
        behind_proxy(url, folder) as (proxy, proxied),
        serving(folder / "data", proxied, program) as server,
        connected(server) as (stubs, health),
    ):
        conversation_id = await create(stubs)
        proxy.cut = cut
        await refused(stubs.agents.StartRun(START, timeout=LONGEST_WAIT_S))
        read = pb.GetRunRequest(run_id="run_0")
        await refused(stubs.agents.GetRun(read, timeout=LONGEST_WAIT_S))
        await becomes(health, NOT_SERVING)
        proxy.speak_again()
        await becomes(health, SERVING)
        run = (await stubs.agents.StartRun(START, timeout=LONGEST_WAIT_S)).run
        check_run(await watch(stubs, run.run_id))
        listed = await stubs.agents.ListRuns(pb.ListRunsRequest(), timeout=LONGEST_WAIT_S)
        assert [each.run_id for each in listed.runs] == [run.run_id]
        assert await exists(stubs, conversation_id)
        # Beside this loop, which is another server's proxy.
        assert await asyncio.to_thread(server.stop) == 0


@pytest.mark.parametrize("program", [IMPATIENT, pytest.param(SHIPPED, marks=pytest.mark.soak)])
async def test_a_commit_without_an_answer_is_refused_in_time_and_resolved_by_its_key(
    postgres: PostgresServer, tmp_path: Path, program: tuple[str, ...]
) -> None:
    cuts = (Cut.SILENT_BEFORE, Cut.SILENT_AFTER)
    await asyncio.gather(*(in_a_commit(postgres, tmp_path / cut.name, cut, program) for cut in cuts))


async def all_readers_answer(server: ServerProcess, conversation_id: str) -> None:
    async with connected(server) as (stubs, _):
        assert all(await asyncio.gather(*(exists(stubs, conversation_id) for _ in range(50))))


async def test_queries_without_an_answer_are_refused_in_time(postgres: PostgresServer, tmp_path: Path) -> None:
    async with (
        postgres.database() as url,
        behind_proxy(url, tmp_path / "p") as (proxy, proxied),
        serving(tmp_path / "data", proxied, IMPATIENT) as server,
        connected(server) as (stubs, _),
    ):
        conversation_id = await create(stubs)
        await all_readers_answer(server, conversation_id)
        read = pb.GetRunRequest(run_id="run_0")
        async with locked(url, "runs"):
            calls = [stubs.agents.GetRun(read, timeout=LONGEST_WAIT_S) for _ in range(20)]
            asking = asyncio.gather(*(refused(call) for call in calls))
            await becomes_active(url)
            proxy.fall_silent()
        await asking
        proxy.speak_again()
        await all_readers_answer(server, conversation_id)
        assert server.stop() == 0
