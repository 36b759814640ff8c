"""The health of a tool host, as `grpc.health.v1` has it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]  # has no stubs
from grpc_health.v1 import health_pb2_grpc as pb_grpc

_KNOWN: Final = frozenset({"", "parley.v1.ToolHostService"})
_SERVING: Final = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
_NOT_SERVING: Final = pb.HealthCheckResponse(status=pb.HealthCheckResponse.NOT_SERVING)
_UNKNOWN: Final = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)


class HostHealth(pb_grpc.HealthServicer):  # type: ignore[misc]  # its base has no stubs
    """SERVING until `drain`, then NOT_SERVING. Those who watch are let go by `close`: by themselves they never end."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()
        self._closing = asyncio.Event()

    def drain(self) -> None:
        """Say that no more calls are wanted."""
        self._draining.set()

    def close(self) -> None:
        """End every watch."""
        self._closing.set()

    async def Check(  # noqa: N802  # the service's name
        self,
        request: pb.HealthCheckRequest,
        context: "grpc.aio.ServicerContext[pb.HealthCheckRequest, pb.HealthCheckResponse]",
    ) -> pb.HealthCheckResponse:
        """Tell the health now."""
        if request.service not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return _NOT_SERVING if self._draining.is_set() else _SERVING

    async def Watch(  # noqa: N802  # the service's name
        self,
        request: pb.HealthCheckRequest,
        context: "grpc.aio.ServicerContext[pb.HealthCheckRequest, pb.HealthCheckResponse]",  # noqa: ARG002  # gRPC's signature
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """Tell the health, now and when it changes."""
        if request.service not in _KNOWN:
            yield _UNKNOWN
        else:
            if not self._draining.is_set():
                yield _SERVING
                await self._draining.wait()
            yield _NOT_SERVING
        await self._closing.wait()
