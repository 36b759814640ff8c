"""A user is erased whatever happens to the server meanwhile, and then no byte of his is in its files."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from contract.storage.conftest import context_for
from contract.storage.full_user import fill
from contract.storage.test_erasures import occurrences
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on
from e2e.test_runs import reason_of
from parley.v1 import account_service_pb2 as pb
from parley.v1 import agent_service_pb2
from parley.v1.account_service_pb2_grpc import AccountServiceStub
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.postgres import PostgresDatabase
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from postgres_server import PostgresServer, session_on
from server_process import ServerProcess, running_server

CANARY = "canary7f3a"
HIS = "harbour4711"


@dataclass(frozen=True)
class World:
    """A server that may be killed, with two users in its store; `me` is whom it takes a local caller for."""

    server: ServerProcess
    url: str
    me: str

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.server.address, options=[("grpc.max_reconnect_backoff_ms", 200)])

    async def bytes_of(self, word: str, postgres: PostgresServer | None) -> dict[str, int]:
        """Count a word in all files of the server and of its database."""
        counts = occurrences(self.server.data_dir, word)
        if postgres is not None:
            async with session_on(self.url) as session:
                await session.execute("CHECKPOINT")
                oid = await session.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()")
            counts |= occurrences(postgres.data / "base" / str(oid), word)
        return counts


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        url, environment = "", dict[str, str]()
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            url = environment["PARLEY_STORAGE__URL"] = await stack.enter_async_context(postgres.database())
        server = stack.enter_context(running_server(tmp_path / "data", environment=environment))
        async with grpc.aio.insecure_channel(server.address) as channel:
            got = await AccountServiceStub(channel).GetAccount(pb.GetAccountRequest(), timeout=RPC_DEADLINE_S)
        server.stop()
        database: PostgresDatabase | SqliteDatabase = (
            PostgresDatabase(url) if url else SqliteDatabase(tmp_path / "data" / "parley.db")
        )
        async with database as opened:
            await _fill(opened, got.account.user_id)
        server.start()
        yield World(server, url, got.account.user_id)


async def _fill(database: Database, me: str) -> None:
    async with open_store(database, ProtoEventCodec(), b"k") as store:
        await asyncio.gather(
            fill(store, context_for("zoe"), HIS, conversations=3), fill(store, context_for(me), CANARY, 10)
        )


async def erase(world: World) -> pb.ErasureState.ValueType:
    async with world.channel() as channel:
        request = pb.EraseAccountRequest(user_id=world.me, confirmation=world.me)
        return (await AccountServiceStub(channel).EraseAccount(request, timeout=RPC_DEADLINE_S)).state


async def until_erased(world: World) -> None:
    """Wait until the server lets the user in again, which it does by itself."""
    async with world.channel() as channel, asyncio.timeout(RPC_DEADLINE_S):
        while await _refusal(channel) == "ACCOUNT_ERASING":  # noqa: ASYNC110  # nothing tells when it is over
            await asyncio.sleep(0.05)
        assert await _refusal(channel) == ""


async def _refusal(channel: grpc.aio.Channel) -> str:
    """Ask for the account; return why that is refused, empty where it is not."""
    call = AccountServiceStub(channel).GetAccount(pb.GetAccountRequest(), timeout=RPC_DEADLINE_S, wait_for_ready=True)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


async def long_run(stubs: Stubs) -> str:
    """Start a run that lasts, with the word in it, and return its id."""
    request = agent_service_pb2.StartRunRequest(run=run_spec(f"Please count to 50 {CANARY}"))
    return (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id


async def test_killed_again_and_again_it_ends_and_nothing_is_left(world: World, request: pytest.FixtureRequest) -> None:
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if world.url else None
    assert sum((await world.bytes_of(CANARY, postgres)).values()) > 500
    async with world.channel() as channel:
        stubs = stubs_on(channel)
        await run_agent(stubs, run_spec(f"What is 6 * 7? {CANARY}"))
        run_id = await long_run(stubs)
    chance = random.Random(5)  # no secret
    for _ in range(3):
        asked = asyncio.create_task(erase(world))
        await asyncio.sleep(chance.uniform(0.05, 0.4))
        world.server.kill()
        await asyncio.gather(asked, return_exceptions=True)
        world.server.start()
    await until_erased(world)
    assert await erase(world) == pb.ERASURE_STATE_ERASED
    async with world.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await stubs_on(channel).agents.GetRun(agent_service_pb2.GetRunRequest(run_id=run_id))
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND
        exported = AccountServiceStub(channel).ExportAccount(pb.ExportAccountRequest(), timeout=RPC_DEADLINE_S)
        assert "".join([each.json_lines async for each in exported]).count("\n") == 1
    assert await world.bytes_of(CANARY, postgres) == {}
    assert sum((await world.bytes_of(HIS, postgres)).values()) > 200
