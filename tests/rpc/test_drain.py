"""How a server stops, in its order: health, the delay, the streams, the calls, the connections."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # its stubs lack List
from hyperframe.frame import DataFrame, GoAwayFrame
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from rpc.chassis import WATCH_RUN, Chassis, failed, running
from rpc.raw_connection import connected


async def is_serving(chassis: Chassis) -> bool:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = chassis.channel.unary_unary("/grpc.health.v1.Health/Check")
    answer = health_pb2.HealthCheckResponse.FromString(await method(b"", timeout=5))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def seqs(stream: "grpc.aio.UnaryStreamCall[pb.WatchRunRequest, pb.WatchRunResponse]", count: int) -> list[int]:
    responses = [await stream.read() for _ in range(count)]
    return [response.event.seq for response in responses if isinstance(response, pb.WatchRunResponse)]


def waits_for_the_drain(chassis: Chassis) -> None:
    """Make WatchRun send three events, then wait as the relay of a quiet run does."""

    async def quiet(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[pb.WatchRunResponse]:
        for seq in range(1, 4):
            response = pb.WatchRunResponse()
            response.event.seq = seq
            yield response
        await chassis.drain.bound(asyncio.Event().wait)

    chassis.runs.stream = quiet


async def test_before_the_drain_only_health_says_that_the_server_stops() -> None:
    async with running() as chassis:
        waits_for_the_drain(chassis)
        stream = chassis.watch_run()
        assert await seqs(stream, 3) == [1, 2, 3]
        stopping = asyncio.ensure_future(chassis.server.stop(10, delay_s=1.0))
        await asyncio.sleep(0)
        assert not await is_serving(chassis)
        # Whoever has not noticed yet is served as ever, on old connections and on new ones.
        await chassis.get_run()
        async with grpc.aio.insecure_channel(chassis.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            await replace(chassis, channel=other).get_run()
        assert not stopping.done()
        failure = await failed(stream.read())
        assert failure.reason == "SERVER_DRAINING"
        await stopping


async def test_a_stream_ends_after_a_whole_event_and_says_when_to_come_back() -> None:
    async with running() as chassis:
        waits_for_the_drain(chassis)
        stream = chassis.watch_run()
        assert await seqs(stream, 3) == [1, 2, 3]
        stopping = asyncio.ensure_future(chassis.server.stop(10))
        failure = await failed(stream.read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        retry = failure.details["RetryInfo"]
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert retry.retry_delay.ToMilliseconds() == int(failure.trailers["grpc-retry-pushback-ms"]) > 0
        await stopping


async def test_a_connection_is_told_to_go_and_closed_once_its_streams_have_ended() -> None:
    async with running() as chassis:
        waits_for_the_drain(chassis)
        async with connected(chassis.address) as connection:
            await connection.call(WATCH_RUN, b"\n\x03run")
            await connection.frame(DataFrame)
            stopping = asyncio.ensure_future(chassis.server.stop(10))
            assert (await connection.frame(GoAwayFrame)).error_code == 0
            assert await connection.closes()
        await stopping


async def test_what_goes_on_after_the_grace_is_cut_off() -> None:
    async with running() as chassis:
        begun = asyncio.Event()

        async def endless(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        chassis.runs.answer = endless
        call = chassis.get_run()
        await begun.wait()
        await chassis.server.stop(0.2)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await call
        assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
