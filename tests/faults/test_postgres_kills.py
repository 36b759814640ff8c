"""F10: PostgreSQL dies under its clients, again and again. Nothing acknowledged is lost, nothing is there twice."""

import asyncio
import os
import random
import signal
from pathlib import Path

import asyncpg
import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, watch
from e2e.test_store_faults import connected
from faults.postgres_trouble import serving
from parley.v1 import agent_service_pb2 as pb
from postgres_server import PostgresServer, session_on
from run_history import check_run

CLIENTS = 32
PAUSE_S = 0.05
WRITING = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^parley-server [0-9a-f]{16}$'"
SPEC = run_spec("What is 6 * 7?")


async def start(stubs: Stubs, request_id: str) -> str:
    """Start a run, as often as it takes; every refusal is one that says to try again."""
    while True:
        try:
            request = pb.StartRunRequest(run=SPEC, request_id=request_id)
            return (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(PAUSE_S)


async def keep_starting(stubs: Stubs, client: int, over: asyncio.Event) -> dict[str, str]:
    started: dict[str, str] = {}
    while not over.is_set():
        request_id = f"{client}-{len(started)}"
        started[request_id] = await start(stubs, request_id)
        await asyncio.sleep(PAUSE_S)
    return started


async def kill(url: str) -> bool:
    """Kill the process of the session that writes: PostgreSQL ends all others then and recovers as from a crash."""
    try:
        async with session_on(url) as session:
            pid: int | None = await session.fetchval(WRITING)
            if pid is None:
                return False
            os.kill(pid, signal.SIGKILL)
            await session.execute("SELECT pg_sleep(10)")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    return False


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
async def test_a_database_that_dies_loses_and_doubles_nothing(
    postgres: PostgresServer, tmp_path: Path, kills: int
) -> None:
    chance, over = random.Random(10), asyncio.Event()
    async with (
        postgres.database() as url,
        serving(tmp_path / "data", url) as server,
        connected(server) as (stubs, _),
    ):
        starting = asyncio.gather(*(keep_starting(stubs, client, over) for client in range(CLIENTS)))
        for _ in range(kills):
            await asyncio.sleep(chance.random() * 0.5)
            while not await kill(url):  # noqa: ASYNC110  # the server has no session before it has another
                await asyncio.sleep(PAUSE_S)
        over.set()
        started = {key: run_id for each in await starting for key, run_id in each.items()}
        assert len(set(started.values())) == len(started)
        for histories in await asyncio.gather(*(watch(stubs, run_id) for run_id in started.values())):
            check_run(histories)
        async with session_on(url) as session:
            stored = {row["run_id"] for row in await session.fetch("SELECT run_id FROM runs")}
        assert stored == set(started.values())
        some = chance.sample(sorted(started), min(20, len(started)))
        assert [await start(stubs, key) for key in some] == [started[key] for key in some]
