"""Conformance cases 20 and 22: clients that vanish, and clients that do not read."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator

import pytest
from catalogue.door import Door, text_spec
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from rpc.chassis import WATCH_RUN, running
from rpc.raw_http2 import RawClient, framed

# Those that ship, of which the first client is noticed at once and the second within 80 s, in less time.
IMPATIENT = {"grpc.keepalive_time_ms": 500, "grpc.keepalive_timeout_ms": 500, "grpc.http2.ping_timeout_ms": 500}
CLIENT = f"""
import sys, grpc
call = grpc.insecure_channel(sys.argv[1]).unary_stream({WATCH_RUN!r})(b"\\n\\x03run")
next(call)
print("open", flush=True)
next(call)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_the_stream_of_a_client_that_vanished_is_ended(number: signal.Signals) -> None:
    ended = asyncio.Event()

    async def stream(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        try:
            yield b""
            await asyncio.sleep(300)
        finally:
            ended.set()

    async with running(options=IMPATIENT) as chassis:
        chassis.runs.stream = stream
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, chassis.address, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert client.stdout is not None
            assert await client.stdout.readline() == b"open\n"
            client.send_signal(number)
            async with asyncio.timeout(30):
                await ended.wait()
        finally:
            if client.returncode is None:
                client.kill()
            await client.wait()
        assert (await chassis.get_run()).run.run_id == "run"


async def test_a_watcher_who_does_not_read_holds_up_no_other(either_door: Door) -> None:
    ann = either_door.ann
    spec = text_spec("What is 2 + 2?")
    run_id = (await ann.start(spec)).run_id
    watch = pb.WatchRunRequest(run_id=run_id)
    async with RawClient(either_door.address, window=10) as sleeper:
        stream = await sleeper.call(WATCH_RUN, [framed(watch.SerializeToString())], metadata=ann.metadata)
        events = await ann.events(watch)
        assert events[-1].HasField("run_finished")
        await sleeper.reset(stream)
    assert await ann.events(watch) == events
