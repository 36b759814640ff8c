"""The server that is fuzzed: a process of its own with a real store, and a little of everything in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import run_agent, run_spec, stubs_on
from fuzz.layer import Ground
from fuzz.messages import Known
from fuzz.rpcs import declared_rpcs
from parley.v1 import api_key_service_pb2, api_key_service_pb2_grpc, conversation_service_pb2
from server_process import ServerProcess, running_server


@dataclass(frozen=True)
class Fuzzed:
    """The server, and what the fuzz knows of it."""

    server: ServerProcess
    ground: Ground


@pytest.fixture(scope="module")
async def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fuzzed]:
    """One server for all cases."""
    data_dir: Path = tmp_path_factory.mktemp("fuzz")
    with running_server(data_dir) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            known = await _things(channel)
            key = await _key(channel)
        yield Fuzzed(server, Ground(server.address, declared_rpcs(), key, known))


async def _things(channel: grpc.aio.Channel) -> Known:
    """Make a conversation with two runs, and return what it all is called."""
    stubs = stubs_on(channel)
    first = await run_agent(stubs, run_spec("What is 17 * 23?"))
    conversation_id = first[0].conversation_id
    second = await run_agent(stubs, run_spec("Hello", conversation_id))
    listed = await stubs.conversations.ListMessages(
        conversation_service_pb2.ListMessagesRequest(conversation_id=conversation_id)
    )
    named = {
        "run_id": [first[0].run_id, second[0].run_id],
        "conversation_id": [conversation_id],
        "message_id": [message.message_id for message in listed.messages],
        "agent_id": ["", first[0].run_accepted.agent_id],
        "user_id": ["ann", "telegram:42"],
        "service_id": ["bot"],
        "act_as": ["ann", "telegram:*"],
        "scopes": ["runs:read", "admin"],
        "service": ["", "parley.v1.AgentService"],
        "file_containing_symbol": ["parley.v1.AgentService", "parley.v1.Run"],
        "paths": ["title", "metadata"],
    }
    return {name: [value.encode() for value in values] for name, values in named.items()}


async def _key(channel: grpc.aio.Channel) -> str:
    stub = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
    request = api_key_service_pb2.CreateApiKeyRequest(user_id="ann", scopes=["runs:read"])
    return str((await stub.CreateApiKey(request)).secret)
