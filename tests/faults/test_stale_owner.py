"""F31: a server that was stopped and taken over meanwhile wakes up. It writes nothing and ends with a clear line."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest
from e2e.conftest import run_spec, stubs_on, watch
from e2e.test_restart import LONG
from e2e.test_runs import start, until
from faults.postgres_trouble import serving
from parley.v1 import run_pb2
from postgres_server import PostgresServer, session_on
from run_history import check_run
from server_process import ServerProcess

TAKEN_OVER = 78
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'parley-%'"


async def contents(url: str) -> list[object]:
    """Return all that is written while a run works."""
    async with session_on(url) as session:
        return [
            *await session.fetch("SELECT run_id, fencing_token, attempt, state, last_seq FROM runs ORDER BY run_id"),
            *await session.fetch("SELECT journal_id, run_id, first_seq FROM run_journal ORDER BY journal_id"),
        ]


async def is_being_swept(url: str) -> bool:
    """Tell whether the new owner still has to remove what the archive has."""
    async with session_on(url) as session:
        return bool(await session.fetchval("SELECT count(*) FROM run_journal"))


async def woken(server: ServerProcess) -> int:
    server.signal(signal.SIGCONT)
    return await asyncio.to_thread(server.wait)


async def test_a_stale_owner_wakes_and_writes_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    async with postgres.database() as url, serving(tmp_path / "old", url) as old:
        async with grpc.aio.insecure_channel(old.address) as channel:
            stubs = stubs_on(channel)
            run = await start(stubs, run_spec(LONG))
            seen = await until(stubs, run.run_id, "text_delta")
            followed = asyncio.create_task(watch(stubs, run.run_id))
            old.signal(signal.SIGSTOP)
            async with session_on(url) as session:
                await session.execute(END_SESSIONS)
            async with serving(tmp_path / "new", url) as new:
                async with grpc.aio.insecure_channel(new.address) as other:
                    events = await watch(stubs_on(other), run.run_id)
                while await is_being_swept(url):  # noqa: ASYNC110  # what is awaited is in the database
                    await asyncio.sleep(0.1)
                before = await contents(url)
                assert await woken(old) == TAKEN_OVER
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await followed
                assert await contents(url) == before
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "database_taken_over" in old.log
        assert "another parley-server holds the database" in old.log
        check_run(events)
        assert seen in events
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_stopped_owner_of_a_directory_keeps_it(tmp_path: Path) -> None:
    old = ServerProcess(tmp_path / "data")
    second = ServerProcess(tmp_path / "data", log=tmp_path / "second.log")
    old.start()
    try:
        async with grpc.aio.insecure_channel(old.address) as channel:
            stubs = stubs_on(channel)
            run = await start(stubs, run_spec(LONG))
            old.signal(signal.SIGSTOP)
            with pytest.raises(AssertionError, match="another parley-server holds"):
                await asyncio.to_thread(second.start)
            old.signal(signal.SIGCONT)
            check_run(await watch(stubs, run.run_id))
    finally:
        old.kill()
