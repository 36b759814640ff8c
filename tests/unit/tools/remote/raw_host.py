"""A tool host that says whatever a test wants it to say, byte for byte, on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no stubs
from lasting_port import lasting_port
from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_pb2
from parley.v1.request_context_pb2 import RequestContext
from parley_server.rpc.mapping.request_context import to_binary
from parley_server.tools.grpc_source import GrpcToolSource
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.remote.host_settings import ToolHostSettings
from parley_server.tools.source import published
from parley_server.tools.tool import Tool

READ, IDEMPOTENT, WRITE = tool_pb2.TOOL_EFFECT_READ, tool_pb2.TOOL_EFFECT_IDEMPOTENT, tool_pb2.TOOL_EFFECT_WRITE
OBJECT = '{"type":"object"}'
TOKEN = "host-token"

Servicing = grpc.aio.ServicerContext[bytes, bytes]


@dataclass
class Received:
    """One call as the host got it."""

    request: pb.CallToolRequest
    metadata: dict[str, str | bytes]
    time_s: float
    context: Servicing
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def user(self) -> RequestContext:
        raw = self.metadata["parley-context-bin"]
        assert isinstance(raw, bytes)
        return RequestContext.FromString(raw)


Behaviour = Callable[[Received], AsyncIterator[bytes]]


def result(text: str) -> bytes:
    return pb.CallToolResponse(result=pb.HostedToolResult(result_json=text)).SerializeToString()


def progress(message: str) -> bytes:
    return pb.CallToolResponse(progress=pb.HostedToolProgress(message=message)).SerializeToString()


def failure(code: str, message: str = "No.", **more: object) -> bytes:
    return pb.CallToolResponse(error=pb.HostedToolError(code=code, message=message, **more)).SerializeToString()  # type: ignore[arg-type]  # fields of the message


def says(*events: bytes) -> Behaviour:
    """Behave so: say these events, and end well."""

    async def say(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001  # every behaviour takes it
        for event in events:
            yield event

    return say


def ends_with(code: grpc.StatusCode, *events: bytes) -> Behaviour:
    """Behave so: say these events, and end with a status."""

    async def end(received: Received) -> AsyncIterator[bytes]:
        for event in events:
            yield event
        await received.context.abort(code, "SELECT secret FROM hosts")

    return end


def a_tool(name: str = "do", effect: tool_pb2.ToolEffect.ValueType = READ, **rules: object) -> pb.HostedTool:
    fields: dict[str, object] = {"description": "Does it.", "input_schema_json": OBJECT, "spec_hash": "1", **rules}
    return pb.HostedTool(name=name, effect=effect, **fields)  # type: ignore[arg-type]  # fields of the message


class RawHost:
    """The host; `tools` may be changed under way, `behaviour` is what every call gets. After `stop` it may `start`."""

    def __init__(self, *tools: pb.HostedTool, behaviour: Behaviour | None = None, has_health: bool = True) -> None:
        self.tools: Sequence[pb.HostedTool] = tools or (a_tool(),)
        self.behaviour = behaviour or says(result("1"))
        self.received: list[Received] = []
        self.described = 0
        self.address = f"127.0.0.1:{lasting_port()}"
        self._has_health = has_health
        self._arrival = asyncio.Condition()

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> Self:
        """Serve on `address`."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        rpcs: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "DescribeTools": grpc.unary_unary_rpc_method_handler(self._describe),
            "CallTool": grpc.unary_stream_rpc_method_handler(self._call),
        }
        handler = grpc.method_handlers_generic_handler("parley.v1.ToolHostService", rpcs)
        self._server.add_generic_rpc_handlers((handler,))
        if self._has_health:
            self.health = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
            await self.set_serving(True)
        secure, plain = self._server.add_secure_port, self._server.add_insecure_port
        plain(self.address) if credentials is None else secure(self.address, credentials)
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(0)

    async def set_serving(self, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if is_serving else status.NOT_SERVING)

    async def call(self, number: int = 1) -> Received:
        """Wait for the call of that number, counted from 1."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.received) >= number)
        return self.received[number - 1]

    async def _describe(self, request: bytes, context: Servicing) -> bytes:
        assert request == b""
        await self._check_token(context)
        self.described += 1
        return pb.DescribeToolsResponse(tools=self.tools).SerializeToString()

    async def _call(self, request: bytes, context: Servicing) -> AsyncIterator[bytes]:
        await self._check_token(context)
        parsed = pb.CallToolRequest.FromString(request)
        metadata = dict(context.invocation_metadata() or ())
        received = Received(parsed, metadata, context.time_remaining(), context)
        async with self._arrival:
            self.received.append(received)
            self._arrival.notify_all()
        context.add_done_callback(lambda _: received.over.set())  # type: ignore[arg-type]  # a class in the stubs
        if parsed.spec_hash not in {tool.spec_hash for tool in self.tools if tool.name == parsed.name}:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another tool by now")
        async for event in self.behaviour(received):
            yield event

    async def _check_token(self, context: Servicing) -> None:
        if dict(context.invocation_metadata() or ()).get("authorization") != f"Bearer {TOKEN}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")


def source_of(host: RawHost, **settings: object) -> GrpcToolSource:
    told = {"target": host.address, "token": TOKEN, **settings}
    return GrpcToolSource("h", ToolHostSettings.model_validate(told), to_binary)


@asynccontextmanager
async def tools_of(host: RawHost, **settings: object) -> AsyncIterator[ToolRegistry]:
    """Run a host, and yield the registry with its tools."""
    async with AsyncExitStack() as stack:
        await host.start()
        stack.push_async_callback(host.stop)
        registry = ToolRegistry()
        await stack.enter_async_context(published([source_of(host, **settings)], registry))
        yield registry


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.01)


async def there(registry: ToolRegistry, name: str) -> Tool:
    """Wait for a tool."""
    await until(lambda: registry.get(name) is not None)
    tool = registry.get(name)
    assert tool is not None
    return tool
