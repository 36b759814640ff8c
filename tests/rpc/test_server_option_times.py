"""Options whose shipped values are too long for a test: the same server with shorter ones in their place."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping

import grpc
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from rpc.chassis import GET_RUN, WATCH_RUN, Chassis, running
from rpc.raw_connection import connected

REQUEST = b"\n\x03run"


async def endless(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
    yield b""
    await asyncio.Event().wait()


@pytest.mark.parametrize("begin", [False, True])
async def test_a_connection_that_does_not_begin_is_closed(begin: bool) -> None:
    async with (
        running(options={"grpc.server_handshake_timeout_ms": 300}) as chassis,
        connected(chassis.address, begin=begin) as connection,
    ):
        assert await connection.closes(2) is not begin


async def test_a_connection_without_calls_is_closed() -> None:
    async with running(options={"grpc.max_connection_idle_ms": 300}) as chassis, connected(chassis.address) as idle:
        await idle.call(GET_RUN, REQUEST)
        assert (await idle.frame(GoAwayFrame)).additional_data == b"connection idle"
        assert await idle.closes()


async def test_a_connection_with_a_call_is_not_idle() -> None:
    async with running(options={"grpc.max_connection_idle_ms": 300}) as chassis:
        chassis.runs.stream = endless
        async with connected(chassis.address) as busy:
            await busy.call(WATCH_RUN, REQUEST)
            await busy.frame(DataFrame)
            assert not await busy.closes(1.5)


async def test_an_old_connection_is_told_to_go_and_its_streams_have_their_grace() -> None:
    ages = {"grpc.max_connection_age_ms": 300, "grpc.max_connection_age_grace_ms": 500}
    async with running(options=ages) as chassis:
        chassis.runs.stream = endless
        async with connected(chassis.address) as old:
            await old.call(WATCH_RUN, REQUEST)
            assert (await old.frame(GoAwayFrame)).error_code == 0
            assert not old.closed.is_set()
            assert await old.closes()
        stream = chassis.watch_run()
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            async for _ in stream:
                pass
        assert (cut.value.code(), cut.value.details()) == (grpc.StatusCode.UNAVAILABLE, "max connection age")


@pytest.mark.parametrize("calls", [150, pytest.param(2_000, marks=pytest.mark.soak)])
async def test_no_unary_call_notices_the_age_of_connections(calls: int) -> None:
    async with running(options={"grpc.max_connection_age_ms": 100}) as chassis:

        async def slow(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
            await asyncio.sleep(0.01)
            return pb.GetRunResponse()

        chassis.runs.answer = slow
        for _ in range(calls):
            await chassis.get_run()


FROZEN = {"grpc.keepalive_time_ms": 500, "grpc.keepalive_timeout_ms": 300, "grpc.http2.ping_timeout_ms": 300}


@pytest.mark.parametrize("answers_pings", [True, False])
async def test_a_frozen_client_is_noticed_and_a_living_one_is_kept(answers_pings: bool) -> None:
    async with running(options=FROZEN) as chassis:
        ended = asyncio.Event()

        async def watched(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
            yield b""
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        chassis.runs.stream = watched
        async with connected(chassis.address, answers_pings=answers_pings) as connection:
            await connection.call(WATCH_RUN, REQUEST)
            await connection.frame(PingFrame)
            assert await connection.closes(3) is not answers_pings
            if not answers_pings:
                async with asyncio.timeout(5):
                    await ended.wait()


async def test_a_client_may_ping_as_often_as_it_is_allowed_to() -> None:
    async with (
        running(options={"grpc.http2.min_ping_interval_without_data_ms": 50}) as chassis,
        connected(chassis.address) as connection,
    ):
        await connection.call(GET_RUN, REQUEST)
        for _ in range(8):
            await asyncio.sleep(0.1)
            await connection.ping()
        assert not connection.closed.is_set()


def calls_at_once(chassis: Chassis, count: int) -> Counter[str]:
    """Make that many calls from threads of the core's, which a stalled event loop does not stall."""
    channels = [
        grpc.insecure_channel(chassis.address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(count // 200)
    ]
    methods: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = [channel.unary_unary(GET_RUN) for channel in channels]
    calls = [methods[n % len(methods)].future(REQUEST, timeout=60) for n in range(count)]
    codes = Counter(call.code().name for call in calls)
    for channel in channels:
        channel.close()
    return codes


@pytest.mark.parametrize(
    ("pending", "is_refused"),
    [({"grpc.server.max_pending_requests": 50, "grpc.server.max_pending_requests_hard_limit": 100}, True), ({}, False)],
    ids=["a short queue", "the shipped one"],
)
async def test_calls_that_come_while_the_loop_is_stalled_are_kept(
    pending: Mapping[str, int],
    is_refused: bool,
) -> None:
    async with running(options=pending) as chassis:
        await chassis.get_run()
        calling = asyncio.ensure_future(asyncio.to_thread(calls_at_once, chassis, 1200))
        await asyncio.sleep(0.05)
        time.sleep(1.5)  # noqa: ASYNC251  # the stall
        codes = await calling
    assert codes.total() == 1200
    # Some may be told to come back later, which clients understand; CANCELLED is what none of them repeats.
    assert ("CANCELLED" in codes) is is_refused
