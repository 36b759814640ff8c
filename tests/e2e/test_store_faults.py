"""What the disk does to the database: refused in words, told by health, over without a restart where that can be."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on
from e2e.test_runs import reason_of
from e2e.test_store_trouble import locked
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # its stubs lack List
from parley.v1 import conversation_service_pb2
from run_history import check_run
from server_process import ServerProcess, running_server

PATIENCE_S = 30.0
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.asynccontextmanager
async def connected(server: ServerProcess) -> AsyncIterator[tuple[Stubs, "health_pb2_grpc.HealthStub"]]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield stubs_on(channel), health_pb2_grpc.HealthStub(channel)


async def becomes(health: "health_pb2_grpc.HealthStub", state: int) -> None:
    """Wait for a state of the whole server."""
    deadline = time.monotonic() + PATIENCE_S
    while (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status != state:
        assert time.monotonic() < deadline, "health does not follow the store"
        await asyncio.sleep(0.1)


async def create(stubs: Stubs, title: str = "") -> str:
    request = conversation_service_pb2.CreateConversationRequest(title=title)
    made = await stubs.conversations.CreateConversation(request, timeout=RPC_DEADLINE_S)
    return made.conversation.conversation_id


async def exists(stubs: Stubs, conversation_id: str) -> bool:
    request = conversation_service_pb2.GetConversationRequest(conversation_id=conversation_id)
    return bool((await stubs.conversations.GetConversation(request, timeout=RPC_DEADLINE_S)).conversation.etag)


async def refused(stubs: Stubs) -> None:
    """See that a write is refused, by the reason for it."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await create(stubs)
    assert (error.value.code(), reason_of(error.value)) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")


@pytest.mark.parametrize("name", ["parley.db", "parley.db-wal"])
async def test_a_file_that_is_taken_away_takes_nothing_acknowledged_with_it(
    own_server: ServerProcess, tmp_path: Path, name: str
) -> None:
    file, aside = own_server.data_dir / name, tmp_path / "aside"
    async with connected(own_server) as (stubs, health):
        kept = [await create(stubs)]
        file.rename(aside)
        await refused(stubs)
        await becomes(health, NOT_SERVING)
        assert await exists(stubs, kept[0])
        aside.rename(file)
        await becomes(health, SERVING)
        kept.append(await create(stubs))
        check_run(await run_agent(stubs, run_spec("What is 2 + 2?")))
    own_server.kill()
    own_server.start()
    async with connected(own_server) as (stubs, _):
        for conversation_id in kept:
            assert await exists(stubs, conversation_id)


async def test_a_database_another_process_holds_is_told_by_health_and_comes_back(own_server: ServerProcess) -> None:
    async with connected(own_server) as (stubs, health):
        with locked(own_server):
            await refused(stubs)
            await becomes(health, NOT_SERVING)
        await becomes(health, SERVING)
        await create(stubs)


def served(data_dir: Path, *, files: int = 1024) -> subprocess.CompletedProcess[str]:
    """Try to serve, under a limit of open files; return how that ended."""
    command = [sys.executable, "-m", "parley_server", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    return subprocess.run(
        ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=data_dir,
    )


def test_what_cannot_be_the_database_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "folder" / "parley.db").mkdir(parents=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "parley.db").write_bytes(b"no database at all" * 1000)
    told = {"folder": "cannot be used as the database", "damaged": "`db restore` brings a backup back"}
    for name, words in told.items():
        ended = served(tmp_path / name)
        assert ended.returncode == 78, ended.stderr
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to everything")
def test_a_database_that_may_not_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "parley.db").touch(mode=0o400)
    ended = served(tmp_path)
    assert ended.returncode == 78
    assert "cannot be used as the database" in ended.stderr


async def test_few_file_descriptors_are_enough_to_serve(tmp_path: Path) -> None:
    """With 64 the server holds no more connections than they allow for; one too many hurts nobody else."""
    program = ("/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-m", "parley_server")
    server = ServerProcess(tmp_path / "data", program=program)
    server.start()
    try:
        async with connected(server) as (stubs, health), contextlib.AsyncExitStack() as stack:
            first = await create(stubs)
            for _ in range(80):
                _, writer = await asyncio.open_connection(*server.address.rsplit(":", 1))
                stack.callback(writer.close)
            assert await exists(stubs, first)
            check_run(await run_agent(stubs, run_spec("What is 2 + 2?")))
            await stack.aclose()
            await becomes(health, SERVING)
            await create(stubs)
        assert server.stop() == 0, server.log
        assert server.log.count('"few_file_descriptors"') == 1
    finally:
        if server.is_running:
            server.kill()


async def test_a_database_with_flipped_bits_is_refused_or_served_and_never_crashes(tmp_path: Path) -> None:
    chance = random.Random(38)
    with running_server(tmp_path / "data") as server:
        async with connected(server) as (stubs, _):
            for _ in range(3):
                await run_agent(stubs, run_spec("What is 17 * 23?"))
        server.stop()
    whole = (server.data_dir / "parley.db").read_bytes()
    for n in range(3):
        data_dir = tmp_path / str(n)
        data_dir.mkdir()
        content = bytearray(whole)
        for _ in range(200):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (data_dir / "parley.db").write_bytes(content)
        flipped = ServerProcess(data_dir)
        try:
            flipped.start()
        except AssertionError:
            assert "parley-server: " in flipped.log
            assert "Traceback" not in flipped.log
            continue
        async with connected(flipped) as (stubs, _):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await run_agent(stubs, run_spec("What is 2 + 2?"))
        assert flipped.is_running
        flipped.kill()
