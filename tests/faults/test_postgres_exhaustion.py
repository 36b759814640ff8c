"""F13: more reads than PostgreSQL answers. Who gets no session is told to come back, and no session is lost."""

import asyncio
import random
from contextlib import suppress
from itertools import islice
from pathlib import Path

import grpc
from e2e.conftest import RPC_DEADLINE_S, stubs_on
from e2e.test_store_faults import connected, create, exists
from faults.postgres_trouble import IMPATIENT, locked, serving, states_of_sessions
from google.rpc import error_details_pb2
from parley.v1 import agent_service_pb2 as pb
from parley_server.storage.sql.postgres import READERS, PostgresDatabase
from postgres_server import PostgresServer
from rpc.chassis import failure_of
from sqlalchemy import text

CLIENTS, CANCELS = 200, 400
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
ABSENT = pb.GetRunRequest(run_id="run_0")


async def test_who_gets_no_reader_in_time_is_told_when_to_come_back(postgres: PostgresServer, tmp_path: Path) -> None:
    async with (
        postgres.database() as url,
        serving(tmp_path / "data", url, IMPATIENT) as server,
        connected(server) as (stubs, _),
    ):
        async with locked(url, "runs"):
            calls = [stubs.agents.GetRun(ABSENT, timeout=RPC_DEADLINE_S) for _ in range(CLIENTS)]
            asking = asyncio.gather(*calls, return_exceptions=True)
            # All but those who have a reader, which waits for the lock.
            for answered in islice(asyncio.as_completed(map(asyncio.ensure_future, calls)), CLIENTS - READERS):
                with suppress(grpc.aio.AioRpcError):
                    await answered
        errors = [error for error in await asking if isinstance(error, grpc.aio.AioRpcError)]
        assert len(errors) == CLIENTS
        away = [error for error in errors if error.code() == grpc.StatusCode.UNAVAILABLE]
        assert len(away) >= CLIENTS - READERS
        for failure in map(failure_of, away):
            retry = failure.details["RetryInfo"]
            assert isinstance(retry, error_details_pb2.RetryInfo)
            assert failure.reason == "STORAGE_UNAVAILABLE"
            assert retry.retry_delay.ToMilliseconds() == int(failure.trailers["grpc-retry-pushback-ms"]) > 0
        assert await exists(stubs, await create(stubs))


async def test_callers_who_leave_while_they_wait_take_no_session_with_them(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    chance = random.Random(13)
    async with (
        postgres.database() as url,
        serving(tmp_path / "data", url) as server,
        connected(server) as (stubs, _),
    ):

        async def leave() -> None:
            call = stubs.agents.GetRun(ABSENT, timeout=RPC_DEADLINE_S)
            await asyncio.sleep(chance.random() * 0.3)
            call.cancel()
            with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await call

        async with locked(url, "runs"):
            await asyncio.gather(*(leave() for _ in range(CANCELS // 2)))
        await asyncio.gather(*(leave() for _ in range(CANCELS // 2)))
        # The calls that were left may still be streams of their connection, which has no room for more then.
        async with grpc.aio.insecure_channel(server.address, options=OWN_CONNECTION) as channel:
            others = stubs_on(channel)
            made = await create(others)
            assert all(await asyncio.gather(*(exists(others, made) for _ in range(50))))
        async with asyncio.timeout(RPC_DEADLINE_S):
            # A statement that was left is ended by a message of its own.
            while set(states := await states_of_sessions(url)) != {"idle"}:  # noqa: ASYNC110  # it is in the database
                await asyncio.sleep(0.05)
        assert len(states) <= 1 + READERS


async def test_two_readers_serve_two_hundred_callers_of_whom_many_leave(postgres: PostgresServer) -> None:
    chance = random.Random(31)
    slow, own = text("SELECT pg_sleep(0.002)"), text("SELECT pg_backend_pid() AS pid")
    async with postgres.database() as url, PostgresDatabase(url, readers=2) as database:

        async def read() -> bool:
            reading = asyncio.ensure_future(database.fetch(slow))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.2)
                reading.cancel()
            await asyncio.wait([reading])
            return reading.cancelled() or bool(reading.result())

        assert all(await asyncio.gather(*(read() for _ in range(CLIENTS))))
        rows = [row for rows in await asyncio.gather(*(database.fetch(own) for _ in range(CLIENTS))) for row in rows]
        assert len(rows) == CLIENTS
        assert len({row["pid"] for row in rows}) <= 2
