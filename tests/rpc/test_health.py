"""The standard health service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]  # its stubs lack List
from rpc.chassis import Chassis, failed, running
from rpc.raw_http2 import RawClient, framed

AGENTS = "parley.v1.AgentService"
SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


def serialized(service: str) -> bytes:
    raw: bytes = pb.HealthCheckRequest(service=service).SerializeToString()
    return raw


def status_of(raw: bytes) -> int:
    return int(pb.HealthCheckResponse.FromString(raw).status)


async def check(chassis: Chassis, service: str = "") -> int:
    method: grpc.aio.UnaryUnaryMultiCallable[str, int] = chassis.channel.unary_unary(
        "/grpc.health.v1.Health/Check", serialized, status_of
    )
    return await method(service, timeout=5, metadata=grpc.aio.Metadata(("authorization", "Bearer nonsense")))


async def listed(chassis: Chassis) -> dict[str, int]:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = chassis.channel.unary_unary("/grpc.health.v1.Health/List")
    statuses = pb.HealthListResponse.FromString(await method(b"", timeout=5)).statuses
    return {str(name): int(state.status) for name, state in statuses.items()}


@asynccontextmanager
async def watching(chassis: Chassis, service: str = "") -> AsyncIterator[AsyncIterator[int]]:
    method: grpc.aio.UnaryStreamMultiCallable[str, int] = chassis.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", serialized, status_of
    )
    call = method(service, timeout=10)
    yield aiter(call)
    call.cancel()


async def test_health_needs_no_credential_and_minds_no_bad_one(chassis: Chassis) -> None:
    assert [await check(chassis, name) for name in ("", AGENTS)] == [SERVING, SERVING]


async def test_a_service_that_is_not_there(chassis: Chassis) -> None:
    failure = await failed(check(chassis, "parley.v1.NoService"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    async with watching(chassis, "parley.v1.NoService") as states:
        assert await anext(states) == UNKNOWN


async def test_list_names_every_service(chassis: Chassis) -> None:
    assert await listed(chassis) == {"": SERVING, AGENTS: SERVING}


async def test_a_watcher_is_told_every_state_he_is_there_to_hear(chassis: Chassis) -> None:
    async with watching(chassis) as states:
        assert await anext(states) == SERVING
        for serving, state in ((False, NOT_SERVING), (True, SERVING)):
            chassis.server.health.set_serving(serving)
            assert await anext(states) == state
        chassis.server.health.set_serving(True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(states)


async def test_a_watcher_who_does_not_read_holds_up_nobody(chassis: Chassis) -> None:
    async with RawClient(chassis.address, window=0) as client:
        await client.call("/grpc.health.v1.Health/Watch", [framed(b"")])
        await asyncio.sleep(0.1)
        for serving in (False, True) * 5:
            chassis.server.health.set_serving(serving)
            await asyncio.sleep(0)
        assert await check(chassis) == SERVING


async def test_a_drain_tells_watchers_and_lets_them_go() -> None:
    async with running() as chassis, watching(chassis) as states:
        assert await anext(states) == SERVING
        stopping = asyncio.ensure_future(chassis.server.stop(30))
        assert [state async for state in states] == [NOT_SERVING]
        async with asyncio.timeout(2):
            await stopping


async def test_reflection_is_listed_where_it_is_served() -> None:
    async with running(reflection=True) as chassis:
        names = {f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha")}
        assert set(await listed(chassis)) == {"", AGENTS, *names}
        assert {await check(chassis, name) for name in names} == {SERVING}


async def test_nothing_serves_before_the_server_is_said_to() -> None:
    async with running(serving=False) as chassis:
        assert [await check(chassis, name) for name in ("", AGENTS)] == [NOT_SERVING, NOT_SERVING]
        assert await listed(chassis) == {"": NOT_SERVING, AGENTS: NOT_SERVING}
        async with watching(chassis) as states:
            assert await anext(states) == NOT_SERVING
            chassis.server.health.set_serving(True)
            assert await anext(states) == SERVING


async def test_thousands_of_watchers_are_told_the_latest_state_and_no_older_one() -> None:
    # So many clients in one process hold up its event loop, which is not what is asked here.
    async with running() as chassis, AsyncExitStack() as stack:
        watchers = []
        for _ in range(8):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(chassis.address, options=options))
            other = replace(chassis, channel=channel)
            watchers += [await stack.enter_async_context(watching(other)) for _ in range(250)]
        assert set(await asyncio.gather(*(anext(states) for states in watchers))) == {SERVING}
        for serving in (False, True, False, True, False):
            chassis.server.health.set_serving(serving)
        assert set(await asyncio.gather(*(anext(states) for states in watchers))) == {NOT_SERVING}
        chassis.server.health.set_serving(True)
        assert set(await asyncio.gather(*(anext(states) for states in watchers))) == {SERVING}
        assert await check(chassis) == SERVING
