"""The wire to one tool host: connecting, its description, its health, its calls."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # its stubs lack List
from parley.v1 import tool_host_service_pb2 as pb

from parley_server.domain.content import storable_text
from parley_server.tools.remote.channel import open_channel
from parley_server.tools.remote.host_settings import ToolHostSettings

_SERVICE = "/parley.v1.ToolHostService/"
_MAX_PROBLEM_CHARS = 200
# A host that answers so has no health that it would tell.
_NO_HEALTH = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)

Metadata = tuple[tuple[str, str | bytes], ...]
EventStream = grpc.aio.UnaryStreamCall[pb.CallToolRequest, bytes]


class HostUnreachableError(Exception):
    """The host does not answer, or not as it should; the message says why, for the operator."""


class HostConnection:
    """The channel to a host; open it inside the event loop that uses it."""

    def __init__(self, settings: ToolHostSettings, credentials: grpc.ChannelCredentials | None) -> None:
        self._settings = settings
        self._credentials = credentials
        token = settings.token.get_secret_value()
        self._metadata: Metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def __aenter__(self) -> Self:
        channel = open_channel(self._settings, self._credentials)
        self._channel = channel
        self._describe: grpc.aio.UnaryUnaryMultiCallable[pb.DescribeToolsRequest, bytes] = channel.unary_unary(
            f"{_SERVICE}DescribeTools", pb.DescribeToolsRequest.SerializeToString
        )
        # Bytes, because what a stub cannot read it loses without a word.
        self._call: grpc.aio.UnaryStreamMultiCallable[pb.CallToolRequest, bytes] = channel.unary_stream(
            f"{_SERVICE}CallTool", pb.CallToolRequest.SerializeToString
        )
        self._watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/grpc.health.v1.Health/Watch"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def connect(self, *, patiently: bool = False) -> None:
        """Return as soon as there is a connection; patiently: however often it fails before the time is up.

        Raises:
            HostUnreachableError: there is none, so that nothing has been sent.
        """
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                while (state := self._channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not patiently:
                        raise HostUnreachableError("it cannot be connected to")
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            raise HostUnreachableError("connecting takes too long") from None

    async def describe(self) -> pb.DescribeToolsResponse:
        """Return what the host tells of its tools. Raises HostUnreachableError."""
        request = pb.DescribeToolsRequest()
        try:
            raw = await self._describe(request, timeout=self._settings.describe_timeout_s, metadata=self._metadata)
            return pb.DescribeToolsResponse.FromString(raw)
        except grpc.aio.AioRpcError as error:
            told = storable_text((error.details() or "")[:_MAX_PROBLEM_CHARS])
            raise HostUnreachableError(f"{error.code().name}: {told}") from error
        except DecodeError:
            raise HostUnreachableError("what it tells of its tools cannot be read") from None

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        """Tell whether the host serves, whenever it says so, until it is lost; never return if it does not say."""
        call = self._watch(b"", metadata=self._metadata)
        try:
            while (raw := await call.read()) is not grpc.aio.EOF:
                status = health_pb2.HealthCheckResponse.FromString(raw).status
                tell(status != health_pb2.HealthCheckResponse.NOT_SERVING)
        except grpc.aio.AioRpcError as error:
            if error.code() in _NO_HEALTH:
                await asyncio.Event().wait()
        except DecodeError:
            await asyncio.Event().wait()
        finally:
            call.cancel()

    def call(self, request: pb.CallToolRequest, metadata: Metadata, timeout_s: float) -> EventStream:
        """Send a call; what it answers comes as bytes."""
        return self._call(request, timeout=timeout_s, metadata=(*self._metadata, *metadata))
