"""A process that gets no more file descriptors, memory or threads: it serves on, or ends and loses nothing."""

import asyncio
import errno
import os
import resource
from collections import Counter
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on
from e2e.test_store_faults import connected
from faults.conftest import FaultyServer
from faults.disk_faults import Kind
from faults.witness import Witness, check_database, read
from parley.v1 import conversation_service_pb2, run_pb2
from run_history import check_run
from server_process import ServerProcess

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process: Linux")

SUM = "What is 17 * 23?"
NEW_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def limit(server: ServerProcess, kind: int, most: int) -> None:
    resource.prlimit(server.pid, kind, (most, resource.prlimit(server.pid, kind)[1]))


async def end_of_run(stubs: Stubs) -> run_pb2.RunState.ValueType:
    events = await run_agent(stubs, run_spec(SUM))
    check_run(events)
    return events[-1].run_finished.state


async def is_served(server: ServerProcess, conversation_id: str, deadline_s: float) -> bool:
    """Call over a new connection."""
    request = conversation_service_pb2.GetConversationRequest(conversation_id=conversation_id)
    async with grpc.aio.insecure_channel(server.address, options=NEW_CONNECTION) as channel:
        try:
            await stubs_on(channel).conversations.GetConversation(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise
            return False
        return True


def complaints(server: ServerProcess) -> Counter[str]:
    """Count the lines of the log that are none of the ordinary."""
    return Counter(line for line in server.log.splitlines() if '"level": "info"' not in line)


async def test_without_file_descriptors_the_old_connections_are_served(own_server: ServerProcess) -> None:
    async with connected(own_server) as (stubs, _):
        witness = Witness(stubs)
        assert await witness.write()
        assert await end_of_run(stubs) == run_pb2.RUN_STATE_SUCCEEDED
        before = complaints(own_server)
        limit(own_server, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{own_server.pid}/fd")))
        refused = [is_served(own_server, witness.kept[0], 1.0) for _ in range(10)]
        assert not any(await asyncio.gather(*refused))
        for _ in range(20):
            assert await witness.write()
        await read(stubs, witness.kept[-1])
        # The model's connection is kept, or it is told that there is none.
        assert await end_of_run(stubs) in (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.RUN_STATE_FAILED)
        assert (complaints(own_server) - before).total() <= 5, own_server.log
        limit(own_server, resource.RLIMIT_NOFILE, 1024)
        assert await is_served(own_server, witness.kept[0], RPC_DEADLINE_S)
        assert await end_of_run(stubs) == run_pb2.RUN_STATE_SUCCEEDED
    assert own_server.stop() == 0


@pytest.mark.parametrize("spare_mib", [4, pytest.param(64, marks=pytest.mark.soak)])
async def test_without_memory_it_is_served_or_begins_again(own_server: ServerProcess, spare_mib: int) -> None:
    """The gRPC core ends the process when it gets no memory, and then nothing that was acknowledged is lost."""
    async with connected(own_server) as (stubs, _):
        witness = Witness(stubs)
        assert await witness.write()
        status = Path(f"/proc/{own_server.pid}/status").read_text()
        (size_kib,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:"))
        limit(own_server, resource.RLIMIT_AS, (size_kib + spare_mib * 1024) * 1024)
        await asyncio.gather(*(witness.write() for _ in range(300)))
        if own_server.is_running:
            limit(own_server, resource.RLIMIT_AS, resource.RLIM_INFINITY)
            assert await witness.write()
            own_server.kill()
        assert own_server.wait() != 0
        check_database(own_server)
        own_server.start()
    async with connected(own_server) as (stubs, _):
        await witness.read_back(stubs)


async def test_a_server_that_serves_needs_no_more_threads(faulty: FaultyServer) -> None:
    async with connected(faulty.server) as (stubs, _):
        assert await end_of_run(stubs) == run_pb2.RUN_STATE_SUCCEEDED
        faulty.faults.fail(Kind.THREAD, errno.EAGAIN)
        witness = Witness(stubs)
        assert await witness.write()
        states = await asyncio.gather(*(end_of_run(stubs) for _ in range(20)))
        assert set(states) == {run_pb2.RUN_STATE_SUCCEEDED}
        assert await is_served(faulty.server, witness.kept[0], RPC_DEADLINE_S)
        assert not faulty.faults.failed
        faulty.faults.stop()
    assert faulty.server.stop() == 0
