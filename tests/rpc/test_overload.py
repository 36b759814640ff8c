"""A held-up event loop: what queues meanwhile is refused so that clients try again, and nothing else is touched."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
import structlog
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from rpc.chassis import GET_RUN, WATCH_RUN, Chassis, failed, failure_of, running
from rpc.observed import observed
from rpc.test_health import NOT_SERVING, SERVING, check, watching

TESTS = Path(__file__).resolve().parents[1]
CHANNELS = 20
SOON_BEHIND_S = 1.0

Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


@asynccontextmanager
async def stalling_server() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rpc.stalling_server", cwd=TESTS, stdin=-1, stdout=-1, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


async def code_of(method: Unary, request: bytes) -> grpc.StatusCode:
    try:
        await method(request, timeout=60)
    except grpc.aio.AioRpcError as error:
        code = error.code()
        if code is grpc.StatusCode.UNAVAILABLE:
            failure = failure_of(error)
            assert failure.reason == "SERVER_OVERLOADED"
            assert "RetryInfo" in failure.details
            assert "grpc-retry-pushback-ms" in failure.trailers
        return code
    return grpc.StatusCode.OK


def run_named(run_id: str) -> bytes:
    return pb.GetRunRequest(run_id=run_id).SerializeToString()


@pytest.mark.parametrize(("count", "held_up_ms"), [(1_500, 2_500), pytest.param(4_000, 4_000, marks=pytest.mark.soak)])
async def test_calls_that_queue_while_the_loop_is_held_up_can_be_retried_and_none_is_cancelled(
    count: int, held_up_ms: int
) -> None:
    async with stalling_server() as address, AsyncExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=own)) for _ in range(CHANNELS)
        ]
        methods: list[Unary] = [channel.unary_unary(GET_RUN) for channel in channels]
        assert {await code_of(method, run_named("run")) for method in methods} == {grpc.StatusCode.OK}
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channels[0].unary_stream(WATCH_RUN)
        events = aiter(watch(run_named("run"), timeout=60))
        await anext(events)

        stall = asyncio.ensure_future(code_of(methods[0], run_named(f"stall-{held_up_ms}")))
        await asyncio.sleep(0.5)
        calls = [code_of(methods[number % CHANNELS], run_named("run")) for number in range(count)]
        codes = Counter(await asyncio.gather(*calls))
        assert codes.keys() <= {
            grpc.StatusCode.OK,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }, codes
        assert codes[grpc.StatusCode.UNAVAILABLE]
        # What was under way goes on: the stalled call itself, and the stream.
        assert await stall is grpc.StatusCode.OK
        assert len([event async for event in events]) == 99
        assert {await code_of(method, run_named("run")) for method in methods} == {grpc.StatusCode.OK}


async def stall(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
    time.sleep(1.5)  # noqa: ASYNC251  # the fault under test
    return pb.GetRunResponse()


async def quick(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
    return pb.GetRunResponse()


async def after_a_stall(chassis: Chassis) -> None:
    chassis.runs.answer = stall
    await chassis.get_run()
    chassis.runs.answer = quick


def ready(chassis: Chassis) -> bool:
    return chassis.server.is_ready


async def test_health_says_so_and_the_server_recovers_by_itself() -> None:
    async with observed(overload_lag_s=SOON_BEHIND_S) as server, watching(server.chassis) as states:
        chassis = server.chassis
        assert await anext(states) == SERVING
        await after_a_stall(chassis)
        assert ready(chassis) is False
        assert (await failed(chassis.get_run())).reason == "SERVER_OVERLOADED"
        assert server.number("parley_overloaded") == 1
        assert await anext(states) == NOT_SERVING
        assert await anext(states) == SERVING
        assert ready(chassis) is True
        await chassis.get_run()
        assert server.number("parley_overloaded") == 0
        assert server.number("parley_event_loop_timer_lag_seconds_sum") > 1


async def test_the_log_says_where_the_loop_was_held_up() -> None:
    with structlog.testing.capture_logs() as log:
        async with running(overload_lag_s=SOON_BEHIND_S) as chassis:
            await after_a_stall(chassis)
    (line,) = [line for line in log if line["event"] == "event_loop_stalled"]
    assert line["log_level"] == "warning"
    assert line["late_s"] > 1
    assert f"{__file__}:" in line["frames"][0]
    assert line["frames"][0].endswith(" stall")


@pytest.mark.parametrize("service", ["", "parley.v1.AgentService"])
async def test_health_is_answered_while_calls_are_shed(service: str) -> None:
    async with running(overload_lag_s=SOON_BEHIND_S) as chassis:
        await after_a_stall(chassis)
        assert await check(chassis, service) in {SERVING, NOT_SERVING}
        assert (await failed(chassis.get_run())).code is grpc.StatusCode.UNAVAILABLE
