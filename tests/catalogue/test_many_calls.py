"""Conformance cases 27 and 30: calls of every kind and end, by the thousand, and the server as large as before."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from catalogue.door import PATIENT, Caller, text_spec
from parley.v1 import agent_service_pb2 as agents
from server_process import ServerProcess, running_server

AT_ONCE = 20
MAX_GROWTH_BYTES = 8 * 1024 * 1024
MAX_IDLE_BYTES = 64 * 1024 * 1024
PAGE_BYTES = 4096
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


async def test_five_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    await check_calls(tmp_path, 5_000)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_hundred_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    await check_calls(tmp_path, 100_000)


async def test_a_thousand_idle_streams_are_small(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", environment=PATIENT) as server:
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=OWN_CONNECTION))
                for _ in range(10)
            ]
            caller = Caller(channels[0])
            await make_calls(caller, 400)
            spec = text_spec()
            spec.model_options.model = "offline-stall"
            watch = agents.WatchRunRequest(run_id=(await caller.start(spec)).run_id)
            before = memory_bytes(server)
            calls = [watching(channel, watch) for channel in channels for _ in range(100)]
            await asyncio.gather(*(call.read() for call in calls))
            assert memory_bytes(server) - before < MAX_IDLE_BYTES
            for call in calls:
                call.cancel()


def watching(channel: grpc.aio.Channel, watch: agents.WatchRunRequest) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/parley.v1.AgentService/WatchRun")
    return method(watch.SerializeToString())


async def check_calls(folder: Path, calls: int) -> None:
    with running_server(folder / "data", environment=PATIENT) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            caller = Caller(channel)
            await make_calls(caller, 1_000)
            before, files = memory_bytes(server), open_files(server)
            await make_calls(caller, calls)
            assert memory_bytes(server) - before < MAX_GROWTH_BYTES
            assert open_files(server) <= files + 2
        assert "internal_error" not in server.log
        assert "Traceback" not in server.log


async def make_calls(caller: Caller, calls: int) -> None:
    """Make so many calls: a quarter each succeeds, is malformed, finds nothing, and is given up."""
    for _ in range(calls // (4 * AT_ONCE)):
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(caller.ask(agents.ListRunsRequest(page_size=1), agents.ListRunsResponse))
                group.create_task(fail(caller, b"\xff", grpc.StatusCode.INVALID_ARGUMENT))
                group.create_task(fail(caller, b"\x0a\x05run_0", grpc.StatusCode.NOT_FOUND))
                group.create_task(give_up(caller))


async def fail(caller: Caller, raw: bytes, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.ask_raw(agents.GetRunRequest.DESCRIPTOR.full_name, raw)
    assert error.value.code() == code


async def give_up(caller: Caller) -> None:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = caller.channel.unary_unary(
        "/parley.v1.AgentService/ListRuns"
    )
    call = method(b"")
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def memory_bytes(server: ServerProcess) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * PAGE_BYTES


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
