"""A real server in a process of its own, and the generated stubs on a socket."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from model_server import ModelServer
from parley.v1 import (
    admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    content_pb2,
    conversation_service_pb2_grpc,
    run_event_pb2,
    run_pb2,
)
from server_process import ServerProcess, running_server

RPC_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Stubs:
    """The generated stubs over one channel."""

    agents: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    conversations: "conversation_service_pb2_grpc.ConversationServiceAsyncStub"
    admin: "admin_service_pb2_grpc.AdminServiceAsyncStub"


def stubs_on(channel: grpc.aio.Channel) -> Stubs:
    return Stubs(
        agent_service_pb2_grpc.AgentServiceStub(channel),
        conversation_service_pb2_grpc.ConversationServiceStub(channel),
        admin_service_pb2_grpc.AdminServiceStub(channel),
    )


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[ModelServer]:
    """A model that says "fine" unless it is told otherwise, for servers that a module points at it."""
    async with ModelServer({"rules": [{"text": "fine"}]}) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for a module's tests, with the offline model."""
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server a test may kill."""
    with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def stubs(server: ServerProcess) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield stubs_on(channel)


def run_spec(text: str, conversation_id: str = "") -> run_pb2.RunSpec:
    return run_pb2.RunSpec(input=[content_pb2.ContentPart(text=text)], conversation_id=conversation_id)


async def run_agent(stubs: Stubs, spec: run_pb2.RunSpec, request_id: str = "") -> list[run_event_pb2.RunEvent]:
    """Run to the end; return every event but heartbeats."""
    request = agent_service_pb2.RunAgentRequest(run=spec, request_id=request_id)
    call = stubs.agents.RunAgent(request, timeout=RPC_DEADLINE_S)
    return [response.event async for response in call if response.event.seq]


async def watch(stubs: Stubs, run_id: str, after_seq: int = 0) -> list[run_event_pb2.RunEvent]:
    """Watch to the end; return every event but heartbeats."""
    request = agent_service_pb2.WatchRunRequest(run_id=run_id, after_seq=after_seq)
    call = stubs.agents.WatchRun(request, timeout=RPC_DEADLINE_S)
    return [response.event async for response in call if response.event.seq]
