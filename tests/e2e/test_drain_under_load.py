"""A server that is stopped and started again under load: nobody who watches loses an event."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # its stubs lack List
from parley.v1 import run_event_pb2
from parley_client import ParleyClient
from run_history import check_run
from server_process import ServerProcess, running_server

RUNS = 16
LONG = "Tell me a story"


async def test_no_event_is_lost_over_a_drain_under_load(own_server: ServerProcess) -> None:
    streaming = asyncio.Semaphore(0)

    async def watch(parley: ParleyClient) -> list[run_event_pb2.RunEvent]:
        events = []
        async with parley.run(LONG) as run:
            async for event in run:
                events.append(event)
                if event.HasField("text_delta") and sum(each.HasField("text_delta") for each in events) == 3:
                    streaming.release()
        return events

    async with ParleyClient(own_server.address) as parley:
        watching = [asyncio.create_task(watch(parley)) for _ in range(RUNS)]
        for _ in range(RUNS):
            await streaming.acquire()
        own_server.signal(signal.SIGTERM)
        # Far within the grace of 30 s, since no stream keeps the server waiting.
        assert await asyncio.to_thread(own_server.wait, 20) == 0
        await asyncio.to_thread(own_server.start)
        for events in await asyncio.gather(*watching):
            check_run(events)


async def test_the_settings_of_the_drain_and_of_reflection_are_heard(tmp_path: Path) -> None:
    environment = {"PARLEY_SERVER__DRAIN_DELAY_S": "2", "PARLEY_SERVER__REFLECTION": "off"}
    with running_server(tmp_path / "data", environment=environment) as server:
        async with ParleyClient(server.address) as parley, grpc.aio.insecure_channel(server.address) as channel:
            reflection: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await reflection(timeout=5).read()
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert not await health_after_a_stop(channel, server)
            assert await parley.agents()
        assert await asyncio.to_thread(server.wait) == 0


async def health_after_a_stop(channel: grpc.aio.Channel, server: ServerProcess) -> bool:
    """Stop the server; return what health says next."""
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/grpc.health.v1.Health/Watch")
    states = method(b"", timeout=10)
    answers = aiter(states)
    await anext(answers)
    server.signal(signal.SIGTERM)
    answer = health_pb2.HealthCheckResponse.FromString(await anext(answers))
    states.cancel()
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
