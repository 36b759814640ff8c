"""The whole server in this process but for its model, which does what the user's last words say."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
from parley.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    content_pb2,
    run_event_pb2,
    run_pb2,
)
from parley_server.agents.base import AgentDescription
from parley_server.agents.registry import AgentRegistry
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.domain.content import text_of
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.tool import ToolEffect
from parley_server.llm.model_service import (
    FinishReason,
    ModelChunk,
    ModelError,
    ModelRequest,
    RefusalChunk,
    TextChunk,
    UserMessage,
)
from parley_server.metrics.recorder import SILENT
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.servicers.agent_service import AgentServicer
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from rpc.chassis import HASH_KEY
from unit.agents.scripted_model import Step, ask_for, say
from unit.tools.made_tools import made_tool

_BROKEN = ModelError(ErrorKind.UNAVAILABLE, Reason.MODEL_STREAM_INCOMPLETE, "the model's answer broke off")
ANSWERS: Mapping[str, Step] = {
    "answer": say("It is ", "done."),
    "length": say("Half", reason=FinishReason.LENGTH),
    "filter": say("Ha", reason=FinishReason.CONTENT_FILTER),
    "refuse": [RefusalChunk("No."), *say(reason=FinishReason.REFUSAL)],
    "break": [TextChunk("Half"), _BROKEN],
    **{name: ask_for((name, "{}"), text="Let me see.") for name in ("loop", "read", "put", "book")},
}


class ObedientModel:
    """Does what the user's last words say; `stall` says a word and no more, and `silence` nothing."""

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        last = next(each for each in reversed(request.messages) if isinstance(each, UserMessage))
        word = text_of(last.parts).split()[0]
        if word == "stall":
            yield TextChunk("Half")
        if word in ("stall", "silence"):
            await asyncio.Event().wait()
        for chunk in ANSWERS[word]:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        """Nothing to close."""


async def _last(context: ToolContext, arguments: JsonObject) -> object:
    """Go on until the run is cancelled; a WRITE ends well then."""
    await context.cancelled.wait()
    return arguments


def _tools() -> list[Tool]:
    effects = {"read": ToolEffect.READ, "put": ToolEffect.IDEMPOTENT, "book": ToolEffect.WRITE}
    return [made_tool("loop"), *(made_tool(name, _last, effect=effect) for name, effect in effects.items())]


@dataclass
class RunServer:
    """A running server; `agents` is the stub on its first connection."""

    address: str
    drain: Drain
    agents: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    channels: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def connect(self) -> tuple[grpc.aio.Channel, "agent_service_pb2_grpc.AgentServiceAsyncStub"]:
        """Open another connection."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = await self.channels.enter_async_context(grpc.aio.insecure_channel(self.address, options=options))
        return channel, agent_service_pb2_grpc.AgentServiceStub(channel)

    async def start(self, spec: run_pb2.RunSpec) -> run_pb2.Run:
        """Start a run."""
        return (await self.agents.StartRun(agent_service_pb2.StartRunRequest(run=spec), timeout=10)).run

    async def get(self, run_id: str) -> run_pb2.Run:
        """Return a run as it stands."""
        return (await self.agents.GetRun(agent_service_pb2.GetRunRequest(run_id=run_id), timeout=10)).run

    async def cancel(self, run_id: str) -> run_pb2.Run:
        """Ask a run to stop."""
        return (await self.agents.CancelRun(agent_service_pb2.CancelRunRequest(run_id=run_id), timeout=10)).run

    async def over(self, run_id: str) -> run_pb2.Run:
        """Wait until a run has ended, without being there for it."""
        async with asyncio.timeout(20):
            while not (run := await self.get(run_id)).HasField("finish_time"):  # noqa: ASYNC110  # a watcher would be there
                await asyncio.sleep(0.01)
        return run

    async def watch(self, run_id: str, until: str = "") -> list[run_event_pb2.RunEvent]:
        """Watch a run to its end, or to the first event of a kind."""
        call = self.agents.WatchRun(agent_service_pb2.WatchRunRequest(run_id=run_id), timeout=20)
        events: list[run_event_pb2.RunEvent] = []
        async for response in call:
            if response.event.seq:
                events.append(response.event)
            if response.event.WhichOneof("event") == until:
                break
        return events


def wish(text: str, conversation_id: str = "") -> run_pb2.RunSpec:
    """Ask for a run."""
    return run_pb2.RunSpec(input=[content_pb2.ContentPart(text=text)], conversation_id=conversation_id)


@asynccontextmanager
async def run_server(folder: Path, disconnect_grace: timedelta) -> AsyncIterator[RunServer]:
    """Run a server for a block, on a store of its own."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(SqliteDatabase(folder / "parley.db"))
        store = await stack.enter_async_context(open_store(database, ProtoEventCodec(), HASH_KEY))
        tools = ToolRegistry(_tools())
        agent = ToolLoopAgent(
            AgentDescription("assistant", "Assistant", "Helps.", "m", tools.names),
            "Obey.",
            model=ObedientModel(),
            tools=tools,
            tool_calls=ToolCallManager(tools),
        )
        agents, drain = AgentRegistry([agent]), Drain()
        engine = RunEngine(store, store.worker, agents, SILENT, disconnect_grace)
        stack.push_async_callback(engine.park)
        chain = build_auth_chain(("local",), ProviderParts(store.api_keys, HASH_KEY))
        descriptor = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
        server = RpcServer([Service(descriptor, AgentServicer(engine, agents, store, drain))], chain, drain)
        address = await server.start(ServerSettings(listen="127.0.0.1:0"))
        stack.push_async_callback(server.stop, 1)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        running = RunServer(address, drain, agent_service_pb2_grpc.AgentServiceStub(channel))
        await stack.enter_async_context(running.channels)
        yield running
